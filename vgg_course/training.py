"""Training: ``Recipe`` holds all settings of a run, ``fit`` runs it, ``History`` is what comes out.

``fit`` is the loop that notebook 03 writes in view, with a progress bar, a tracker and a clean end added.
"""

import copy
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import tqdm

from vgg_course.checkpoint import Checkpoint
from vgg_course.data import Dataset, Images, batches
from vgg_course.evaluation import accuracy, autocast, predict
from vgg_course.speed import Muon, augmented, smaller

# What a tracker is: any function of the step (from 0) and a dict of values. After each batch it is given "loss" and
# "learning_rate", after each epoch "epoch", "train_loss", "validation_loss" and "validation_accuracy".
Tracker = Callable[[int, dict[str, float]], object]


def _triangle(step: int, steps_per_epoch: int, epochs: int) -> float:
    """Up to 1 within the first fifth of the run, then down to 0 in a straight line."""
    done = (step + 0.5) / (steps_per_epoch * epochs)
    return done / 0.2 if done < 0.2 else max(0.0, (1 - done) / 0.8)


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


@dataclass(frozen=True)
class Recipe:
    """All settings of a training run. ``dataclasses.replace(QUICK, epochs=8)`` makes a variant.

    Raises ``ValueError`` at once for a setting that makes no sense, with its name, its value and what would do.
    """

    epochs: int  # how often the network sees every training image
    batch_size: int  # images in a step
    lr: float  # the learning rate where the schedule's factor is 1
    optimizer: str = "sgd"  # "sgd", or "muon": larger steps for the filters of convolutions, see speed.Muon
    other_lr: float | None = None  # with "muon": the learning rate of all that is not a filter; None: the same
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0  # pulls every weight towards 0: each step adds weight_decay * weight to its gradient
    schedule: str = "constant"  # a key of SCHEDULES
    label_smoothing: float = 0.0  # the part of the target that is spread evenly over all classes
    augmentation: bool | str = False  # True: flip half of the images, shift by up to 4 pixels, in each batch anew;
    # "alternating": shift by up to 2, and flip every image in every other epoch, see speed.augmented
    small_part: float = 0.0  # the part of all steps, from the first on, with images at 3/4 of their size
    precision: str = "auto"  # "fp32", "bf16", "fp16", or the fastest that the device is made for
    channels_last: bool = True  # the memory order in which CPUs and GPUs convolve fastest
    seed: int = 0  # for the order of the images, augmentation and dropout
    device: str = "auto"  # "cpu", "cuda", "mps", or the first of cuda, mps, cpu that is there

    def __post_init__(self) -> None:
        def need(right: bool, name: str, wanted: str) -> None:
            if not right:
                raise ValueError(f"Recipe: {name} is {getattr(self, name)!r}, but it must be {wanted}")

        def number(value: object, kind: type | tuple = (int, float)) -> bool:
            return isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)

        for name in ("epochs", "batch_size"):
            need(number(getattr(self, name), int) and getattr(self, name) >= 1, name, "a whole number from 1 up")
        need(number(self.lr) and self.lr > 0, "lr", "a number above 0")
        need(number(self.momentum) and 0 <= self.momentum < 1, "momentum", "a number from 0 to below 1")
        need(not self.nesterov or self.momentum > 0, "momentum", "above 0, because nesterov is True")
        need(number(self.weight_decay) and self.weight_decay >= 0, "weight_decay", "a number from 0 up")
        need(self.schedule in SCHEDULES, "schedule", f"one of {', '.join(SCHEDULES)}")
        need(number(self.label_smoothing) and 0 <= self.label_smoothing < 1, "label_smoothing", "from 0 to below 1")
        need(self.optimizer in ("sgd", "muon"), "optimizer", "sgd or muon")
        need(self.other_lr is None or (number(self.other_lr) and self.other_lr > 0), "other_lr", "above 0, or None")
        need(self.other_lr is None or self.optimizer == "muon", "other_lr", "None, because the optimizer is not muon")
        right = isinstance(self.augmentation, bool) or self.augmentation == "alternating"
        need(right, "augmentation", "True, False or 'alternating'")
        need(number(self.small_part) and 0 <= self.small_part <= 1, "small_part", "a number from 0 to 1")
        for name in ("nesterov", "channels_last"):
            need(isinstance(getattr(self, name), bool), name, "True or False")
        need(self.precision in ("auto", "fp32", "bf16", "fp16"), "precision", "auto, fp32, bf16 or fp16")
        need(number(self.seed, int) and self.seed >= 0, "seed", "a whole number from 0 up")
        need(isinstance(self.device, str), "device", "a name such as 'auto', 'cpu' or 'cuda'")
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(f"Recipe: device is {self.device!r}, but PyTorch sees no CUDA here: use 'auto' or 'cpu'")
        if self.device.startswith("mps") and not torch.backends.mps.is_available():
            raise ValueError(f"Recipe: device is {self.device!r}, but PyTorch sees no MPS here: use 'auto' or 'cpu'")
        if self.device != "auto":
            try:
                torch.device(self.device)
            except RuntimeError:
                need(False, "device", "'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'")

    def resolve_device(self) -> torch.device:
        """The device that ``device`` stands for on this machine."""
        if self.device != "auto":
            return torch.device(self.device)
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )

    def resolve_precision(self) -> str:
        """The precision that ``precision`` stands for: bf16 only on hardware with instructions for it."""
        if self.precision != "auto":
            return self.precision
        device = self.resolve_device().type
        if device == "cuda":
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        features = getattr(torch.cpu, "get_capabilities", dict)() if device == "cpu" else {}
        return "bf16" if features.get("avx512_bf16") or features.get("amx_bf16") else "fp32"

    def make_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer with these settings, for all parameters of ``model`` that are not frozen."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        if self.optimizer == "muon":
            dtype = torch.bfloat16 if self.resolve_precision() == "bf16" else torch.float32
            return Muon(parameters, self.lr, self.other_lr or self.lr, self.momentum, self.weight_decay, dtype)
        return torch.optim.SGD(
            parameters, self.lr, self.momentum, weight_decay=self.weight_decay, nesterov=self.nesterov
        )


