"""The judges of notebook 03."""

import math
from collections.abc import Callable
from itertools import count, pairwise
from typing import Any

import torch
from torch.nn import functional

from vgg_course.data import Dataset
from vgg_course.exercises import NUMBER, Wrong, attempt, choice, compare, exercise, fingerprint, plain
from vgg_course.training import SCHEDULES, Recipe, fit
from vgg_course.vgg import VGG


@exercise("3.1", "a number", *NUMBER)
def first_loss(answer: Any) -> str:
    classes = 1000
    hints = {
        math.log(10): "That is the loss for ten classes.",
        math.log10(classes): "Cross-entropy takes the natural logarithm, math.log, not that of base 10.",
        math.log2(classes): "Cross-entropy takes the natural logarithm, math.log, not that of base 2.",
        1 / classes: "That is the probability of each class. The loss is minus its logarithm.",
        -math.log(
            classes
        ): "The size is right. The logarithm of a probability is negative, and the loss is minus that.",
    }
    otherwise = "Which probability does each of the classes get? Take minus its logarithm."
    compare(answer, math.log(classes), hints, otherwise, near=2e-3)
    return "Each class gets the same small probability, and the loss is minus its logarithm."


@exercise("3.2", "a number of steps", *NUMBER)
def vanishing(answer: Any) -> str:
    def factor(step: int) -> float:
        return SCHEDULES["step_per_batch"](step, 98, 50)

    right = next(step for step in count() if factor(step) < 0.01)
    hints = {
        right // 5: "So often the factor 0.9 is needed. How many steps does each power last?",
        right - 5: "There the rate is still a little above a hundredth.",
        **dict.fromkeys((2.2, 2.24, right / 98), "That is in epochs. How many steps are they?"),
        right + 1: "There it is below, but one step earlier it was so already. Steps count from 0.",
    }
    compare(answer, right, hints, "0.9 to which power is below 0.01? Each power lasts 5 steps.", near=1e-2 / right)
    return f"That is {right / 98:.1f} epochs of 98 batches: then the network all but stands still."


@exercise("3.3", "a letter in quotes", str)
def no_zero_grad(answer: Any) -> str:
    hints = {
        "fdf449": "The first steps may be faster, like a ball that rolls. Look at all 48: can it stop in time?",
        "454947": "What does backward do with gradients that are there already? Call it twice and print them.",
    }
    choice("3.3", answer, "28e4bf", hints)
    return "backward adds to the gradients that are there, so each step follows the sum of all before."


@exercise("3.4", "a function", Callable)
def warm_up(answer: Any) -> str:
    for epoch in (4, 10, 98):
        rates = []
        for step in range(3 * epoch):
            rates.append(plain(attempt(answer, step, epoch, 3)))
            if not isinstance(rates[-1], int | float) or not math.isfinite(rates[-1]):
                raise Wrong(f"for ({step}, {epoch}, 3) your function gives {rates[-1]!r:.40}, not a number.")
        if rates[0] == 0:
            raise Wrong("in step 0 your factor is 0: that step is wasted. Count the steps from 1 for this.")
        if max(rates) > 1:
            raise Wrong(f"your factor rises to {max(rates):.3g}: after the first epoch it has to stay at 1.")
        if min(rates[epoch:]) < 1:
            raise Wrong(f"with {epoch} steps an epoch, your factor is below 1 after the first epoch.")
        if not 0 < rates[0] <= 2 / epoch:
            raise Wrong(f"with {epoch} steps an epoch, your factor begins at {rates[0]:.3g}: that is not near 0.")
        rises = [b - a for a, b in pairwise(rates[:epoch])]
        if min(rises) <= 0:
            raise Wrong("in the first epoch your factor does not rise in every step.")
    return "It rises in the first epoch and stays at 1, however many steps an epoch has."


