"""A training loop with open places, for ideas that ``fit`` does not have: which images, changed how, and which loss."""

import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.optim.lr_scheduler import LambdaLR

sys.path.insert(0, str(Path(__file__).parent.parent))

from vgg_course.data import Dataset, Images, batches
from vgg_course.evaluation import autocast, predict
from vgg_course.recipes import SCHEDULES
from vgg_course.runs import Run
from vgg_course.speed import augmented, smaller
from vgg_course.vgg import VGG

# (images, labels, their positions in data.train, logits) -> the loss of each image
Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def shuffled(positions: Sequence[int] | np.ndarray | int, seed: int, epoch: int) -> torch.Tensor:
    """``positions``, or all below a number, in the order that ``batches`` has in this epoch."""
    return torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(positions))


def train(
    run: Run,
    data: Dataset,
    loss: Loss,
    counts: Sequence[int],
    choose: Callable[[int], torch.Tensor],
    change: Callable[[Images, int], Images] = lambda split, epoch: split,
) -> VGG:
    """Train the network of ``run`` on ``data.train``, with a ``loss``, on the images that ``choose(epoch)`` names.

    ``counts`` says how many images each epoch has, for the schedule of the learning rate. ``change(images, epoch)``
    comes after the usual augmentation.
    """
    recipe, precision = run.recipe, run.recipe.resolve_precision()
    model = run.build(len(data.classes), data.train).to(memory_format=torch.channels_last)
    optimizer, schedule = recipe.make_optimizer(model), SCHEDULES[recipe.schedule]
    steps = sum(math.ceil(count / recipe.batch_size) for count in counts)
    scheduler = LambdaLR(optimizer, lambda step: schedule(step, steps, 1))
    started = time.perf_counter()
    for epoch in range(len(counts)):
        positions = choose(epoch)
        moved = augmented(data.train, seed=recipe.seed, epoch=epoch, shift=recipe.shift)
        moved = change(moved, epoch).subset(positions)
        parts = positions.split(recipe.batch_size)
        for (images, labels), chosen in zip(batches(moved, recipe.batch_size), parts, strict=True):
            shown = smaller(images) if scheduler.last_epoch < recipe.small_part * steps else images
            with autocast("cpu", precision):
                logits = model(shown)
            optimizer.zero_grad()
            loss(images, labels, chosen, logits.float()).mean().backward()
            optimizer.step()
            scheduler.step()
        model.eval()
        right = predict(model, data.validation, precision=precision).argmax(1) == data.validation.labels
        model.train()
        spent = f"{time.perf_counter() - started:.0f} s"
        print(f"  epoch {epoch + 1} of {len(counts)}: validation {right.float().mean():.1%}, {spent}", flush=True)
    return model.eval()