# The lecture's settings. As posted, its schedule was moved on after every batch: replace(LECTURE,
# schedule="step_per_batch"). Its network is VGG(make_layers(cfg["cifar10"]), num_classes=10, input_size=32).
LECTURE = Recipe(
    epochs=50, batch_size=512, lr=0.005, schedule="step", precision="fp32", channels_last=False, seed=777
)  # fmt: skip

# Ours: QUICK for something to look at within ten seconds, FAST for a good network within a minute and a half. Muon's
# large steps, with a learning rate that falls to 0 in a straight line; in FAST, images that never repeat exactly.
QUICK = Recipe(
    epochs=1, batch_size=250, lr=0.24, optimizer="muon", other_lr=0.05, momentum=0.6, weight_decay=0.02,
    schedule="linear", label_smoothing=0.2,
)  # fmt: skip
FAST = Recipe(
    epochs=6, batch_size=500, lr=0.24, optimizer="muon", other_lr=0.05, momentum=0.6, weight_decay=0.02,
    schedule="linear", label_smoothing=0.2, augmentation="alternating", small_part=0.5,
)  # fmt: skip
BEST = replace(FAST, epochs=10, small_part=0.4)  # on a network with more channels: for 94 %


@dataclass
class History:
    """What happened: five lists with a value per epoch, two with a value per batch. ``asdict`` makes JSON of it."""

    train_loss: list[float] = field(default_factory=list)  # mean over all images of the epoch, in train mode
    validation_loss: list[float] = field(default_factory=list)  # mean over the validation split, in eval mode
    validation_accuracy: list[float] = field(default_factory=list)  # 0 to 1
    learning_rate: list[float] = field(default_factory=list)  # of the epoch's last batch
    seconds: list[float] = field(default_factory=list)  # training and validation
    images_per_second: list[float] = field(default_factory=list)  # training alone
    batch_loss: list[float] = field(default_factory=list)
    batch_learning_rate: list[float] = field(default_factory=list)
    interrupted: bool = False  # stopped by hand before the last epoch


