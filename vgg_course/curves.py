"""What a live plot shows: thinned curves, which of them belong into one plot, and the plot for the page or inline."""

import base64
import html
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

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
MARKS = ("circle", "square")  # plotly's names: training and all else, validation
OTHER_RUNS = ("#CC79A7", "#E69F00", "#000000", "#009E73", "#F0E442")


class Curve:
    """The points of one line, by step; a value that is not finite is a gap.

    Memory is bounded: the steps are cut into buckets, and a bucket keeps its lowest and highest point and one gap.
    A bucket is one step wide, and nothing is lost, until there are too many: then all are made twice as wide.

    >>> curve = Curve()
    >>> for step, value in enumerate([2.3, math.nan, 1.9]):
    ...     curve.add(step, value)
    >>> curve.points()
    ([0, 1, 2], [2.3, None, 1.9])
    """

    def __init__(self) -> None:
        self.buckets: dict[int, list[tuple[int, float]]] = {}
        self.width = 1
        self.first: int | None = None  # the step of the first point
        self.last = math.nan  # the value of the last one

    def add(self, step: int, value: float) -> None:
        """Add a point. A step that is there already gets the new value."""
        self.first, self.last = step if self.first is None else self.first, value
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
) -> tuple[str, list[dict[str, Any]]]:
    """The x axis of a plot and its lines: those of ``curves``, then those of other runs, dotted while training."""
    kinds = {window: (window, "#0072B2", 1.5)} | LINES.get(window, {})  # a value may be called as a window of ours
    runs: list[tuple[str, Mapping[str, Curve], str | None]] = [("", curves, None)]
    runs += [(f"{name}: ", other, colour) for (name, other), colour in zip(list(others.items()), cycle(OTHER_RUNS))]
    found = []
    for run, of_run, other in runs:
        for name, (label, colour, width) in kinds.items():
            curve = of_run.get(name)
            if curve and curve.buckets and not (other and name == "loss" and "train_loss" in of_run):
                x, y = curve.points()
                style = {"color": other or colour, "width": width, "dash": bool(other) and "train" in label}
                found.append({"name": run + label, "x": x, "y": y, **style})
    return "epoch" if window == "accuracy" and window not in curves else "step", found


