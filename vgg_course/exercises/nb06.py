"""The judges of notebook 06."""

import math
from typing import Any

import torch
from torch import nn

from vgg_course.exercises import NUMBER, Wrong, attempt, choice, compare, exercise
from vgg_course.sources import FOLDS


@exercise("6.1", "a tuple of three numbers", tuple, list)
def splits(answer: Any) -> str:
    images = 40
    fifth = images // FOLDS
    hints = {
        (images - fifth, fifth): "There are three splits: the validation images are missing.",
        (images - fifth, 0, fifth): "Validation takes as many as the test.",
        (images - fifth, fifth // 2, fifth // 2): "That is a tenth for each. It takes a fifth for each.",
        (fifth, fifth, images - 2 * fifth): "The order is training, validation, test.",
    }
    right = (images - 2 * fifth, fifth, fifth)
    compare(tuple(answer), right, hints, "What is a fifth of all images? It is taken away twice.")
    return "Training keeps what the two fifths leave."


@exercise("6.2", "a whole number", int)
def head(answer: Any) -> str:
    layer = nn.Linear(2048, 3)
    weights, biases = layer.weight.numel(), layer.bias.numel()
    hints = {
        weights: "These are the weights. A linear layer has one number more for each class.",
        weights + 2048: "There is one bias for each class, not for each feature.",
        2048: "That is one class. Each class has weights of its own.",
    }
    compare(answer, weights + biases, hints, "The body is frozen: count the weights and biases of the head alone.")
    return "Everything else is frozen, so that a few images are enough."


@exercise("6.3", "one of the letters a, b, c, in quotes", str)
def leak(answer: Any) -> str:
    hints = {
        "d20018": "A network that is too small fails on the test images, too.",
        "6f74cc": "Then the loss would not fall, and the test would be bad, too.",
    }
    choice("6.3", answer, "25a128", hints)
    return "A test is only worth something if its images are new, as the friend's were."


@exercise("6.4", "a function of width and height")
def middle_square(answer: Any) -> str:
    if not callable(answer):
        raise Wrong("an answer here is a function: def answer(width, height): ...")
    for width, height in ((40, 30), (30, 53), (32, 32), (103, 20)):
        box = attempt(answer, width, height)
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        hints = {
            (top, left, top + side, left + side): "Left comes first, then top: x before y.",
            (left, top, side, side): "The last two are the right and the bottom edge, not width and height.",
            (0, 0, side, side): "That is the corner at the top left. Half of the rest goes on each side.",
        }
        words = (
            f"For {width}x{height} pixels, the square has a side of {side}. "
            "Half of the rest, rounded down, is cut off on the left or at the top."
        )
        compare(tuple(box) if isinstance(box, list) else box, (left, top, left + side, top + side), hints, words)
    return "The shorter side stays whole, and the longer one loses the same at both ends."


@exercise("6.5", "a number from 0 to 1", *NUMBER)
def standard_error(answer: Any) -> str:
    p, n = 20 / 25, 25
    variance = p * (1 - p) / n
    hints = {
        variance: "That is the variance. Its square root is missing.",
        100 * math.sqrt(variance): "That is in percent. Give it as a number from 0 to 1.",
        math.sqrt(p * (1 - p)): "That is the spread of one image. With n images it is smaller.",
    }
    compare(answer, math.sqrt(variance), hints, "p is the part that is right, n the number of images.", near=0.02)
    return "With a small test, small differences mean nothing."


@exercise("6.6", "a tensor (N, classes), the logits for the test images", torch.Tensor)
def few_images(answer: Any, labels: Any = None, bar: float = 0.0) -> str:
    answer = answer.detach().cpu()  # it may come from a GPU
    if not answer.is_floating_point():
        raise Wrong(f"logits are fractions, not {answer.dtype}: what the network gives, before any argmax.")
    if answer.dim() != 2 or len(answer) != len(labels) or answer.shape[1] <= labels.max():
        raise Wrong(f"logits have a row for each of the {len(labels)} images, a column for each class.")
    if not answer.isfinite().all():
        raise Wrong("some of the logits are not finite: the training has failed.")
    score = (answer.argmax(1) == labels).float().mean().item()
    if score == 1 and len(labels) > 100:
        raise Wrong("all of them right, from so few images? Has the network seen the test images?")
    if score <= bar and score < 1:
        raise Wrong(
            f"{score:.1%} are right; the best cut reached {bar:.1%} on the validation images. Try two networks in one."
        )
    return f"{score:.1%} of the test images, from so few. Can you still find a better way?"
