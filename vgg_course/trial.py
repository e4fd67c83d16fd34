"""What ``fit`` refuses before it takes any time: wrong arguments, and what would fail in the middle of a run."""

import copy
import math
import os
from typing import Any

import torch
from torch import nn

from vgg_course.data import Dataset, Images
from vgg_course.evaluation import modes_kept
from vgg_course.recipes import Recipe
from vgg_course.sources import one_line
from vgg_course.speed import smaller


def check(model: nn.Module, data: Dataset, recipe: Recipe, tracker: object) -> None:
    """Refuse, before any time is spent, what could not be trained."""
    wanted = {"model": (model, nn.Module), "data": (data, Dataset), "recipe": (recipe, Recipe)}
    for name, (value, kind) in wanted.items():
        if not isinstance(value, kind):
            shown = " ".join(repr(value).split())[:80]
            raise TypeError(f"fit: {name} must be a {kind.__name__}, not {shown}")
    if tracker is not None and not callable(tracker):
        raise TypeError(f"fit: a tracker is a function of step and values, such as a LossTracker, not {tracker!r}")
    for name, split in {"train": data.train, "validation": data.validation}.items():
        if not isinstance(split, Images):
            raise TypeError(f"fit: data.{name} must be an Images, not {type(split).__name__}")
        if len(split) == 0:
            raise ValueError(f"fit: data.{name} of {data.name} holds no images")
        if tuple(split.classes) != tuple(data.classes):
            raise ValueError(f"fit: data.{name} has other classes than data.train: {split.classes}, {data.classes}")
    if torch.is_inference_mode_enabled():
        raise ValueError("fit: nothing can learn inside torch.inference_mode(): call fit outside of it")
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError("fit: nothing in this model can learn: it has no parameters, or all have requires_grad=False")
    with modes_kept(model), torch.no_grad():
        logits = _try_out(model, data, recipe)
    given = tuple(logits.shape) if isinstance(logits, torch.Tensor) else f"a {type(logits).__name__}"
    if given != (1, len(data.classes)):
        raise ValueError(
            f"fit: for one image the model gives {given}, but {data.name} has {len(data.classes)} "
            f"classes: it must give (1, {len(data.classes)}), for instance VGG(..., num_classes={len(data.classes)})"
        )


def _try_out(model: nn.Module, data: Dataset, recipe: Recipe) -> Any:
    """What the model makes of one image. Raises ``ValueError`` for what its training would come to later."""
    weight, train, tried = next(model.parameters()), data.train, {"train": data.train}
    if data.validation.images.shape[2:] != train.images.shape[2:]:
        tried = {"validation": data.validation} | tried
    for name, split in tried.items():
        sample = split.subset(slice(0, 1))
        image = sample.normalize(sample.images.to(weight.device))
        try:
            logits = model.eval()(image)
        except (ValueError, RuntimeError) as error:
            if weight.dtype != torch.float32:
                raise ValueError(
                    f"fit: the weights are {weight.dtype}, and the images come as torch.float32 ({error}): "
                    "model.float() first; the recipe's precision makes it fast"
                ) from None
            if isinstance(error, ValueError):  # in words of the course
                raise
            raise ValueError(
                f"fit: the model does not take an image of data.{name}, {tuple(image.shape)}: {one_line(error)}"
            ) from error
    if recipe.small_part:
        try:
            model(smaller(image))
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                f"fit: small_part is {recipe.small_part}, but the model takes no images at 3/4 of their size "
                f"({error}): build it with global_pool=True, or take small_part=0.0"
            ) from None
    team = 1 if recipe.resolve_device().type == "cuda" else int(os.environ.get("WORLD_SIZE", 1))  # GPUs share norms
    steps, last = math.ceil(len(train) / recipe.batch_size), len(train) % recipe.batch_size or recipe.batch_size
    if last // team == 1:  # somebody gets a single image in the last step of each epoch
        early = recipe.small_part * recipe.epochs * steps > steps - 1  # and it may be a small one
        try:
            copy.deepcopy(model).train()(smaller(image) if early else image)
        except ValueError as error:
            raise ValueError(
                f"fit: with batch_size {recipe.batch_size} the last batch of {len(train)} images has only "
                f"one{' for a process' if team > 1 else ''}, and a batch norm needs more ({error}): take another "
                "batch_size"
            ) from None
    return logits