def fit(
    model: nn.Module,
    data: Dataset,
    recipe: Recipe,
    tracker: Tracker | None = None,
    *,
    checkpoint: str | Path | None = None,
    checkpoint_minutes: float = 5.0,
    progress: bool = True,
) -> History:
    """Train ``model`` in place on ``data.train``, judge it on ``data.validation`` after each epoch.

    ``model`` maps ``(B, 3, H, W)`` float32 to logits ``(B, classes)``; it is moved to the recipe's device and left
    there. Ctrl-C or the notebook's stop button ends the run early; the history so far comes back. A ``tracker`` that
    fails is dropped with a warning. Raises ``FloatingPointError``, which carries the ``history``, at a loss that is
    not finite.

    With ``checkpoint``, a file, the run is kept there after each epoch and every ``checkpoint_minutes``. The same call
    again goes on where it was cut off, to the same bits on the same machine: see :class:`Checkpoint` for what it
    raises.
    """
    _check(model, data, recipe, tracker)
    device, precision = recipe.resolve_device(), recipe.resolve_precision()
    torch.manual_seed(recipe.seed)  # for dropout; the batches have their own seed
    model.to(device, memory_format=torch.channels_last if recipe.channels_last else torch.contiguous_format)
    train, validation = data.train.to(device), data.validation.to(device)
    steps = math.ceil(len(train) / recipe.batch_size)
    optimizer = recipe.make_optimizer(model)
    scheduler = LambdaLR(optimizer, lambda step: SCHEDULES[recipe.schedule](step, steps, recipe.epochs))
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")  # keeps small fp16 gradients above 0
    history, was_training = History(), model.training
    log = _Log(history, recipe, tracker, tqdm(total=steps * recipe.epochs, unit="batch", disable=not progress))
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "scaler": scaler}
    try:
        settings = asdict(recipe) | {"device": device.type, "precision": precision}  # what "auto" stood for
        with Checkpoint(checkpoint, parts, settings, data, log, checkpoint_minutes) as saved:
            first_epoch, done = saved.load()  # (0, 0): from the start
            for epoch in range(first_epoch, recipe.epochs):
                model.train()
                log.start_epoch(resumed=done > 0)
                for images, labels in _batches(train, recipe, epoch, first_step=done):
                    if scheduler.last_epoch < recipe.small_part * steps * recipe.epochs:  # last_epoch: steps so far
                        images = smaller(images)
                    with autocast(device, precision):
                        logits = model(images)  # (B, classes)
                    loss = functional.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
                    optimizer.zero_grad()
                    scaler.scale(loss).backward()
                    scaler.step(optimizer)
                    scaler.update()
                    log.batch(loss.detach(), scheduler.get_last_lr()[0], len(labels))
                    scheduler.step()
                    done += 1
                    saved.after(epoch, done)
                log.read()
                train_seconds = time.perf_counter() - log.started
                log.end_epoch(predict(model, validation, precision=precision), validation.labels.cpu(), train_seconds)
                done = 0
                saved.after(epoch + 1, done, epoch_ends=True)
    except KeyboardInterrupt:
        history.interrupted = True
        epoch = min(recipe.epochs, len(history.train_loss) + 1)
        print(f"stopped by hand in epoch {epoch} of {recipe.epochs}, after {len(history.batch_loss)} steps")
    finally:
        log.bar.close()
        model.train(was_training)
    return history


def _check(model: nn.Module, data: Dataset, recipe: Recipe, tracker: Tracker | None) -> None:
    """Refuse, before any time is spent, what could not be trained."""
    wanted = {"model": (model, nn.Module), "data": (data, Dataset), "recipe": (recipe, Recipe)}
    for name, (value, kind) in wanted.items():
        if not isinstance(value, kind):
            shown = " ".join(repr(value).split())[:80]
            raise TypeError(f"fit: {name} must be a {kind.__name__}, not {shown}")
    if tracker is not None and not callable(tracker):
        raise TypeError(f"fit: a tracker is a function of step and values, such as a LossTracker, not {tracker!r}")
    for name, split in {"train": data.train, "validation": data.validation}.items():
        if len(split) == 0:
            raise ValueError(f"fit: data.{name} of {data.name} holds no images")
    learning = [p for p in model.parameters() if p.requires_grad]
    if not learning:
        raise ValueError("fit: nothing in this model can learn: it has no parameters, or all have requires_grad=False")
    was_training, sample = model.training, data.train.subset(slice(0, 1)).to(learning[0].device)
    with torch.no_grad():
        logits = model.eval()(sample.normalize(sample.images).to(learning[0].dtype))
        try:
            if len(data.train) % recipe.batch_size == 1:  # the last batch of each epoch
                copy.deepcopy(model).train()(sample.normalize(sample.images).to(learning[0].dtype))
        except ValueError as error:
            raise ValueError(
                f"fit: with batch_size {recipe.batch_size} the last batch of {len(data.train)} images has only one, "
                f"and a batch norm needs more ({error}): take another batch_size"
            ) from None
    model.train(was_training)
    if logits.dim() != 2 or logits.shape[1] != len(data.classes):
        raise ValueError(
            f"fit: for one image the model gives {tuple(logits.shape)}, but {data.name} has {len(data.classes)} "
            f"classes: it must give (1, {len(data.classes)}), for instance VGG(..., num_classes={len(data.classes)})"
        )


