"""The points of a live plot: thinned curves, and which of them belong into one plot."""

import math
from collections.abc import Iterable, Mapping
from itertools import cycle

import torch

MAX_BUCKETS = 1_600  # of at most three points each: no line has more than 4,800 points
# What belongs into one plot: window -> {name in values: (name of the line, colour, width)}. Colours: Okabe and Ito.
LINES = {
    "loss": {
        "loss": ("training, each step", "#56B4E9", 1.0),
        "train_loss": ("training, mean of the epoch", "#0072B2", 2.0),
        "validation_loss": ("validation", "#D55E00", 2.0),
    },
    "accuracy": {"validation_accuracy": ("validation", "#D55E00", 2.0)},
    "learning rate": {"learning_rate": ("learning rate", "#009E73", 1.5)},
}
WINDOW_OF = {name: window for window, lines in LINES.items() for name in lines}
OTHER_RUNS = ("#CC79A7", "#E69F00", "#000000", "#009E73", "#F0E442")


class Curve:
    """The points of one line, by step; a value that is not finite is a gap.

    Memory is bounded: the steps are cut into buckets, and a bucket keeps its lowest and highest point and one gap.
    A bucket is one step wide, and nothing is lost, until there are too many: then all are made twice as wide.
    """

    def __init__(self) -> None:
        self.buckets: dict[int, list[tuple[int, float]]] = {}
        self.width, self.first = 1, None

    def add(self, step: int, value: float) -> None:
        """Add a point. A step that is there already gets the new value."""
        self.first = step if self.first is None else self.first
        self._put(self.buckets, step, value)
        while len(self.buckets) > MAX_BUCKETS:
            self.width *= 2
            wider: dict[int, list[tuple[int, float]]] = {}
            for bucket in self.buckets.values():
                for point in bucket:
                    self._put(wider, *point)
            self.buckets = wider  # in one go: another thread may be drawing

    def _put(self, buckets: dict[int, list[tuple[int, float]]], step: int, value: float) -> None:
        bucket = buckets.setdefault(step // self.width, [])
        points = [point for point in bucket if point[0] != step] + [(step, value)]
        if len(points) > 2:
            gaps = [point for point in points if not math.isfinite(point[1])][-1:]
            finite = [point for point in points if math.isfinite(point[1])]
            points = list(dict.fromkeys([f(finite, key=lambda point: point[1]) for f in (min, max) if finite] + gaps))
        bucket[:] = points

    def points(self) -> tuple[list[int], list[float | None]]:
        """Steps in order and their values, ``None`` for a gap: what JSON, and so the page, can carry."""
        points = sorted(point for bucket in list(self.buckets.values()) for point in tuple(bucket))
        return [step for step, _ in points], [value if math.isfinite(value) else None for _, value in points]


def lines(
    window: str, curves: Mapping[str, Curve], others: Mapping[str, Mapping[str, Curve]]
) -> tuple[str, list[dict]]:
    """The x axis of a plot and its lines: those of ``curves``, then those of other runs, dotted while training."""
    kinds = LINES.get(window, {window: (window, "#0072B2", 1.5)})
    runs = [("", curves, None)]
    runs += [(f"{name}: ", other, colour) for (name, other), colour in zip(list(others.items()), cycle(OTHER_RUNS))]
    found = []
    for run, of_run, other in runs:
        for name, (label, colour, width) in kinds.items():
            curve = of_run.get(name)
            if curve and not (other and name == "loss" and "train_loss" in of_run):
                x, y = curve.points()
                style = {"color": other or colour, "width": width, "dash": bool(other) and "train" in label}
                found.append({"name": run + label, "x": x, "y": y, **style})
    return "epoch" if window == "accuracy" else "step", found


def in_order(windows: Iterable[str]) -> list[str]:
    """The windows in the order in which they are drawn: those of ``LINES`` first."""
    names = list(LINES)
    return sorted(windows, key=lambda window: (names.index(window) if window in names else len(names), window))


def number(name: str, value: object) -> float | torch.Tensor:
    """A single number as a float; on a GPU, where reading it would wait, a tensor of one element.

    Raises ``ValueError`` for a tensor of several elements, with its shape.
    """
    if isinstance(value, torch.Tensor):
        if value.numel() != 1:
            raise ValueError(f"{name} must be a single number, not a tensor of shape {tuple(value.shape)}")
        # Reading a number from a GPU waits for all its work: the thread that draws does it, later, so it gets a copy.
        return value.item() if value.device.type == "cpu" else value.detach().clone()
    try:
        return float(value)
    except OverflowError:  # an int beyond 1e308
        return math.inf
