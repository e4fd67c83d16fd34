"""Training: ``fit`` runs a ``Recipe``, ``History`` is what comes out.

``fit`` is the loop that notebook 03 writes in view, with a progress bar, a tracker and a clean end added. The settings
of a run stand in ``recipes.py``; its names can be imported from here too.
"""

import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import tqdm

from vgg_course.checkpoint import Checkpoint, Stateful
from vgg_course.data import Dataset, Images, batches, memory_format
from vgg_course.distributed import Team
from vgg_course.evaluation import accuracy, autocast, modes_kept, predict
from vgg_course.recipes import BEST, FAST, LECTURE, QUICK, SCHEDULES, WIDE, Recipe
from vgg_course.speed import augmented, compiled, memory_kept, smaller
from vgg_course.trial import check

__all__ = ["BEST", "FAST", "LECTURE", "QUICK", "SCHEDULES", "WIDE", "History", "Recipe", "Tracker", "fit"]

# What a tracker is: any function of the step (from 0) and a dict of values. After each batch it is given "loss" and
# "learning_rate", after each epoch "epoch", "train_loss", "validation_loss" and "validation_accuracy".
Tracker = Callable[[int, dict[str, float]], object]


@dataclass
class History:
    """What happened: six lists with a value per epoch, two with a value per batch. ``asdict`` makes JSON of it."""

    train_loss: list[float] = field(default_factory=list)  # mean over the epoch: in train mode, labels smoothed
    validation_loss: list[float] = field(default_factory=list)  # mean over the validation split, in eval mode
    validation_accuracy: list[float] = field(default_factory=list)  # 0 to 1
    learning_rate: list[float] = field(default_factory=list)  # of the epoch's last batch
    seconds: list[float] = field(default_factory=list)  # training and validation
    images_per_second: list[float] = field(default_factory=list)  # training alone
    batch_loss: list[float] = field(default_factory=list)
    batch_learning_rate: list[float] = field(default_factory=list)
    steps_per_epoch: int = 0  # batches; 0 where nobody noted it
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
    fails is dropped with a warning. Raises ``FloatingPointError`` with the ``history`` where the training loss is none.

    With ``checkpoint``, a file, the run is kept there after each epoch and every ``checkpoint_minutes``. The same call
    again goes on to the same bits on the same processor (on a GPU, or several processes with dropout: nearly). Raises
    ``TypeError`` or ``ValueError`` for what it cannot train and another run's checkpoint, ``OSError`` for one that is
    locked or no file.
    """
    check(model, data, recipe, tracker)
    team = Team(recipe.resolve_device())  # this process, or all those that torchrun has started
    learner = _Learner(model, recipe, len(data.train), team)
    train, validation = data.train.to(learner.device), data.validation.to(learner.device)
    tracker, checkpoint, progress = (tracker, checkpoint, progress) if team.first else (None, None, False)
    bar = tqdm(desc=learner.remark, total=learner.steps * recipe.epochs, unit="batch", disable=not progress)
    log = _Log(History(steps_per_epoch=learner.steps), recipe, tracker, bar)
    settings = asdict(recipe) | {"device": learner.device.type, "precision": learner.precision}  # what "auto" stood for
    try:
        saved = Checkpoint(checkpoint, learner.parts(), settings, data, log, checkpoint_minutes)
        with torch.enable_grad(), modes_kept(model), memory_kept(learner.device), team, saved:
            first_epoch, done = learner.start(saved.load(), log)  # (0, 0): from the start
            for epoch in range(first_epoch, recipe.epochs):
                model.train()
                log.start_epoch(resumed=done > 0)
                for images, labels in _batches(train, recipe, epoch, first_step=done):
                    loss, learning_rate = learner.step(images, labels)
                    log.batch(loss, learning_rate, len(labels))
                    done += 1
                    saved.after(epoch, done)
                log.end_training()
                log.end_epoch(predict(model, validation, precision=learner.precision), validation.labels.cpu())
                done = 0
                saved.after(epoch + 1, done, epoch_ends=True)
    except KeyboardInterrupt:
        log.stopped_by_hand()
    finally:
        log.bar.close()
    return log.history


class _Learner:
    """What a step of training needs: the network on its device, and the optimizer with its schedule."""

    def __init__(self, model: nn.Module, recipe: Recipe, images: int, team: Team) -> None:
        self.model, self.recipe, self.team = model, recipe, team
        self.device, self.precision = team.device, recipe.resolve_precision()
        slower = recipe.precision == "auto" and (self.device.type, self.precision) == ("cpu", "fp32")
        why = "this processor has no instructions for bf16"
        if not hasattr(torch.cpu, "get_capabilities"):
            why = f"PyTorch {torch.__version__} does not tell whether this processor has instructions for bf16"
        self.remark = f"fp32, as {why}" if slower else None
        self.steps = steps = math.ceil(images / recipe.batch_size)  # in an epoch
        if (last := images % recipe.batch_size or recipe.batch_size) < team.size:  # told now, not after an epoch
            raise ValueError(
                f"fit: the last batch of {images} images has {last}, which {team.size} processes cannot share: take "
                f"another batch_size than {recipe.batch_size}, or fewer processes"
            )
        torch.manual_seed(recipe.seed)  # for dropout; the batches have their own seed
        model.to(self.device)
        model.to(memory_format=memory_format(self.device) if recipe.channels_last else torch.contiguous_format)
        self.optimizer = recipe.make_optimizer(model)
        schedule = SCHEDULES[recipe.schedule]
        self.scheduler = LambdaLR(self.optimizer, lambda step: schedule(step, steps, recipe.epochs))
        # So that small gradients do not become 0 in fp16:
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        if self.scaler.is_enabled():  # it may leave out the first step: the scheduler need not warn of that
            self.optimizer._opt_called = True  # type: ignore[attr-defined]

    def start(self, position: tuple[int, int], log: Stateful) -> tuple[int, int]:
        """The epoch and the step to begin with, for all of the team the same."""
        position = self.team.agree({**self.parts(), "log": log}, position)
        for group, base in zip(self.optimizer.param_groups, self.scheduler.base_lrs, strict=True):
            # With more epochs than before, the schedule of the checkpoint had another rate for the next step.
            group["lr"] = base * self.scheduler.lr_lambdas[0](self.scheduler.last_epoch)
        self.scheduler._last_lr = [group["lr"] for group in self.optimizer.param_groups]
        network = self.team.wrap(self.model)
        self.network = compiled(network, self.device) if self.recipe.compile else network
        if not self.team.first:
            torch.manual_seed(self.recipe.seed + self.team.rank)  # other dropout for other images
        return position

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Learn from a batch: forward, loss, backward, step. The loss, a tensor, and the learning rate of this step."""
        whole, (images, labels) = len(labels), self.team.share(images, labels)
        learning_rate = float(self.scheduler.get_last_lr()[0])
        if self.scheduler.last_epoch < self.recipe.small_part * self.steps * self.recipe.epochs:  # the steps so far
            images = smaller(images)
        with autocast(self.device, self.precision):
            logits = self.network(images)  # (B, classes)
        if not isinstance(logits, torch.Tensor):  # torchvision's GoogLeNet and Inception, and only while they train
            given = type(logits).__name__
            raise TypeError(f"fit: in train() the model gives a {given}, not logits: build it with aux_logits=False")
        loss = functional.cross_entropy(logits.float(), labels, label_smoothing=self.recipe.label_smoothing)
        loss = loss * self.team.weight(len(labels), whole)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        return self.team.mean(loss.detach()), learning_rate

    def parts(self) -> dict[str, Stateful]:
        """All that changes in a run, for a checkpoint."""
        return {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler, "scaler": self.scaler}