@exercise("3.5", "a number", *NUMBER)
def softmax_twice(answer: Any) -> str:
    surest = torch.eye(10)[:1]  # probability 1 for the right class: the best that can go into the second softmax
    right = functional.cross_entropy(surest, torch.tensor([0])).item()
    hints = {
        0: "It would be 0 with logits, which can be as large as they like. Here numbers from 0 to 1 go in.",
        math.log(10): "That is the loss when all ten numbers are equal. The network can do better than that.",
        math.exp(-right): "That is the probability. The loss is minus its logarithm.",
        math.log(1 + math.exp(-1)): "The right class competes with nine others, not with one.",
    }
    otherwise = "Put in the best ten numbers there can be: 1 for the right class, 0 for the others."
    compare(answer, right, hints, otherwise, near=5e-3)
    return "Even a network that is sure and right seems unsure after a second softmax."


CURVES = {  # the fingerprint of the diagnosis, and what to look at
    "a": ("3422eb", "how far apart are training and validation at the end?"),
    "b": ("54a806", "is it still falling at the end, and how straight?"),
    "c": ("8a2f99", "it falls like a good run at first. When does it stop, and how far up?"),
    "d": (
        "1849e3",
        "the jumping has a rhythm. How many steps is a wave long? Which lines does the training loss stay above?",
    ),
    "e": ("dfc1e6", "at which of the two dotted lines does the training loss come to rest?"),
    "f": ("8dc1a1", "does validation follow training down, and is there any trouble at all?"),
    "g": ("f3b311", "how long does it stay at ln 10?"),
    "h": ("73713c", "how high does it jump, and is there a rhythm in it?"),
}


@exercise("3.6", "eight digits in quotes", str)
def eight_curves(answer: Any) -> str:
    digits = "".join(answer.split()).replace(",", "")
    if len(digits) != 8 or not set(digits) <= set("12345678"):
        raise Wrong("give one digit from 1 to 8 for each panel, that for panel a first: eight digits in quotes.")
    if twice := sorted({digit for digit in digits if digits.count(digit) > 1}):
        raise Wrong(f"each diagnosis fits one panel, but you have used {', '.join(twice)} more than once.")
    guesses = dict(zip(CURVES, digits, strict=True))
    wrong = [panel for panel, digit in guesses.items() if fingerprint(f"3.6{panel}", digit) != CURVES[panel][0]]
    if wrong:
        raise Wrong(f"{8 - len(wrong)} of 8 are right. Look again at panel {wrong[0]}: {CURVES[wrong[0]][1]}")
    return "Level, slope, gap and rhythm: four looks tell the eight apart."


@exercise("3.7", "a learning rate", *NUMBER)
def high_rate(answer: Any, build: Callable[[], VGG], data: Dataset) -> str:
    if not 0 < answer < 1e6:
        raise Wrong("a learning rate is a number above 0, and not a huge one.")
    if answer < 0.02:
        raise Wrong(f"{answer:g} works, no doubt, but it is no higher than the rates before. Take three times as much.")

    def final(rate: float) -> float:
        recipe = Recipe(epochs=3, batch_size=100, lr=float(rate), precision="fp32", device="cpu")
        try:
            history = fit(build(), data, recipe, progress=False)
        except FloatingPointError:
            return math.inf
        if history.interrupted:
            raise KeyboardInterrupt
        return history.train_loss[-1]

    reached, low = final(answer), final(0.01)
    if reached > math.log(10):
        raise Wrong(f"with {answer:g} the loss ends at {reached:.2f}, above ln 10: it learns nothing. Take a third.")
    if reached > low:
        raise Wrong(f"with {answer:g} the loss ends at {reached:.2f}, with 0.01 at {low:.2f}: too high. Take a third.")
    if (above := final(3 * answer)) < low:
        raise Wrong(f"{answer:g} works, but so does {3 * answer:g}: the loss ends at {above:.2f}. Go up further.")
    ends = f"with 0.01 at {low:.2f}, with three times your rate at {above:.2f}"
    return f"With {answer:g} the loss ends at {reached:.2f}, {ends}."
