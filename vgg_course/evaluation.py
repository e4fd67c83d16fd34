"""How good is a network? Logits over a whole split first; every figure then follows from logits and labels."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import sklearn.metrics
import torch
from torch import nn

from vgg_course.data import Images, batches
from vgg_course.speed import views as views_of


def autocast(device: torch.device | str, precision: str) -> torch.autocast:
    """A context in which layers compute in ``"fp32"``, or in ``"bf16"`` or ``"fp16"`` where that is safe."""
    if precision not in ("fp32", "bf16", "fp16"):
        raise ValueError(f"precision is {precision!r}, but it must be fp32, bf16 or fp16")
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    low = dtype if precision != "fp32" else torch.bfloat16  # autocast wants a short type even when it is off
    return torch.autocast(torch.device(device).type, dtype=low, enabled=precision != "fp32")


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """A context: after it each layer is in ``train()`` or ``eval()`` mode as before; not all need to be in the same."""
    former = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in former:
            module.training = training


def predict(
    model: nn.Module, split: Images, *, batch_size: int | None = None, precision: str = "fp32", views: int = 1
) -> torch.Tensor:
    """Logits ``(N, classes)`` float32 on the CPU for all images of a split, in their order.

    The model runs in ``eval()`` (dropout off, batch norm with its running statistics) and in ``inference_mode()``
    (nothing is kept for gradients), on the device where its weights are; afterwards each layer is in its former mode.
    At once it takes ``batch_size`` images, by default 1,000, or 200 on a CPU: there the maps of more need new memory
    each time, which is slower (see :func:`vgg_course.speed.memory_kept`). Of more than 32x32 pixels it takes fewer: as
    many pixels.
    With ``views`` 2 or 6 the logits are means over so many views of each image: see :func:`vgg_course.speed.views`.
    """
    if not isinstance(model, nn.Module) or not isinstance(split, Images):
        given = f"{type(model).__name__} and {type(split).__name__}"
        raise TypeError(f"predict takes a network and a split, such as data.test, not {given}")
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    if batch_size is None:
        most = 200 if device.type == "cpu" else 1000
        batch_size = max(1, min(most, most * 32 * 32 // math.prod(split.images.shape[2:])))
    with modes_kept(model), torch.inference_mode(), autocast(device, precision):
        model.eval()
        logits = [
            sum(model(view).float() for view in views_of(images, views)) / views
            for images, _ in batches(split.to(device), batch_size)
        ]
    return torch.cat(logits).cpu()


def accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The part of the images, 0 to 1, whose largest logit ``(N, classes)`` stands at their label ``(N,)``.

    >>> accuracy(torch.tensor([[0.1, 2.0], [3.0, 0.0]]), torch.tensor([1, 1]))  # the second one is wrong
    0.5
    """
    _check(logits, labels)
    return (logits.argmax(1).cpu() == labels.cpu()).float().mean().item()


def per_class_accuracy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Accuracy of each class ``(classes,)``, 0 to 1; NaN for a class without images."""
    matrix = torch.from_numpy(confusion_matrix(logits, labels)).double()
    return (matrix.diagonal() / matrix.sum(1)).float()


def confusion_matrix(logits: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """Counts ``(classes, classes)`` int64: row = the true class, column = the predicted one.

    >>> confusion_matrix(torch.tensor([[0.1, 2.0], [3.0, 0.0]]), torch.tensor([1, 1])).tolist()
    [[0, 0], [1, 1]]
    """
    _check(logits, labels)
    true, predicted = labels.cpu().numpy(), logits.argmax(1).cpu().numpy()
    matrix: np.ndarray = sklearn.metrics.confusion_matrix(true, predicted, labels=range(logits.shape[1]))
    return matrix


class Mistakes(NamedTuple):
    """Wrong predictions, the most confident first; each field ``(K,)``."""

    index: torch.Tensor  # type: ignore[assignment]  # int64: position in the split; hides the tuple's own index
    predicted: torch.Tensor  # int64: the class that the network chose
    confidence: torch.Tensor  # float32, 0 to 1: the softmax probability that it gave to this class


def mistakes(logits: torch.Tensor, labels: torch.Tensor, most: int | None = None) -> Mistakes:
    """The images that the network got wrong, those that it was most sure of first; at most ``most`` of them."""
    _check(logits, labels)
    if most is not None and (not isinstance(most, int) or most < 0):
        raise ValueError(f"most is the number of mistakes to give, or None for all, not {most!r}")
    predicted = logits.argmax(1).cpu()  # of the logits, as for accuracy: a softmax may round two to the same
    confidence = logits.cpu().softmax(1).gather(1, predicted[:, None])[:, 0]
    wrong = (predicted != labels.cpu()).nonzero().flatten()
    order = confidence[wrong].argsort(descending=True, stable=True)[:most]
    index = wrong[order]
    return Mistakes(index, predicted[index], confidence[index])


def _check(logits: torch.Tensor, labels: torch.Tensor) -> None:
    if not isinstance(logits, torch.Tensor) or not isinstance(labels, torch.Tensor):
        raise TypeError(f"logits and labels must be tensors, not {type(logits).__name__} and {type(labels).__name__}")
    if logits.dim() != 2 or labels.dim() != 1 or len(logits) != len(labels) or len(labels) == 0:
        raise ValueError(
            f"logits (N, classes) and labels (N,) of the same N > 0 are needed, not {tuple(logits.shape)} "
            f"and {tuple(labels.shape)}"
        )
    if labels.is_floating_point():
        raise TypeError(f"labels are whole numbers, not {labels.dtype}")
    if not logits.is_floating_point():
        raise TypeError(f"logits are floats, not {logits.dtype}")
    if logits.isnan().any():
        raise ValueError("the logits hold nan: the network has diverged; train it again with a lower learning rate")
    if not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
        given = f"{int(labels.min())} to {int(labels.max())}"
        raise ValueError(f"labels of {logits.shape[1]} classes go from 0 to {logits.shape[1] - 1}, not from {given}")