def _batches(
    train: Images, recipe: Recipe, epoch: int, first_step: int = 0
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The batches of an epoch from ``first_step`` on, in the recipe's augmentation and memory order."""
    if recipe.augmentation == "alternating":
        train = augmented(train, seed=recipe.seed, epoch=epoch)
    order = {"shuffle": True, "augment": recipe.augmentation is True, "seed": recipe.seed, "epoch": epoch}
    for images, labels in batches(train, recipe.batch_size, first_step=first_step, **order):
        yield images if recipe.channels_last else images.contiguous(), labels


class _Log:
    """What ``fit`` tells the outside: it fills the history, moves the bar, calls the tracker, looks for nan."""

    def __init__(self, history: History, recipe: Recipe, tracker: Tracker | None, bar: tqdm) -> None:
        self.history, self.recipe, self.tracker, self.bar = history, recipe, tracker, bar
        self.shown: dict[str, str] = {}  # behind the bar
        self.unread: list[tuple[torch.Tensor, float, int]] = []

    def start_epoch(self, resumed: bool = False) -> None:
        self.started = time.perf_counter()
        if resumed:  # in the middle: what it has taken so far
            self.started -= self.spent
        else:
            self.loss_sum, self.images, self.spent = 0.0, 0, 0.0

    def batch(self, loss: torch.Tensor, learning_rate: float, images: int) -> None:
        self.unread.append((loss, learning_rate, images))
        # Reading a number from a GPU makes the CPU wait for it, so there it is done for 20 batches at a time.
        if loss.device.type == "cpu" or len(self.unread) == 20:
            self.read()

    def read(self) -> None:
        batches_read, self.unread = self.unread, []
        for loss, learning_rate, images in batches_read:
            step, value = len(self.history.batch_loss), loss.item()
            self.history.batch_loss.append(value)
            self.history.batch_learning_rate.append(learning_rate)
            self.loss_sum += value * images
            self.images += images
            self.tell(step, {"loss": value, "learning_rate": learning_rate})
            if not math.isfinite(value):
                error = FloatingPointError(
                    f"the loss is {value} at step {step}, with learning rate {learning_rate:.3g}: training cannot go "
                    f"on. Try an lr below the recipe's {self.recipe.lr:g}, batch norm, or precision='fp32'"
                )
                error.history = self.history
                raise error
            self.shown["loss"] = f"{value:.3f}"
        self.bar.set_postfix(self.shown, refresh=False)
        self.bar.update(len(batches_read))

    def state_dict(self) -> dict:
        """The history, and what has been added up in this epoch, for a checkpoint."""
        self.read()
        spent = time.perf_counter() - self.started
        return {"history": asdict(self.history), "loss_sum": self.loss_sum, "images": self.images, "spent": spent}

    def load_state_dict(self, state: dict) -> None:
        """Take up a run that was cut off; the tracker is told all that it has missed."""
        for name, value in state["history"].items():
            setattr(self.history, name, value)
        self.loss_sum, self.images, self.spent = state["loss_sum"], state["images"], state["spent"]
        rates, per_epoch = self.history.batch_learning_rate, self.bar.total // self.recipe.epochs
        for step, loss in enumerate(self.history.batch_loss):
            self.tell(step, {"loss": loss, "learning_rate": rates[step]})
            if (step + 1) % per_epoch == 0 and (step + 1) // per_epoch <= len(self.history.train_loss):
                self.tell_epoch((step + 1) // per_epoch, step)
        self.bar.update(len(self.history.batch_loss))

    def end_epoch(self, logits: torch.Tensor, labels: torch.Tensor, train_seconds: float) -> None:
        history = self.history
        history.train_loss.append(self.loss_sum / self.images)
        history.validation_loss.append(functional.cross_entropy(logits, labels).item())
        history.validation_accuracy.append(accuracy(logits, labels))
        history.learning_rate.append(history.batch_learning_rate[-1])
        history.images_per_second.append(self.images / train_seconds)
        history.seconds.append(time.perf_counter() - self.started)
        self.shown["validation accuracy"] = f"{history.validation_accuracy[-1]:.1%}"
        self.bar.set_postfix(self.shown)
        self.tell_epoch(len(history.seconds), len(history.batch_loss) - 1)

    def tell_epoch(self, epoch: int, step: int) -> None:
        names = ("train_loss", "validation_loss", "validation_accuracy")
        self.tell(step, {"epoch": epoch, **{name: getattr(self.history, name)[epoch - 1] for name in names}})

    def tell(self, step: int, values: dict[str, float]) -> None:
        if self.tracker is None:
            return
        try:
            self.tracker(step, values)
        except Exception as error:  # a plot is never worth a training
            self.tracker = None
            warnings.warn(f"the tracker failed ({error!r}): training goes on without it", stacklevel=4)
