"""The judges of notebook 05."""

import json
import math
from pathlib import Path
from typing import Any

from torch import nn

from vgg_course.exercises import NUMBER, Wrong, attempt, compare, exercise, plain
from vgg_course.runs import write_whole
from vgg_course.vgg import VGG, cfg, make_layers

LEADERBOARD = Path("runs") / "leaderboard.json"  # beside the notebook
SECONDS = 180


def _work(channels: int, out: int, side: int) -> int:
    return side**2 * nn.Conv2d(channels, out, kernel_size=3).weight.numel()


@exercise("5.1", "a whole number", int)
def multiply_adds(answer: Any) -> str:
    right = _work(64, 128, 16)
    hints = {
        right // 9: "A filter looks at 3×3 pixels: that is a factor of nine.",
        right // 64: "Each filter looks at all 64 input channels.",
        right // 256: "That is the number of weights. Each is used at every pixel.",
        right // 128: "That is one filter. There are 128.",
        2 * right: "A multiply-add counts once here, not as two operations.",
    }
    compare(answer, right, hints, "Work = weights × pixels. Count the weights first, then the pixels of the result.")
    return "So many numbers come out, and each is a sum of 64 × 3 × 3 products."


@exercise("5.2", "a number, the factor", *NUMBER)
def double_and_halve(answer: Any) -> str:
    hints = {
        4: "The channels bring a factor of 4. What do the pixels bring?",
        1 / 4: "The pixels bring a quarter. What do the channels bring, in and out?",
        2: "Both sides of a layer become wider: channels in times channels out.",
        1 / 2: "Half of the side is a quarter of the pixels, and the channels count in and out.",
    }
    compare(answer, _work(32, 32, 16) / _work(16, 16, 32), hints, "Take 16 channels at 32 pixels, and count.", 1e-6)
    return "Four times from the channels in and out, a quarter from the pixels. VGG does this after each pool."


@exercise("5.3", "two speeds in GFLOP/s, a tuple", tuple, list)
def under_the_roof(answer: Any) -> str:
    roofs = [min(500 * factor, 30 * factor * 20) for factor in (1, 2)]
    hints = {
        (30 * 20, 60 * 20): "That is what the memory allows. The other limit is the peak.",
        (roofs[0], roofs[0]): "The peak is doubled in bf16, and each number has half the bytes.",
        (roofs[0], 30 * 20): "Half the bytes a number: how many operations a byte are that?",
    }
    compare(
        tuple(answer), tuple(roofs), hints, "A layer reaches the lower of two limits: peak, and intensity × bandwidth."
    )
    return "In both the peak is the lower limit, and bf16 helps fully."


@exercise("5.4", "a number of megabytes", *NUMBER)
def all_reduce(answer: Any) -> str:
    parameters = sum(p.numel() for p in VGG(make_layers(cfg["cifar10"]), 10, input_size=32).parameters())
    copy = 4 * parameters / 1e6
    hints = {
        copy: "That is one copy of the gradients. In the ring, each worker sends a little less than twice that.",
        2 * copy: "Nearly. The part that is a worker's own need not be sent: (n − 1) / n.",
        1.5 * copy / 4: "You have counted numbers. Each takes four bytes.",
        1.5 * copy * 1e6: "That is in bytes: a megabyte is a million of them.",
    }
    compare(answer, 2 * 3 / 4 * copy, hints, "2 (n − 1) / n, times the bytes of all gradients.", near=0.01)
    return "Each worker sends three quarters of the gradients to collect the sum, and as much to spread it."


@exercise("5.5", "a function of part and factor", object)
def whole_from_part(answer: Any) -> str:
    if not callable(answer):
        raise Wrong("an answer here is a function: def answer(part, factor): ...")
    for part, factor in [(0.5, 2.0), (0.9, 10.0), (1.0, 7.0), (0.0, 5.0)]:
        right = 1 / (1 - part + part / factor)
        result = plain(attempt(answer, part, factor))
        case = f"For part {part:g} and factor {factor:g}"
        if not isinstance(result, NUMBER):
            raise Wrong(f"{case} your function returns {result!r}, not a number.")
        if abs(result - 1 / right) < 1e-6 < abs(right - 1):
            raise Wrong(f"{case} you give the time that is left. How many times as fast is that?")
        if abs(result - (1 - part + part * factor)) < 1e-6 < abs(right - result):
            raise Wrong(f"{case} you have taken a mean of speeds. Add up times instead.")
        if not math.isclose(result, right, rel_tol=1e-6):
            raise Wrong(f"{case} you give {result:g}, which is not it. Let the whole take 1 second: what is left?")
    return "What a lever does not touch stays: with nine tenths ten times as fast, the whole is only 5 times as fast."


@exercise("5.6", "a test accuracy from 0 to 1 and the seconds of training, a tuple", tuple, list)
def leaderboard(answer: Any, dataset: str = "cifar10") -> str:
    values = [plain(value) for value in answer]
    if len(values) != 2 or not all(isinstance(value, NUMBER) and math.isfinite(value) for value in values):
        raise Wrong("give two numbers: the accuracy and the seconds.")
    accuracy, seconds = values
    if not 0 <= accuracy <= 1:
        raise Wrong(f"an accuracy is a number from 0 to 1, not {accuracy:g}.")
    if not 0 < seconds <= SECONDS:
        raise Wrong(f"{seconds:g} s do not count: training takes more than none and at most {SECONDS}.")
    if accuracy <= 0.15:
        raise Wrong(f"{accuracy:.1%} is hardly better than guessing. Look at the loss: did it fall?")
    try:
        table = json.loads(LEADERBOARD.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # there is none yet, or it is damaged
        table = {}
    table = table if isinstance(table, dict) else {}
    ranks = sorted([*table.get(dataset, []), [accuracy, seconds]], key=lambda row: (-row[0], row[1]))
    best, place = ranks[0], ranks.index([accuracy, seconds]) + 1
    rank = (
        f"Place {place} of {len(ranks)} on this machine with {dataset}; the best is {best[0]:.1%} in {best[1]:.0f} s."
    )
    try:
        LEADERBOARD.parent.mkdir(exist_ok=True)
        write_whole(LEADERBOARD, json.dumps({**table, dataset: ranks}).encode())
    except OSError as error:  # it counts all the same
        return f"{rank} But the table cannot be kept in {LEADERBOARD} ({error.strerror})."
    return rank
