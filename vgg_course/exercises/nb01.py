"""The judges of notebook 01."""

import torch
from torch import nn
from torch.nn import functional

from vgg_course.exercises import NUMBER, Wrong, compare, exercise


@exercise("1.1", "a tuple of four numbers", tuple, list, torch.Size)
def shape(answer):
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
def parameters(answer):
    layer = nn.Conv2d(128, 256, kernel_size=3)
    weights, biases = layer.weight.numel(), layer.bias.numel()
    hints = {
        weights: "These are the weights. Each filter has one number more.",
        weights + 128: "There is one bias for each filter, not for each input channel.",
        9 * 128 + 1: "That is one filter. How many are there?",
        9 * 256: "Each filter looks at all 128 input channels.",
    }
    compare(answer, weights + biases, hints, "How many numbers has one filter? Then multiply by the number of filters.")
    return "Each filter has 9 weights for each input channel, and one bias."


@exercise("1.4", "a tensor of shape (1, 1, 2, 2)", torch.Tensor)
def average_pool(answer):
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
def factor(answer):
    kept = 1 / 4
    hints = {2: "That is ReLU's factor. It makes up for a half.", kept: "That is what is left. The weights undo it."}
    compare(answer, 1 / kept, hints, "What the activation leaves, times f, should be 1.", near=1e-6)
    return "What the activation takes away, the weights give back."
