"""Recipes: all settings of a training run in one place, the schedules of the learning rate, and our named recipes.

``training.fit`` runs a recipe; ``speed.py`` holds the ideas that a recipe can ask for.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import nn

from vgg_course.speed import Muon


def _triangle(step: int, steps_per_epoch: int, epochs: int) -> float:
    """Up to 1 within the first fifth of the run, then down to 0 in a straight line."""
    done = (step + 0.5) / (steps_per_epoch * epochs)
    return done / 0.2 if done < 0.2 else max(0.0, (1 - done) / 0.8)


@cache
def _computes(device: str) -> bool:
    """Whether a GPU that is there also computes: that of a virtual Mac has no memory, an old card no code in PyTorch.

    For an NVIDIA card a line says why it does not.
    """
    try:
        return torch.ones(2, device=device).sum().item() == 2
    except (RuntimeError, AssertionError) as error:  # the latter: PyTorch was built without CUDA
        if device == "cuda":
            why = str(error).partition("\n")[0]
            print(f"the GPU is not used, for it does not compute ({why}): README.md, GPU, says what helps an old card")
        return False


# A schedule gives the factor by which the recipe's learning rate is multiplied in a step: (step, steps_per_epoch,
# epochs) -> factor. "step" is the lecture's StepLR(step_size=5, gamma=0.9), meant to be moved on once an epoch;
# "step_per_batch" is the same moved on after every batch, as the lecture's post did by mistake.
SCHEDULES: dict[str, Callable[[int, int, int], float]] = {
    "constant": lambda step, steps_per_epoch, epochs: 1.0,
    "step": lambda step, steps_per_epoch, epochs: 0.9 ** (step // steps_per_epoch // 5),
    "step_per_batch": lambda step, steps_per_epoch, epochs: 0.9 ** (step // 5),
    "one_cycle": _triangle,
    "linear": lambda step, steps_per_epoch, epochs: 1 - (step + 0.5) / (steps_per_epoch * epochs),
}


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e300 < value < 1e300


def _whole(value: object) -> bool:
    return isinstance(value, int) and _number(value)


@dataclass(frozen=True)
class Recipe:
    """All settings of a training run. ``dataclasses.replace(QUICK, epochs=8)`` makes a variant.

    Raises ``ValueError`` at once for a setting that makes no sense, with its name, its value and what would do.

    >>> Recipe(epochs=0, batch_size=64, lr=0.1)
    Traceback (most recent call last):
    ValueError: Recipe: epochs is 0, but it must be a whole number from 1 up
    """

    epochs: int  # how often the network sees every training image
    batch_size: int  # images in a step
    lr: float  # the learning rate where the schedule's factor is 1
    optimizer: str = "sgd"  # "sgd", or "muon": larger steps for the filters of convolutions, see speed.Muon
    other_lr: float | None = None  # with "muon": the learning rate of all that is not a filter; None: the same
    bias_lr: float | None = None  # with "muon": that of the batch norms' biases; None: as all that is not a filter
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0  # each step adds weight_decay * weight to its gradient; "muon": not for filters, bias_lr
    schedule: str = "constant"  # a key of SCHEDULES
    label_smoothing: float = 0.0  # the part of the target that is spread evenly over all classes
    augmentation: bool | str = False  # True: flip half of the images, shift by up to 4 pixels, in each batch anew;
    # "alternating": shift by up to ``shift``, and flip every image in every other epoch, see speed.augmented
    shift: int = 2  # with "alternating": more than 2 for a long run, which sees each image more often
    small_part: float = 0.0  # the part of all steps, from the first on, with images at 3/4 of their size
    precision: str = "auto"  # "fp32", "bf16", "fp16", or the fastest that the device is made for
    channels_last: bool = True  # the memory order in which CPUs and GPUs convolve fastest
    compile: bool = False  # join operations before the first step, see speed.compiled: for long runs on a GPU
    seed: int = 0  # for the order of the images, augmentation and dropout
    device: str = "auto"  # "cpu", "cuda", "mps", or the first of cuda, mps, cpu that is there

    def __post_init__(self) -> None:
        def need(right: bool, name: str, wanted: str) -> None:
            if not right:
                raise ValueError(f"Recipe: {name} is {getattr(self, name)!r}, but it must be {wanted}")

        for name, value in vars(self).copy().items():
            if isinstance(value, np.generic):  # a checkpoint takes Python's own numbers only
                object.__setattr__(self, name, value.item())
            elif isinstance(value, str):
                object.__setattr__(self, name, str(value))

        for name in ("epochs", "batch_size"):
            need(_whole(getattr(self, name)) and getattr(self, name) >= 1, name, "a whole number from 1 up")
        need(_number(self.lr) and self.lr > 0, "lr", "a number above 0")
        need(_number(self.momentum) and 0 <= self.momentum < 1, "momentum", "a number from 0 to below 1")
        need(not self.nesterov or self.momentum > 0, "momentum", "above 0, because nesterov is True")
        need(_number(self.weight_decay) and self.weight_decay >= 0, "weight_decay", "a number from 0 up")
        need(str(self.schedule) in SCHEDULES, "schedule", f"one of {', '.join(SCHEDULES)}")
        need(_number(self.label_smoothing) and 0 <= self.label_smoothing < 1, "label_smoothing", "from 0 to below 1")
        need(self.optimizer in ("sgd", "muon"), "optimizer", "sgd or muon")
        need(self.other_lr is None or (_number(self.other_lr) and self.other_lr > 0), "other_lr", "above 0, or None")
        need(self.other_lr is None or self.optimizer == "muon", "other_lr", "None, because the optimizer is not muon")
        need(self.bias_lr is None or (_number(self.bias_lr) and self.bias_lr > 0), "bias_lr", "above 0, or None")
        need(self.bias_lr is None or self.optimizer == "muon", "bias_lr", "None, because the optimizer is not muon")
        right = isinstance(self.augmentation, bool) or self.augmentation == "alternating"
        need(right, "augmentation", "True, False or 'alternating'")
        need(_whole(self.shift) and self.shift >= 0, "shift", "a whole number of pixels from 0 up")
        need(_number(self.small_part) and 0 <= self.small_part <= 1, "small_part", "a number from 0 to 1")
        for name in ("nesterov", "channels_last", "compile"):
            need(isinstance(getattr(self, name), bool), name, "True or False")
        need(self.precision in ("auto", "fp32", "bf16", "fp16"), "precision", "auto, fp32, bf16 or fp16")
        need(_whole(self.seed) and 0 <= self.seed < 2**63, "seed", "a whole number from 0 up, below 2**63")
        need(isinstance(self.device, str), "device", "a name such as 'auto', 'cpu' or 'cuda'")
        for name, kind in (("cuda", torch.cuda), ("mps", torch.backends.mps)):
            if self.device.startswith(name) and not kind.is_available():
                raise ValueError(
                    f"Recipe: device is {self.device!r}, but PyTorch sees no {name.upper()} here: use 'auto' or 'cpu'"
                )
        if self.device != "auto":
            try:
                known = torch.device(self.device).type in ("cpu", "cuda", "mps")
            except RuntimeError:
                known = False
            need(known, "device", "'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'")
            if self.device.startswith("cuda:"):
                there = torch.cuda.device_count()
                need(int(self.device[5:]) < there, "device", f"one of the GPUs here, 'cuda:0' to 'cuda:{there - 1}'")

    def resolve_device(self) -> torch.device:
        """The device that ``device`` stands for on this machine: with ``"auto"``, one that computes."""
        if self.device != "auto":
            return torch.device(self.device)
        there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        return torch.device(next((gpu for gpu in there if there[gpu] and _computes(gpu)), "cpu"))

    def resolve_precision(self) -> str:
        """The precision that ``precision`` stands for: bf16 only on hardware with instructions for it."""
        if self.precision != "auto":
            return self.precision
        device = self.resolve_device().type
        if device == "cuda":
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        features: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)() if device == "cpu" else {}
        return "bf16" if features.get("avx512_bf16") or features.get("amx_bf16") else "fp32"

    def make_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer with these settings, for all parameters of ``model`` that are not frozen."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        if self.optimizer == "muon":
            dtype = torch.bfloat16 if self.resolve_precision() == "bf16" else torch.float32
            other_lr = self.other_lr or self.lr
            kinds = (nn.BatchNorm2d, nn.SyncBatchNorm) if self.bias_lr else ()
            norms = [m.bias for m in model.modules() if isinstance(m, kinds)]
            return Muon(
                parameters, self.lr, other_lr, self.momentum, self.weight_decay, dtype,
                biases=norms, bias_lr=self.bias_lr or other_lr,
            )  # fmt: skip
        return torch.optim.SGD(
            parameters, self.lr, self.momentum, weight_decay=self.weight_decay, nesterov=self.nesterov
        )


# The lecture's settings. As posted, its schedule was moved on after every batch: replace(LECTURE,
# schedule="step_per_batch"). Its network is VGG(make_layers(cfg["cifar10"]), num_classes=10, input_size=32).
LECTURE = Recipe(
    epochs=50, batch_size=512, lr=0.005, schedule="step", precision="fp32", channels_last=False, seed=777
)  # fmt: skip

# Ours: QUICK for something to look at within ten seconds, FAST for 90 % within minutes. Muon's large steps, with a
# learning rate that falls to 0 in a straight line; in FAST, images that never repeat exactly.
QUICK = Recipe(
    epochs=1, batch_size=250, lr=0.24, optimizer="muon", other_lr=0.05, momentum=0.6, weight_decay=0.02,
    schedule="linear", label_smoothing=0.2,
)  # fmt: skip
FAST = Recipe(
    epochs=5, batch_size=500, lr=0.12, optimizer="muon", other_lr=0.05, bias_lr=60, momentum=0.6, weight_decay=0.02,
    schedule="linear", label_smoothing=0.2, augmentation="alternating", small_part=0.5,
)  # fmt: skip
# For 94 %, on a network with more channels: longer, with fewer small images.
BEST = replace(FAST, epochs=9, small_part=0.3)
# For 95 %, on a network that is wider and has a layer more: longer still, and with images that are moved further. A
# tenth of the weight decay, which step by step also shrinks the scales of the norms: to a third in BEST, to 0.8 here;
# BEST's decay would shrink them to a ninth in so many epochs.
WIDE = replace(BEST, epochs=18, lr=0.1, shift=4, weight_decay=0.002)
