"""Typical wrong answers to the exercises of notebook 04: ``(answer, a part of the hint, what the judge is given)``."""

import torch
from torch import nn
from torch.nn import functional

from vgg_course.data import Images

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(200, 10, generator=GENERATOR)
PLACES = torch.arange(200) % 3  # right, second best, or the last that it would think of
LABELS = LOGITS.argsort(1, descending=True)[torch.arange(200), torch.tensor([0, 1, 9])[PLACES]]
GIVEN = {"logits": LOGITS, "labels": LABELS}
GOOD = LOGITS.argmax(1) == LABELS
CONFIDENCE = LOGITS.softmax(1).max(1).values
SURE, UNSURE = CONFIDENCE[GOOD].mean(), CONFIDENCE[~GOOD].mean()
MISTAKES = (~GOOD).nonzero().flatten().tolist()

torch.manual_seed(0)
MODEL = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10)).eval()
PIXELS = torch.rand(20, 3, 32, 32, generator=GENERATOR)
SPLIT = Images((255 * PIXELS).byte(), torch.arange(20) % 10, tuple("abcdefghij"), "made up", (0.5,) * 3, (0.25,) * 3)
VIEWS = {"model": MODEL, "split": SPLIT}


def ask(pixels):
    return MODEL((pixels - 0.5) / 0.25)


def seen(images):
    with torch.no_grad():
        return MODEL(SPLIT.normalize(images))


def nothing(ask, pixels, labels, epsilon):
    return pixels


def too_far(ask, pixels, labels, epsilon):
    return (pixels + 3 * epsilon).clamp(0, 1)


def no_picture(ask, pixels, labels, epsilon):
    return pixels - epsilon


ATTACK = {"ask": ask, "pixels": PIXELS, "labels": ask(PIXELS).argmax(1)}

WRONG = {
    "4.1": [((1.0, 0.1), "other way round"), ((0.1, 0.1), "Take the cats alone"), ((10, 100), "parts of 1")],
    "4.2": [
        (GOOD.float().mean(), "ordinary accuracy", GIVEN),
        ((LOGITS.topk(3).indices == LABELS[:, None]).float().mean(), "any(1)", GIVEN),
        (0.123, "in the row", GIVEN),
    ],
    "4.3": [
        ((UNSURE, SURE), "other way round", GIVEN),
        ([LOGITS.max(1).values[part].mean() for part in (GOOD, ~GOOD)], "softmax first", GIVEN),
        ((100 * SURE, 100 * UNSURE), "per cent", GIVEN),
    ],
    "4.4": [
        (seen(SPLIT.images), "without mirrored", VIEWS),
        (seen(SPLIT.images.flip(3)), "alone", VIEWS),
        (seen(SPLIT.images) + seen(SPLIT.images.flip(3)), "half of it", VIEWS),
        ((seen(SPLIT.images) + seen(SPLIT.images.flip(2))) / 2, "upside down", VIEWS),
        (torch.zeros(3, 10), "shape", VIEWS),
    ],
    "4.5": [(0.31667, "Weigh each"), (0.02, "cancel"), (30, "per cent"), (0.4, "larger gap")],
    "4.6": [(64_239, "standard deviation"), (49_660, "root of n"), (987_120, "each side"), (10_000, "Solve")],
    "4.7": [("a", "memory"), ("B", "no dropout"), ("d", "the largest"), ("e", "none of the choices")],
    "4.8": [
        ((MISTAKES, "they are all different"), "more than one pair", GIVEN),
        (([int(GOOD.nonzero()[0])], "they are small"), "is no mistake", GIVEN),
        ((MISTAKES[:1], "ears"), "three words", GIVEN),
        (MISTAKES[:3], "two things", GIVEN),
        (("24, 58", "ears and small faces"), "whole numbers", GIVEN),
        ((MISTAKES[:1] * 2, "ears and small faces"), "counts once and goes from 0 to 199", GIVEN),
    ],
    "4.9": [
        (nothing, "still right", ATTACK),
        (too_far, "more than ε", ATTACK),
        (no_picture, "below 0", ATTACK),
        (functional.relu, "stops", ATTACK),
        (lambda ask, pixels, labels, epsilon: pixels[:1], "pixels of the shape (20, 3, 32, 32)", ATTACK),
    ],
}