def _batches(
    train: Images, recipe: Recipe, epoch: int, first_step: int = 0
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The batches of an epoch from ``first_step`` on, in the recipe's augmentation and memory order."""
    if recipe.augmentation == "alternating":
        train = augmented(train, seed=recipe.seed, epoch=epoch, shift=recipe.shift)
    augment, seed = recipe.augmentation is True, recipe.seed
    for images, labels in batches(
        train, recipe.batch_size, shuffle=True, augment=augment, seed=seed, epoch=epoch, first_step=first_step
    ):
        yield images if recipe.channels_last else images.contiguous(), labels


class _Log:
    """What ``fit`` tells the outside: it fills the history, moves the bar, calls the tracker, looks for nan."""

    def __init__(self, history: History, recipe: Recipe, tracker: Tracker | None, bar: tqdm) -> None:
        self.history, self.recipe, self.tracker, self.bar = history, recipe, tracker, bar
        self.shown: dict[str, str] = {}  # behind the bar
        self.unread: list[tuple[torch.Tensor, float, int]] = []
        self.started, self.train_seconds, self.spent = 0.0, 0.0, 0.0
        self.loss_sum, self.images = 0.0, 0  # of this epoch

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
        count = len(self.unread)
        while self.unread:
            loss, learning_rate, images = self.unread[0]
            step, value = len(self.history.batch_loss), loss.item()  # a wait for the GPU, so Ctrl-C often comes here
            self.unread.pop(0)
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
                error.history = self.history  # type: ignore[attr-defined]
                raise error
            self.shown["loss"] = f"{value:.3f}"
        self.bar.set_postfix(self.shown, refresh=False)
        self.bar.update(count)

    def state_dict(self) -> dict[str, Any]:
        """The history, and what has been added up in this epoch, for a checkpoint."""
        self.read()
        spent = time.perf_counter() - self.started
        return {"history": asdict(self.history), "loss_sum": self.loss_sum, "images": self.images, "spent": spent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a run that was cut off; the tracker is told all that it has missed."""
        for name, value in state["history"].items():
            setattr(self.history, name, value)
        self.loss_sum, self.images, self.spent = state["loss_sum"], state["images"], state["spent"]
        rates, per_epoch = self.history.batch_learning_rate, self.history.steps_per_epoch
        for step, loss in enumerate(self.history.batch_loss):
            self.tell(step, {"loss": loss, "learning_rate": rates[step]})
            if (step + 1) % per_epoch == 0 and (step + 1) // per_epoch <= len(self.history.train_loss):
                self.tell_epoch((step + 1) // per_epoch, step)
        self.bar.update(len(self.history.batch_loss))

    def end_training(self) -> None:
        """All batches of the epoch are done; what follows is validation."""
        self.read()
        self.train_seconds = time.perf_counter() - self.started

    def end_epoch(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        history = self.history
        history.train_loss.append(self.loss_sum / self.images)
        history.validation_loss.append(functional.cross_entropy(logits, labels).item())
        diverged = not math.isfinite(history.validation_loss[-1])  # in the last step: nan is no answer
        history.validation_accuracy.append(0.0 if diverged else accuracy(logits, labels))
        history.learning_rate.append(history.batch_learning_rate[-1])
        history.images_per_second.append(self.images / self.train_seconds)
        history.seconds.append(time.perf_counter() - self.started)
        self.shown["validation accuracy"] = f"{history.validation_accuracy[-1]:.1%}"
        self.bar.set_postfix(self.shown)
        self.tell_epoch(len(history.seconds), len(history.batch_loss) - 1)

    def stopped_by_hand(self) -> None:
        self.history.interrupted = True
        self.read()
        self.bar.close()  # so that this is a line of its own
        epochs, steps = self.recipe.epochs, len(self.history.batch_loss)
        epoch = min(epochs, len(self.history.train_loss) + 1)
        print(f"stopped by hand in epoch {epoch} of {epochs}, after {steps} steps")

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
