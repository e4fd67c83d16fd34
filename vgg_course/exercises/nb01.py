"""The judges of notebook 01."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from vgg_course.exercises import NUMBER, Wrong, attempt, choice, compare, exercise


@exercise("1.1", "a tuple of four numbers", tuple, list, torch.Size)
def shape(answer: Any) -> str:
    layer = nn.Conv2d(3, 16, kernel_size=5, stride=2, padding=2)
    right = tuple(layer(torch.zeros(8, 3, 64, 64)).shape)
    hints = {
        (8, 16, 64, 64): "Padding 2 keeps the size of a 5×5 convolution, but only with stride 1.",
        (8, 16, 30, 30): "You have left out the padding: it adds 2 pixels on each side.",
        (8, 3, right[2], right[3]): "The channels of the result are the filters of the layer, not those of the input.",
        right[1:]: "There is a number for the images of the batch, too.",
    }
    compare(tuple(answer), right, hints, "Take them in turn: images, filters, and the rule of section 2 for the side.")
    return "One map for each filter, and the rule of section 2 gives the side."


@exercise("1.2", "a whole number", int)
def parameters(answer: Any) -> str:
    layer = nn.Conv2d(128, 256, kernel_size=3)
    weights, biases = layer.weight.numel(), layer.out_channels
    hints = {
        weights: "These are the weights. Each filter has one number more.",
        weights + 128: "There is one bias for each filter, not for each input channel.",
        9 * 128 + 1: "That is one filter. How many are there?",
        9 * 256: "Each filter looks at all 128 input channels.",
    }
    compare(answer, weights + biases, hints, "How many numbers has one filter? Then multiply by the number of filters.")
    return "Each filter has 9 weights for each input channel, and one bias."


@exercise("1.3", "a whole number, the side in pixels", int)
def receptive_field(answer: Any) -> str:
    entries = [64, 64, "M", 128, 128, "M"]

    def side(pool_adds: int = 1, pool_doubles: int = 2) -> int:
        seen, distance = 1, 1
        for entry in entries:
            seen += distance * (pool_adds if entry == "M" else 2)
            distance *= pool_doubles if entry == "M" else 1
        return seen

    hints = {
        side(pool_adds=0, pool_doubles=1): "You have left out the pools.",
        side(pool_adds=0): "The window of a pool takes in one neighbour more, so a pool adds to the side as well.",
        side(pool_doubles=1): "Behind a pool, neighbours are twice as far apart: the later layers add more.",
        side() - 2: "The last pool is still to come.",
    }
    compare(answer, side(), hints, "Begin with 1. For each entry, write down the side and the distance of neighbours.")
    return "Each convolution adds a neighbour on both sides, each pool one neighbour, and then doubles the distance."


@exercise("1.4", "a tensor of shape (1, 1, 2, 2)", torch.Tensor)
def average_pool(answer: Any) -> str:
    if answer.shape != (1, 1, 2, 2):
        raise Wrong(f"the weight of one filter for one channel has the shape (1, 1, 2, 2), not {tuple(answer.shape)}.")
    torch.manual_seed(0)
    image = torch.rand(1, 1, 8, 8)
    result, wanted = functional.conv2d(image, answer.float(), stride=2), functional.avg_pool2d(image, 2)
    factor = (result / wanted).mean()
    if torch.allclose(result, factor * wanted, atol=1e-5) and abs(factor - 1) > 1e-4:
        raise Wrong(f"your results are {factor:.3g} times the means: a mean is a sum divided by how many there are.")
    if not torch.allclose(result, wanted, atol=1e-5):
        raise Wrong("your four weights differ, but a mean treats all four pixels alike.")
    return "Equal weights that add up to 1 make a mean, and stride 2 goes from tile to tile."


@exercise("1.5", "a number, the factor f", *NUMBER)
def factor(answer: Any) -> str:
    kept = 1 / 4
    hints = {2: "That is ReLU's factor. It makes up for a half.", kept: "That is what is left. The weights undo it."}
    compare(answer, 1 / kept, hints, "What the activation leaves, times f, should be 1.", near=1e-6)
    return "What the activation takes away, the weights give back."


@exercise("1.6", "a tuple of four numbers", tuple, list, torch.Tensor)
def by_hand(answer: Any) -> str:
    image = torch.tensor([[2.0, 0, 1], [1, 3, 0], [0, 1, 2]]).view(1, 1, 3, 3)
    weight = torch.tensor([[1.0, -1], [0, 2]]).view(1, 1, 2, 2)

    def numbers(
        weight: torch.Tensor = weight, bias: float = -3.0, last: Callable[..., torch.Tensor] = torch.relu
    ) -> tuple[float, ...]:
        return tuple(last(functional.conv2d(image, weight, torch.tensor([bias]))).flatten().tolist())

    hints = {
        numbers(last=torch.clone): "That is the convolution with its bias. What does ReLU do to the negative numbers?",
        numbers(bias=0.0): "The bias is missing: add −3 to each sum, before ReLU.",
        numbers(bias=0.0, last=torch.clone): "Bias and ReLU are still to come.",
        numbers(
            weight.flip(2, 3)
        ): "You have turned the filter round. Here a window and the filter lie on each other as they are.",
        numbers(weight.mT): "You have swapped rows and columns of the filter.",
    }
    rows = answer.flatten().tolist() if isinstance(answer, torch.Tensor) else answer
    flat = tuple(n for row in rows for n in (row if isinstance(row, list | tuple) else [row]))
    compare(flat, numbers(), hints, "Take one window after the other: four products, their sum, the bias, ReLU.")
    return f"A 2×2 max pool would keep the {max(numbers()):g}."


@exercise("1.7", "a letter in quotes", str)
def which_line(answer: Any) -> str:
    hints = {
        "a3c533": "That line is the cause: it makes batch norm use the mean and variance of the batch.",
        "32b412": "That line saves memory and time. It does not change a number.",
        "5df896": "Nothing is random here. Ask what the other 63 photos have to do with it.",
    }
    choice("1.7", answer, "8b91b2", hints)
    return "Batch norm then uses its running averages, and the result no longer depends on the other photos."


@exercise("1.8", "a function of image, weight, bias and padding", Callable)
def conv2d_by_hand(answer: Any) -> str:
    torch.manual_seed(0)
    cases = [(1, 1, 5, 3, 0), (3, 4, 6, 3, 0), (3, 2, 6, 3, 1), (2, 3, 4, 1, 2)]
    for channels, filters, side, kernel_size, padding in cases:
        image = torch.randint(-4, 5, (channels, side, side + 1)).float()
        weight = torch.randint(-4, 5, (filters, channels, kernel_size, kernel_size)).float()
        bias = torch.arange(1.0, filters + 1)
        right = functional.conv2d(image, weight, bias, padding=padding)
        result = attempt(answer, image.clone(), weight.clone(), bias.clone(), padding)
        case = f"With {channels} channel(s), {filters} filter(s) {kernel_size}×{kernel_size} and padding {padding}"
        if not isinstance(result, torch.Tensor):
            raise Wrong(
                f"your function gives a {type(result).__name__}, but a tensor is wanted. Does it end in return?"
            )
        if result.shape != right.shape:
            raise Wrong(f"{case}, your result has the shape {tuple(result.shape)} instead of {tuple(right.shape)}.")
        without_bias = right - bias.view(-1, 1, 1)
        turned = functional.conv2d(image, weight.flip(2, 3), bias, padding=padding)
        one_channel = functional.conv2d(image[:1], weight[:, :1], bias, padding=padding)
        mistakes = [
            (without_bias, "you have left out the bias: one number for each filter."),
            (turned, "you have turned the filter round: window and filter lie on each other as they are."),
            (one_channel, "only the first channel counts: the sum runs over all channels."),
        ]
        if not torch.allclose(result.float(), right, atol=1e-4):
            hints = (words for mistake, words in mistakes if torch.allclose(result.float(), mistake, atol=1e-4))
            raise Wrong(f"{case}, {next(hints, 'the shape is right, but numbers differ from those of F.conv2d.')}")
    return "It gives the numbers of `F.conv2d`, in four cases, also for several channels and with padding."


@exercise("1.9", "a tensor of shape (3, 3)", torch.Tensor)
def diagonal_filter(answer: Any) -> str:
    if answer.shape != (3, 3):
        raise Wrong(f"one filter for one channel has the shape (3, 3), not {tuple(answer.shape)}.")
    weight, edge = answer.detach().float().view(1, 1, 3, 3), torch.ones(9, 9).triu().view(1, 1, 9, 9)
    if not 0 < weight.abs().max() < float("inf"):
        raise Wrong("the weights should be finite numbers, and not all 0.")
    weight = weight / weight.abs().max()
    if (flat := weight.sum().abs()) > 1e-3:
        raise Wrong(f"it answers to a flat area too: the weights add up to {flat:.2g} times the largest, not to 0.")
    one, other = sorted(functional.conv2d(image, weight).abs().max().item() for image in (edge, edge.flip(-1)))
    if other < 1.01 * one or other == 0:
        raise Wrong("it answers as strongly to a diagonal edge as to its mirror image. Lay the zeros on a diagonal.")
    if other < 2 * one:
        raise Wrong(f"it answers {other / one:.2g} times as strongly to one as to its mirror image; make it 2 or more.")
    if one < 1e-3:
        return "It answers to one diagonal edge, and with 0 to its mirror image and to flat areas."
    return f"It answers {other / one:.2g} times as strongly to one as to its mirror image, and with 0 to flat areas."
