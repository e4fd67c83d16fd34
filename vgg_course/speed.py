"""What makes training fast, one function or class for each idea; every one works outside ``fit`` too.

``whiten`` sets the first layer from the images, so that it need not be learned; ``Muon`` makes larger steps than SGD
without harm; ``augmented`` shows each image in a new place and, every other epoch, in the mirror; ``memory_kept`` uses
memory again; ``views`` lets a trained network look at an image several times. ``benchmarks/README.md`` says what each
brought, and what did not help.
"""

import ctypes
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from vgg_course.data import Images, memory_format


def patch_filters(images: torch.Tensor, size: int, floor: float = 5e-4) -> torch.Tensor:
    """Filters ``(3 * size**2, 3, size, size)`` whose outputs over all patches of ``(N, 3, H, W)`` are whitened.

    Whitened: uncorrelated, each with variance 1. Neighbouring pixels are nearly the same, so the patches of images
    lie along a few directions: the eigenvectors of their covariance. A filter is one of these, the direction with the
    largest variance first, divided by its standard deviation. ``floor`` is added to the variances, so that directions
    in which there is hardly anything but noise are not blown up. Source: Coates and Ng, 2012, "Learning feature
    representations with k-means"; as a frozen first layer: Page, 2019, "How to train your ResNet 8: Bag of tricks".
    """
    covariance, count = torch.zeros((), device=images.device), 0
    # Large images not all at once: their patches, size**2 times as many numbers, would fill the memory.
    for part in images.split(max(1, 500 * 32**2 // images[0, 0].numel())):
        patches = functional.unfold(part, size).transpose(1, 2).flatten(0, 1)  # (patches, 3 * size**2)
        covariance = covariance + patches.T @ patches
        count += len(patches)
    covariance = covariance / count  # the mean of normalised images is near 0: it is left out
    variances, directions = torch.linalg.eigh(covariance.cpu().double())  # ascending; directions are columns
    filters: torch.Tensor = directions / (variances + floor).sqrt()
    return filters.T.flip(0).reshape(-1, images.shape[1], size, size).float()


@torch.no_grad()
def whiten(model: nn.Module, split: Images, count: int = 500) -> None:
    """Set the first convolution of ``model`` to whiten the patches of ``split``, and freeze it: no gradient needed.

    Half of its filters are the strongest of :func:`patch_filters`, the other half the same with the opposite sign,
    because the ReLU that follows lets only one sign through. Nothing before the second convolution needs a backward
    pass then, and that is where the images are largest. Make the layers with ``patch=2`` or ``3``: no padding, whose
    zeros are in no patch, and no norm, as the outputs have variance 1 already. ``count``: so many images of ``split``,
    the first ones, are looked at; those of a folder are all of its first classes. Raises ``ValueError`` for a first
    layer without 3 channels or with too many filters, and for no images, ``TypeError`` for what is no split.
    """
    if not isinstance(split, Images):
        raise TypeError(f"whiten takes a split, such as data.train, not {type(split).__name__}")
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None or first.in_channels != 3:
        raise ValueError(f"whiten needs a first convolution of 3 channels, and the first one here is {first}")
    wanted, possible = first.out_channels // 2, first.weight[0].numel()
    if first.out_channels % 2 or wanted > possible:
        raise ValueError(
            f"whiten needs an even number of filters, at most {2 * possible} of this size, in the first "
            f"convolution, but it has {first.out_channels}"
        )
    if not isinstance(count, int) or count < 1 or len(split) == 0:
        raise ValueError(f"whiten looks at images, but count is {count!r}, and the split has {len(split)}")
    images = split.subset(slice(0, count))
    filters = patch_filters(images.normalize(images.images).cpu(), first.kernel_size[0])[:wanted]
    first.weight.copy_(torch.cat([filters, -filters]))
    if first.bias is not None:
        first.bias.zero_()
    first.requires_grad_(False)


@torch.no_grad()
def start_as_identity(model: nn.Module) -> None:
    """Let the first filters of each convolution, but the first one, pass a channel on as it is; the rest stay random.

    Such a filter (of those that are as many as the input has channels) is 1 in its middle for its own channel, and 0
    elsewhere. What the first layer sees then reaches the last one from the first step on, however deep the network
    is. Source: airbench94 (Jordan, 2024), after Zagoruyko and Komodakis, 2017, "DiracNets".
    """
    for layer in [m for m in model.modules() if isinstance(m, nn.Conv2d)][1:]:
        nn.init.dirac_(layer.weight[: layer.in_channels])


def orthogonal(matrix: torch.Tensor, steps: int = 3) -> torch.Tensor:
    """Bring all singular values of ``(rows, columns)`` near 1 and keep the directions: ``U S V^T`` to ``U V^T``.

    Without a decomposition: an odd polynomial ``aX + b(XX^T)X + c(XX^T)^2 X`` changes the singular values ``s`` to
    ``as + bs^3 + cs^5`` and nothing else. The coefficients are chosen such that values between 0 and 1 quickly come
    between 0.7 and 1.2. Source: Jordan and others, 2024, "Muon: an optimizer for hidden layers in neural networks".
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrix.shape[0] > matrix.shape[1]
    x: torch.Tensor = matrix.T if tall else matrix  # X X^T is then the smaller of the two products
    x = x / (x.norm() + 1e-7)  # now no singular value is above 1
    for _ in range(steps):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov SGD whose steps for the filters of convolutions are made :func:`orthogonal` first.

    A gradient changes a few combinations of filters much and all others hardly at all; made orthogonal, the step
    changes all of them alike. Filters ``(out, in, kh, kw)`` are seen as matrices ``(out, in * kh * kw)``, and before
    the step they are scaled to a mean norm of 1 a filter, so that ``lr`` is the part of a filter that a step renews
    (the batch norm behind them takes any scale away). All other parameters, the last layer for one, take plain
    steps with ``other_lr`` and ``weight_decay``. ``biases`` are some of the parameters that take plain steps with
    ``bias_lr`` and without weight decay: the biases of batch norms, whose gradients are small. ``dtype`` is that of
    the orthogonalising: bfloat16 will do, in half the time where the hardware has it. ``torch.optim.Muon`` (torch 2.9
    on) is for 2-D parameters only. Source: Jordan and others, 2024; for a small convolutional network, and for the
    large rate of the biases: airbench94, its variant with Muon.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float = 0.24,
        other_lr: float = 0.02,
        momentum: float = 0.6,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
        biases: Iterable[nn.Parameter] = (),
        bias_lr: float = 0.02,
    ) -> None:
        self.dtype = dtype
        parameters = list(parameters)
        if not any(p.requires_grad for p in parameters):
            raise ValueError(
                "Muon needs parameters to move, but there are none, or all are frozen (requires_grad=False)"
            )
        learning = [p for p in parameters if p.requires_grad]
        apart = {id(p) for p in biases}
        filters, alone = [p for p in learning if p.dim() == 4], [p for p in learning if id(p) in apart]
        others = [p for p in learning if p.dim() != 4 and id(p) not in apart]
        groups = [
            {"params": filters, "lr": lr, "filters": True},
            {"params": others, "lr": other_lr, "filters": False},
            {"params": alone, "lr": bias_lr, "filters": False, "weight_decay": 0.0},
        ]
        defaults = {"momentum": momentum, "weight_decay": weight_decay}
        super().__init__([group for group in groups if group["params"]], defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Change all parameters that have a gradient; a ``closure`` is not supported."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                gradient = p.grad if group["filters"] else p.grad.add(p, alpha=group["weight_decay"])
                if "velocity" not in self.state[p]:
                    self.state[p]["velocity"] = torch.zeros_like(p)
                velocity = self.state[p]["velocity"]
                velocity.mul_(group["momentum"]).add_(gradient)
                change = gradient.add(velocity, alpha=group["momentum"])  # Nesterov: one step ahead
                if group["filters"]:
                    p.mul_(math.sqrt(len(p)) / p.norm().clamp(min=1e-12))  # filters of zeros stay zeros
                    change = orthogonal(change.flatten(1).to(self.dtype)).to(p.dtype).view_as(p)
                p.sub_(group["lr"] * change)


def augmented(split: Images, *, seed: int, epoch: int, shift: int = 2) -> Images:
    """``split`` as the network sees it in an epoch: each image moved by up to ``shift`` pixels, half of them mirrored.

    An image that is mirrored in one epoch is not in the next: in two epochs the network sees both sides of every
    image, where a coin for each would show one side twice to half of them. Edges are filled with their reflection.
    What comes out follows from ``(seed, epoch)`` alone. Works on the whole split at once, 0.3 s for 45,000 images.
    Source: Jordan, 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (alternating flip).
    """
    if not isinstance(seed, int) or not isinstance(epoch, int) or min(seed, epoch) < 0:
        raise ValueError(f"seed and epoch must be whole numbers from 0 up, not {seed!r} and {epoch!r}")
    count, (height, width) = len(split), split.images.shape[2:]
    if not isinstance(shift, int) or not 0 <= shift < min(height, width):
        raise ValueError(f"shift must be a whole number of pixels below the images' {width}x{height}, not {shift!r}")
    mirrored = np.random.default_rng(seed).random(count) < 0.5
    if epoch % 2:
        mirrored = ~mirrored
    down, right = np.random.default_rng([seed, epoch]).integers(-shift, shift + 1, (2, count))

    def sources(size: int, by: int) -> torch.Tensor:  # which row or column comes into each place
        position = (torch.arange(size, device=split.images.device) + by).abs()  # -1 becomes 1: the reflection
        return torch.where(position >= size, 2 * (size - 1) - position, position)

    pixels = split.images.permute(0, 2, 3, 1).contiguous()  # (N, H, W, 3): no copy, they are stored in this order
    result = torch.empty_like(pixels)
    kinds = (down + shift) * (4 * shift + 2) + (right + shift) * 2 + mirrored
    for kind in np.unique(kinds):  # all images of a kind are moved and mirrored alike
        chosen = np.flatnonzero(kinds == kind)
        columns = sources(width, right[chosen[0]])
        columns = columns.flip(0) if mirrored[chosen[0]] else columns
        index = torch.from_numpy(chosen).to(pixels.device)
        moved = pixels.index_select(0, index).index_select(1, sources(height, down[chosen[0]]))
        result[index] = moved.index_select(2, columns)  # index_copy_ does not work on Macs before torch 2.8
    return replace(split, images=result.permute(0, 3, 1, 2))


def smaller(images: torch.Tensor, part: float = 0.75) -> torch.Tensor:
    """``(N, C, H, W)`` at ``part`` of their size, 32 pixels become 24: a step then costs about half.

    Where things are and how they are put together can be learned from small images, and the filters fit the large
    ones afterwards. The network has to take every size (``global_pool``). Source: Howard, 2018, progressive resizing.

    >>> smaller(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 3, 24, 24])
    """
    if not 0 < part <= 1:
        raise ValueError(f"part is {part!r}, but it must be above 0, and at most 1 (the whole size)")
    size = [max(1, round(part * side)) for side in images.shape[2:]]
    return functional.interpolate(images, size, mode="bilinear", align_corners=False)


def compiled(model: nn.Module, device: torch.device) -> nn.Module:
    """``model`` with its operations joined by ``torch.compile``, the same weights and the same results to rounding.

    Each operation starts for itself and writes its whole result to memory; joined, a norm and its ReLU read and write
    once. The first steps take a minute for it. On a CPU whose time goes into convolutions it brings next to nothing.
    Raises ``ValueError`` where nothing can be compiled: a C++ compiler is needed, and on a GPU Triton.
    """
    try:
        torch.compile(torch.erf)(torch.zeros(8, device=device))  # does it work on this machine?
    except Exception as error:  # from whichever of the tools behind it
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise ValueError(
            f"Recipe: compile is True, but torch.compile does not work here ({reason}): install a C++ compiler, or "
            "use compile=False, which trains the same network"
        ) from None
    joined = torch.compile(model)
    assert isinstance(joined, nn.Module)
    return joined


@contextmanager
def memory_kept(device: torch.device) -> Iterator[None]:
    """A context for training on a CPU: memory that one tensor has left is used again for the next.

    Usually the C library of Linux gets every piece above 32 MB from the system and gives it back right afterwards, and
    the system fills each new piece with zeros, page by page of 4 KB. The maps of 500 images are larger than that, and
    a step makes dozens of them. At the end all of it goes back to the system. On a GPU, and where the C library is
    another one than glibc, nothing changes. Source: the manual of glibc, "Malloc Tunable Parameters".
    """
    libc = ctypes.CDLL(None) if device.type == "cpu" and hasattr(os, "fork") else None  # not on Windows
    if libc is None or not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        yield
        return
    trim_threshold, mmap_threshold = -1, -3  # the numbers that these settings have in malloc.h
    libc.mallopt(trim_threshold, 2**31 - 1)
    libc.mallopt(mmap_threshold, 2**31 - 1)
    try:
        yield
    finally:  # 32 and 64 MB are where glibc ends by itself once a program has used large pieces
        libc.mallopt(mmap_threshold, 2**25)
        libc.mallopt(trim_threshold, 2**26)
        libc.malloc_trim(0)


def views(images: torch.Tensor, count: int) -> list[torch.Tensor]:
    """``count`` ways to look at ``(N, C, H, W)``: 1 as it is, 2 mirrored too, 6 these two also moved by a pixel.

    Moved: up and to the left, down and to the right; the edge is filled with its reflection. The mean of the logits
    over the views is right more often than those of one view.

    >>> [view.flatten().tolist() for view in views(torch.tensor([[[[1.0, 2.0]]]]), 2)]
    [[1.0, 2.0], [2.0, 1.0]]
    """
    if count not in (1, 2, 6):
        raise ValueError(f"views is 1, 2 (mirrored too) or 6 (moved by a pixel too), not {count!r}")
    shown = [images]
    if count == 6:
        padded, (height, width) = functional.pad(images, (1, 1, 1, 1), mode="reflect"), images.shape[2:]
        shown += [padded[:, :, :height, :width], padded[:, :, 2:, 2:]]
    shown = [view.contiguous(memory_format=memory_format(images.device)) for view in shown]
    return shown if count == 1 else shown + [view.flip(3) for view in shown]
