"""The judges of notebook 02."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from vgg_course import vgg
from vgg_course.exercises import NUMBER, Wrong, attempt, compare, exercise


def work(entries: Sequence[Any], side: int) -> list[tuple[int, int]]:
    """The multiply-adds of each convolution and the numbers that it gives, for one image."""
    rows, channels = [], 3
    for v in entries:
        if v == "M":
            side //= 2
        else:
            rows.append((9 * channels * v * side**2, v * side**2))
            channels = v
    return rows


@exercise("2.1", 'a name such as "VGG-10"', str, int)
def name(answer: Any) -> str:
    number = re.search(r"\d+", str(answer))
    if not number:
        raise Wrong("the name is VGG with a number behind it.")
    convolutions = sum(v != "M" for v in vgg.cfg["custom"])
    hints = {
        convolutions: "These are the convolutions. The classifier has layers with weights, too.",
        convolutions + 6: "A pool has no weights.",
        convolutions + 1: "How many linear layers has the standard classifier?",
    }
    compare(int(number[0]), convolutions + 3, hints, "Count the numbers in the list, then the linear layers.")
    return "The name counts the layers with weights: convolutions and linear layers."


@exercise("2.2", "a whole number", int)
def head(answer: Any) -> str:
    inputs = 512 * 8 * 8
    hints = {
        512 * 4 * 4 * 4096: "This is right for 32 pixels. Which maps do three pools leave of 64?",
        512 * 7 * 7 * 4096: "7×7 belongs to the paper's head. With input_size nothing is pooled to 7×7.",
        inputs: "So many numbers arrive. Each of the 4096 units has one weight for each of them.",
        (inputs + 1) * 4096: "You have counted the biases, too.",
        512 * 64 * 64 * 4096: "You have forgotten the pools.",
    }
    compare(answer, inputs * 4096, hints, "First the side of the last maps, then the numbers, then times 4096.")
    return "Twice the side means four times the weights."


@exercise("2.3", "a number from 0 to 1", *NUMBER)
def share(answer: Any) -> str:
    layers, linear = work(vgg.cfg["D"], 224), 25088 * 4096 + 4096 * 4096 + 4096 * 1000
    total = sum(row[0] for row in layers) + linear
    first, second = layers[2][0] / total, layers[3][0] / total
    weights = 9 * 128 * (64 + 128)
    hints = {
        100 * (first + second): "This is in percent. Divide by 100.",
        first: "The block has two convolutions.",
        second: "The block has two convolutions.",
        weights / 138_357_544: "This is their part of the parameters. Each weight works at many places.",
        (first + second) * total / (total - linear): "All layers: you have left the linear ones out of the sum.",
        2 * second: "The first of the two has only 64 input channels.",
    }
    compare(answer, first + second, hints, "Add up the work of the two, and divide by the work of all.", near=0.005)
    return "Few weights, but each of them works at 112 · 112 places."


@exercise("2.4", "a whole number of images", int)
def batch(answer: Any) -> str:
    room, numbers, others = 8 * 10**9, *(sum(row[1] for row in work(vgg.cfg[key], 224)) for key in "ED")
    right = room // (4 * numbers)
    hints = {
        right + 1: "The last one does not fit as a whole: round down.",
        room // numbers: "Each number takes four bytes.",
        room // (4 * others): "This is for D. E has three more convolutions.",
        2**33 // (4 * numbers): "Here 8 GB are 8 · 10⁹ bytes.",
    }
    compare(answer, right, hints, "How many bytes does one image need? Section 4 has the code.")
    return "Activations, not weights, decide how large a batch may be."


@exercise("2.5", "a function", Callable)
def average_layers(answer: Any) -> str:
    for entries, batch_norm in (([4, "A", 8, "M"], False), (["A", 4, 4, "M", "A"], True)):
        wanted = _with_average(entries, batch_norm)
        model = attempt(answer, entries, batch_norm)
        if not isinstance(model, nn.Sequential):
            raise Wrong("your function should return an nn.Sequential, as make_layers does.")
        kinds, right = ([type(layer).__name__ for layer in layers] for layers in (model, wanted))
        if "AvgPool2d" not in kinds:
            raise Wrong(f"for {entries} there is no nn.AvgPool2d among your layers: {', '.join(kinds)}.")
        if "MaxPool2d" not in kinds:
            raise Wrong("an 'M' should still be a max pool.")
        if kinds != right:
            raise Wrong(f"for {entries}, batch_norm={batch_norm} the layers are {', '.join(kinds)}; look at the order.")
        shapes, theirs = ([tuple(p.shape) for p in m.parameters() if p.dim() == 4] for m in (model, wanted))
        if shapes != theirs:  # with or without a bias is a matter of taste
            both = f"the shapes {shapes}, those of make_layers {theirs}: its convolutions are 3×3"
            raise Wrong(f"for {entries} the filters have {both}.")
        image = torch.rand(2, 3, 16, 16)
        if attempt(model, image).shape != wanted(image).shape:
            raise Wrong("each pool should halve the side: kernel_size=2, stride=2. Convolutions have padding=1.")
    return "A new kind of entry is a new branch; the rest of the list stays as it is."


def _with_average(entries: Sequence[Any], batch_norm: bool) -> nn.Sequential:
    layers = vgg.make_layers(["M" if v == "A" else v for v in entries], batch_norm)
    places = [place for place, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    for place, v in zip(places, [v for v in entries if isinstance(v, str)], strict=True):
        if v == "A":
            layers[place] = nn.AvgPool2d(kernel_size=2, stride=2)
    return layers


@exercise("2.6", "a class", Callable)
def sized(answer: Any) -> str:
    for key, side in (("custom", 32), ("quick", 64), ("A", 96)):
        entries = vgg.cfg[key]
        channels = [v for v in entries if v != "M"][-1]
        width = channels * (side // 2 ** entries.count("M")) ** 2
        with torch.device("meta"):  # shapes, but no memory
            model = attempt(answer, vgg.make_layers(entries), width, 5)
            if not isinstance(model, nn.Module):
                raise Wrong("calling your class should give a network, an nn.Module.")
            if any(isinstance(layer, nn.AdaptiveAvgPool2d) for layer in model.modules()):
                raise Wrong("the pooling to 7×7 is still there. nn.Identity() in its place passes everything on.")
            linear = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
            if linear and linear[0].in_features != width:
                raise Wrong(f"your classifier starts at {linear[0].in_features:,}, but the width given is {width:,}.")
            logits = attempt(model, torch.zeros(2, 3, side, side))
        if not isinstance(logits, torch.Tensor) or logits.shape != (2, 5):
            raise Wrong(
                f"two images and five classes should give the shape (2, 5), not {getattr(logits, 'shape', '?')}."
            )
    return "The width comes from outside now, so one class serves every list and every size."


@exercise("2.7", "a list such as [16, 'M', 32]", list, tuple)
def budget(answer: Any) -> str:
    try:
        with torch.device("meta"):
            model = vgg.VGG(vgg.make_layers(answer), num_classes=10, global_pool=True, hidden=())
    except (ValueError, RuntimeError) as error:
        raise Wrong(f"no network comes of this list: {error}.") from None
    numbers, pools = [v for v in answer if v != "M"], sum(v == "M" for v in answer)
    parameters = sum(p.numel() for p in model.parameters())
    side, step = 1, 1
    for v in answer:
        side, step = (side + step, 2 * step) if v == "M" else (side + 2 * step, step)
    if pools > 5:
        raise Wrong(f"32 pixels can be halved 5 times, but your list has {pools} pools.")
    if any(v == before == "M" for v, before in zip(answer, ("M", *answer), strict=False)):
        raise Wrong("a pool without a convolution before it throws away what no filter has looked at.")
    if numbers[-1] < 128:
        raise Wrong(f"at the end there are {numbers[-1]} channels; 128 are asked for.")
    if side < 60:
        raise Wrong(f"the receptive field is {side} pixels; a pool doubles what each later layer adds.")
    if parameters > 1_000_000:
        raise Wrong(f"{parameters:,} parameters are too many: where do two large numbers follow each other?")
    millions = sum(row[0] for row in work(answer, 32)) / 1e6
    words = f"It sees {side} pixels with {parameters:,} parameters and {millions:.1f} million multiply-adds."
    if min(numbers) < 16:
        return f"{words} But all that it knows of an image goes through {min(numbers)} channels: can it learn?"
    small = 27_258  # the fewest that there are: a test tries all lists
    times = parameters / small
    return f"{words} A careful list with 16 channels or more needs {small:,}; yours has {times:.1f} times that."
