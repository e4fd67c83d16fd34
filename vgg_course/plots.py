"""The pictures of the course. Each function takes tensors or arrays and returns a matplotlib ``Figure``.

End a notebook cell with ``plt.show()``, or keep the figure: ``figure.savefig("name.png")``. The colours are those of
Okabe and Ito (2008), which colour-blind readers can tell apart; where colour carries a meaning, a sign does as well.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import SupportsInt

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

from vgg_course.curves import as_text

BLUE, ORANGE, GREEN, PINK, SKY, RED = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"
COLORS = (BLUE, ORANGE, GREEN, PINK, SKY, RED)
MARKS = (("o", "s"), ("^", "D"), ("v", "P"), ("p", "X"))  # of training and validation, for one run after the other
STYLES = ("-", "--", ":", "-.")
WIDTH = 7.0  # inches; at 100 dots an inch, a figure reads well in a column of 700 pixels

# The letters of other scripts, which matplotlib's own font lacks, come from one of these where it is installed.
SCRIPTS = (
    *("Malgun Gothic", "Microsoft YaHei", "Yu Gothic", "Apple SD Gothic Neo", "Hiragino Sans", "PingFang SC"),
    *("Noto Sans CJK JP", "NanumGothic", "WenQuanYi Zen Hei"),
)

Array = torch.Tensor | np.ndarray


def to_pixels(images: Array, mean: Sequence[float] | None = None, std: Sequence[float] | None = None) -> np.ndarray:
    """Images ``(N, 3, H, W)`` as uint8 ``(N, H, W, 3)``, ready to be drawn.

    uint8 images and floats from 0 to 1 are taken as they are, whether ``mean`` and ``std`` are given or not. Only
    other floats count as normalised, and ``mean`` and ``std`` (one number a channel) undo it, so nothing is
    un-normalised twice. Raises ``ValueError`` for other shapes, and for normalised images without ``mean`` and ``std``.
    """
    if isinstance(images, torch.Tensor):
        images = images.detach().cpu()
        images = images.float() if images.is_floating_point() else images  # NumPy has no bfloat16
    array = np.asarray(images)
    if array.ndim != 4 or array.shape[1] != 3:
        hint = "; a single image needs image[None]" if array.ndim == 3 else ""
        hint = "; the channels come second: images.permute(0, 3, 1, 2)" if array.shape[3:] == (3,) else hint
        raise ValueError(f"images must have the shape (N, 3, H, W), not {array.shape}{hint}")
    array = array.transpose(0, 2, 3, 1)
    if array.dtype == np.uint8:
        return array
    if not np.isfinite(array).all():
        raise ValueError("the images hold nan or inf: there is nothing to draw")
    if array.size and array.min() >= 0 and array.max() > 50:  # normalised ones are never so large
        raise ValueError(f"these are pixels from 0 to 255, but {array.dtype}: give images.to(torch.uint8)")
    if array.size and (array.min() < 0 or array.max() > 1):
        if mean is None or std is None:
            raise ValueError(
                f"float images from {array.min():.2f} to {array.max():.2f} look normalised: "
                "give mean and std of the data set, or draw its uint8 images"
            )
        array = array * np.asarray(std) + np.asarray(mean)
    return np.round(255 * array.clip(0, 1)).astype(np.uint8)


def image_grid(
    images: Array,
    classes: Sequence[str] | None = None,
    labels: Array | None = None,
    predicted: Array | None = None,
    confidence: Array | None = None,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    columns: int = 8,
) -> Figure:
    """Draw images ``(N, 3, H, W)`` with the names of their classes below.

    With ``labels`` and ``predicted`` ``(N,)``, a right prediction has a blue name behind a tick, a wrong one an
    orange-red name behind a cross, a frame and the true name in brackets. ``confidence`` ``(N,)``, 0 to 1, is added
    as a percentage. ``mean`` and ``std``: see :func:`to_pixels`.
    """
    pixels = to_pixels(images, mean, std)
    if len(pixels) == 0 or not isinstance(columns, int) or columns < 1:
        raise ValueError(f"a grid needs images and columns, not {len(pixels)} images in {columns!r} columns")
    for name, values in {"labels": labels, "predicted": predicted, "confidence": confidence}.items():
        if values is not None and np.ndim(values) != 1:
            raise ValueError(f"{name} is one value for each image, not {np.shape(values)}: logits.argmax(1), say")
        if values is not None and len(values) != len(pixels):
            raise ValueError(f"there are {len(pixels)} images, but {len(values)} {name}: give those of the same images")
    captions = [_caption(i, classes, labels, predicted, confidence) for i in range(len(pixels))]
    lines = [line for caption, _ in captions for line in caption.split("\n")]
    tall = max((caption.count("\n") + 1 for caption, _ in captions if caption), default=0)
    columns = min(columns, len(pixels))
    rows, cell = math.ceil(len(pixels) / columns), WIDTH / columns
    size = min(9.0, 72 * cell / (0.62 * max(map(len, lines), default=1) + 0.1))  # so that the longest line fits
    height = cell + (1.4 * size * tall + 6) / 72
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, rows * height), squeeze=False, layout="constrained")
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    families = fonts()
    for axis, image, (caption, right) in zip(axes.flat, pixels, captions, strict=False):
        axis.imshow(image)
        color = {True: BLUE, False: RED, None: "black"}[right]
        axis.set_xlabel(caption, fontsize=size, color=color, fontfamily=families)
        if right is False:
            axis.spines[:].set(visible=True, color=RED, linewidth=2)
    return figure


def _caption(
    i: int, classes: Sequence[str] | None, labels: Array | None, predicted: Array | None, confidence: Array | None
) -> tuple[str, bool | None]:
    """The words below image ``i``, and whether its prediction is right (None: nothing to compare)."""
    true, guess = (None if v is None else _name(v[i], classes) for v in (labels, predicted))
    percent = "" if confidence is None else f"{float(confidence[i]):.0%}"
    if guess is None or true is None:
        return " ".join(filter(None, (guess or true, percent))), None
    if guess == true:
        return f"✓ {guess}\n{percent}".strip(), True
    return f"✗ {guess}\n{percent} ({true})".replace("\n (", "\n("), False


def _name(label: SupportsInt, classes: Sequence[str] | None) -> str:
    if classes is None:
        return str(int(label))
    if not 0 <= int(label) < len(classes):
        raise ValueError(f"there is no class {int(label)}: the {len(classes)} names count from 0")
    return as_text(str(classes[int(label)]))


def fonts() -> list[str]:
    """Families of fonts for the names of classes: matplotlib goes on to the next where one lacks a letter."""
    installed = fontManager.get_font_names()
    return ["sans-serif", *(name for name in SCRIPTS if name in installed)]


def curves(runs: Mapping[str, object] | object) -> Figure:
    """Loss, accuracy and learning rate of one run, or of several by name: ``{"lecture": history, ...}``.

    A run is a ``History`` or the dictionary that ``dataclasses.asdict`` makes of it. Colour, marks and the line of the
    learning rate tell runs apart.
    """
    runs = runs if isinstance(runs, Mapping) and "batch_loss" not in runs else {"": runs}
    for name, run in runs.items():
        if not (isinstance(run, Mapping) and "batch_loss" in run) and not hasattr(run, "batch_loss"):
            raise TypeError(f"a run is a History, or a record's 'history', not {type(run).__name__} {name!r}")
    figure, (loss, score, rate) = plt.subplots(3, 1, figsize=(WIDTH, 7.2), layout="constrained", sharex=True)
    looks = zip(cycle(COLORS), cycle(MARKS), cycle(STYLES))
    for (name, run), (color, (mark, second), style) in zip(runs.items(), looks, strict=False):
        values = run if isinstance(run, Mapping) else vars(run)
        batch_loss, epochs = np.asarray(values["batch_loss"]), len(values["train_loss"])
        per_epoch = values.get("steps_per_epoch") or len(batch_loss) / max(1, epochs)  # older records have whole epochs
        position = (np.arange(len(batch_loss)) + 1) / per_epoch
        name = as_text(str(name))
        ends, label = np.arange(1, epochs + 1), f"{name}: " if name else ""
        loss.plot(position, batch_loss, color=color, alpha=0.35, linewidth=0.8)
        loss.plot(ends, values["train_loss"], f"{mark}-", color=color, markersize=4, label=f"{label}training")
        loss.plot(ends, values["validation_loss"], f"{second}--", color=color, markersize=4, label=f"{label}validation")
        percent = 100 * np.asarray(values["validation_accuracy"])
        score.plot(ends, percent, f"{second}--", color=color, markersize=4, label=name)
        rate.plot(position, values["batch_learning_rate"], style, color=color, label=name)
    loss.set(ylabel="loss (nats)", title="Loss: each batch (pale), mean of each epoch (marks)")
    score.set(ylabel="accuracy (%)", title="Accuracy on the validation images")
    rate.set(ylabel="learning rate", xlabel="epoch", title="Learning rate")
    for axis in (loss, score, rate):
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[1]:
            axis.legend(fontsize=8)
    return figure


def confusion(matrix: Array, classes: Sequence[str]) -> Figure:
    """Draw a confusion matrix ``(C, C)`` of counts, row = true class; each cell in percent of its row."""
    counts = np.asarray(matrix.cpu() if isinstance(matrix, torch.Tensor) else matrix)
    if counts.shape != (len(classes), len(classes)):
        raise ValueError(f"{len(classes)} classes need a matrix {(len(classes),) * 2}, not {counts.shape}")
    percent = 100 * counts / np.maximum(1, counts.sum(1, keepdims=True))
    figure, axis = plt.subplots(figsize=(WIDTH, 0.86 * WIDTH), layout="constrained")
    picture = axis.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    for row, column in np.ndindex(*percent.shape):
        if percent[row, column] > 0.5:  # 0.5 would be rounded to 0
            color = "white" if percent[row, column] > 55 else "black"
            axis.text(column, row, f"{percent[row, column]:.0f}", ha="center", va="center", color=color, fontsize=9)
    names, families = [as_text(str(name)) for name in classes], fonts()
    axis.set_xticks(range(len(names)), names, rotation=45, ha="right", fontfamily=families)
    axis.set_yticks(range(len(names)), names, fontfamily=families)
    axis.set(xlabel="predicted", ylabel="true")
    figure.colorbar(picture, label="% of the true class", shrink=0.85)
    return figure


def filters(weight: Array) -> Figure:
    """Draw the filters ``(C_out, 3, kH, kW)`` of a first convolution as colour images; grey is a weight of 0."""
    array = weight.detach().cpu().float().numpy() if isinstance(weight, torch.Tensor) else np.asarray(weight)
    if array.ndim != 4 or array.shape[1] != 3:
        raise ValueError(f"filters of a first layer have the shape (C_out, 3, kH, kW), not {array.shape}")
    largest = np.abs(array).max(axis=(1, 2, 3), keepdims=True)
    figure = image_grid(0.5 + 0.5 * array / np.maximum(largest, 1e-12), columns=12)
    for axis in figure.axes[: len(array)]:
        axis.spines[:].set(visible=True, color="grey", linewidth=0.5)  # else a white filter is not seen
    return figure


def feature_maps(maps: Array, columns: int = 8) -> Figure:
    """Draw the feature maps ``(C, H, W)`` of one image, each on a scale of its own from dark (low) to bright (high)."""
    array = maps.detach().cpu().float().numpy() if isinstance(maps, torch.Tensor) else np.asarray(maps)
    if array.ndim != 3 or len(array) == 0:
        raise ValueError(f"feature maps of one image have the shape (C, H, W), not {array.shape}")
    if not isinstance(columns, int) or columns < 1:
        raise ValueError(f"columns is how many maps stand in a row, not {columns!r}")
    rows, cell = math.ceil(len(array) / columns), WIDTH / columns
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, rows * cell), squeeze=False, layout="constrained")
    for i, axis in enumerate(axes.flat):
        axis.set_axis_off()
        if i < len(array):
            axis.imshow(array[i], cmap="cividis")
    return figure
