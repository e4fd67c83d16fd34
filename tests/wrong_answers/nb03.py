"""Typical wrong answers to the exercises of notebook 03: ``(answer, a part of the hint)``."""

import math
from dataclasses import replace
from functools import partial
from itertools import pairwise

import torch
from torch import nn

from vgg_course.data import load_dataset
from vgg_course.vgg import VGG, make_layers


def build() -> VGG:
    torch.manual_seed(0)
    return VGG(make_layers([4, "M", 8, "M"], batch_norm=True), 10, global_pool=True, hidden=())


def linear(*hidden: int) -> nn.Module:
    """A network that learns well with 0.01 already; with hidden layers, large steps lead beyond all numbers."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), *(nn.Linear(i, o) for i, o in pairwise((3072, *hidden, 10))))


DIGITS = load_dataset("digits", verbose=False)
GIVEN = {"build": build, "data": replace(DIGITS, train=DIGITS.train.subset(slice(0, 300)))}

WRONG = {
    "3.1": [
        (math.log(10), "ten classes"),
        (3, "base 10"),
        (9.966, "base 2"),
        (0.001, "minus its logarithm"),
        (-6.908, "is negative"),
        (5, "Which probability"),
    ],
    "3.2": [
        (44, "each power last"),
        (215, "still a little above"),
        (2.2, "in epochs"),
        (221, "one step earlier"),
        (98, "which power"),
    ],
    "3.3": [("a", "roll"), ("B", "Call it twice"), ("d", "none of the choices")],
    "3.4": [
        (lambda step, steps_per_epoch, epochs: min(1.0, step / steps_per_epoch), "wasted"),
        (lambda step, steps_per_epoch, epochs: (step + 1) / steps_per_epoch, "stay at 1"),
        (lambda step, steps_per_epoch, epochs: (step + 1) / (steps_per_epoch * epochs), "below 1 after"),
        (lambda step, steps_per_epoch, epochs: 1.0, "not near 0"),
        (lambda step, steps_per_epoch, epochs: 1 if step + 1 >= steps_per_epoch else 1 / steps_per_epoch, "every step"),
        (lambda step, steps_per_epoch, epochs: None, "not a number"),
        (lambda step: step, "your function stops"),
    ],
    "3.5": [
        (0, "with logits"),
        (2.3026, "all ten numbers are equal"),
        (0.232, "the probability"),
        (0.3133, "not with one"),
        (7, "best ten numbers"),
    ],
    "3.6": [
        ("12345678", "Look again at panel a"),
        ("6347815", "one digit"),
        ("63478151", "more than once"),
        ("63478125", "6 of 8 are right. Look again at panel g"),
    ],
    "3.7": [
        (0.001, "three times", GIVEN),
        (3000.0, "a third", GIVEN),
        (0.1, "so does 0.3", GIVEN),
        (0, "above 0", GIVEN),
        (0.03, "with 0.01 at", GIVEN | {"build": linear}),
        (1000.0, "ends at inf", GIVEN | {"build": partial(linear, 64, 64)}),
    ],
}