def from_points(points: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> dict[str, Curve]:
    """Curves of steps and values, by name. Raises ``TypeError`` for another form."""
    found: dict[str, Curve] = {}
    try:
        for name, (steps, values) in points.items():
            found[name] = Curve()
            for step, value in zip(steps, values, strict=True):
                found[name].add(int(step), float(number(name, value)))
    except (AttributeError, TypeError, ValueError) as error:
        form = "points are steps and as many values by name, such as {'loss': ([0, 1], [2.3, 2.1])}"
        raise TypeError(f"{form}, not {points!r:.60} ({error})") from None
    return found


def in_order(windows: Iterable[str]) -> list[str]:
    """The windows in the order in which they are drawn: those of ``LINES`` first."""
    names = list(LINES)
    return sorted(windows, key=lambda window: (names.index(window) if window in names else len(names), window))


def number(name: str, value: Any) -> float | torch.Tensor:
    """A single number as a float; on a GPU, where reading it would wait, a tensor of one element.

    Raises ``ValueError`` for a tensor of several elements, with its shape, or a complex one.
    """
    if isinstance(value, torch.Tensor):
        if value.numel() != 1:
            raise ValueError(f"{name} must be a single number, not a tensor of shape {tuple(value.shape)}")
        if value.is_complex():
            raise ValueError(f"{name} must be a real number, not a complex one")
        # Reading a number from a GPU waits for all its work: the thread that draws does it, later, so it gets a copy.
        # Not from a Mac's: torch may crash there when two threads use it at once (pytorch#197805).
        return value.item() if value.device.type in ("cpu", "mps") else value.detach().clone()
    try:
        return float(value)
    except OverflowError:  # an int beyond 1e308
        return math.inf


def whole(name: str, value: Any) -> int:
    """A number of a step or an epoch. Raises ``ValueError`` for what is none."""
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise ValueError(f"{name} must be a whole number, not {value!r:.60}") from None


# ------------------------------------------------------------------ drawn


def plot_window(title: str, x: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The message for a plot; each of ``lines`` has ``name``, ``x``, ``y``, ``color``, ``width``, ``dash``."""
    traces = [
        {
            "type": "scatter",
            # A lone point has no line; many points need no marks.
            "mode": "lines+markers" if len(line["x"]) <= 60 else "lines",
            "name": html.escape(line["name"], quote=False),  # plotly reads a little HTML
            "x": line["x"],
            "y": line["y"],
            "line": {"color": line["color"], "width": line["width"], "dash": "dot" if line["dash"] else "solid"},
            "marker": {"size": 5, "color": line["color"], "symbol": MARKS["validation" in line["name"]]},
        }
        for line in lines
    ]
    axis = {"zeroline": False, "gridcolor": "#e5e5e5", "automargin": True}
    layout: dict[str, Any] = {
        "xaxis": {**axis, "title": {"text": x}},
        "yaxis": {**axis, "title": {"text": html.escape(title, quote=False)}},
        "margin": {"l": 50, "r": 12, "t": 12, "b": 40},
        "showlegend": len(lines) > 1 or title == "loss",
        "legend": {"x": 1, "xanchor": "right", "y": 1, "bgcolor": "rgba(255,255,255,0.6)", "font": {"size": 10}},
    }
    if x == "epoch":  # whole ones; a run of one epoch has a single point, around which no axis can be fitted
        last = max((line["x"][-1] for line in lines), default=0)
        layout["xaxis"] |= {"rangemode": "tozero"} | ({"dtick": 1} if last < 8 else {})
    if title == "accuracy":
        layout["yaxis"]["tickformat"] = ".1~%"
        if all(len(line["x"]) == 1 for line in lines):
            layout["yaxis"]["range"] = [0, 1]
    return {
        "data": traces,
        "layout": layout,
        "opts": {"title": title, "width": 370 if title == "loss" else 215, "height": 350},
    }


def picture_window(title: str, figure: Figure) -> dict[str, Any]:
    """The message for a window that shows a matplotlib figure, 640 pixels wide."""
    source = "data:image/png;base64," + base64.b64encode(png(figure, 150)).decode()
    width, height = figure.get_size_inches()
    size = {"width": 640, "height": round(640 * height / width)}
    return {"data": [{"type": "image", "content": {"src": source}}], "opts": {"title": title, **size}}


def as_text(name: str) -> str:
    """A name that matplotlib shows as it is: between two dollar signs it would see a formula."""
    return name.replace("$", r"\$")


def png(figure: Figure, dpi: int = 90) -> bytes:
    """A matplotlib figure as a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()


def picture_of(run: str, curves: Mapping[str, Curve], others: Mapping[str, Mapping[str, Curve]]) -> tuple[bytes, str]:
    """All plots of a run as one PNG picture, and its last values in words."""
    last = {name: curve.last for name, curve in list(curves.items())}
    text = ", ".join(f"{name} {value:.4g}" for name, value in last.items())
    windows = in_order({WINDOW_OF.get(name, name) for name in last})
    plots = {window: lines(window, curves, others) for window in windows}
    return picture(plots), f"plot of {run!r}, last: {text}"


def picture(windows: Mapping[str, tuple[str, list[dict[str, Any]]]]) -> bytes:
    """The same plots as one picture: ``windows`` holds, by title, the x axis's name and the lines."""
    figure = Figure(figsize=(max(4.5, 3.7 * len(windows)), 3.2), layout="constrained")
    axes = figure.subplots(1, max(1, len(windows)), squeeze=False)[0]
    for axis, (title, (x, lines)) in zip(axes, windows.items(), strict=False):
        for line in lines:
            values = [float("nan") if value is None else value for value in line["y"]]
            style = {"color": line["color"], "linewidth": line["width"], "linestyle": ":" if line["dash"] else "-"}
            marker = ("s" if "validation" in line["name"] else "o") if len(values) <= 60 else None
            axis.plot(line["x"], values, marker=marker, markersize=4, label=as_text(line["name"]), **style)
        axis.set(xlabel=x, ylabel=as_text(title))
        axis.grid(color="#e5e5e5")
        axis.spines[["top", "right"]].set_visible(False)
        if len(lines) > 1:
            axis.legend(fontsize=9, frameon=False)
        if x == "epoch":
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            axis.set_xlim(left=0)
        if title == "accuracy":
            axis.yaxis.set_major_formatter(PercentFormatter(1.0))
            if all(len(line["x"]) == 1 for line in lines):
                axis.set_ylim(0, 1)
    return png(figure)
