"""Right answers, found in other ways than the notebooks' own: ``(answer, a part of the praise, what is given)``.

Two or more where a judge has more than one thing to say of a right answer.
"""

import math
from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional
from wrong_answers import nb03, nb04, nb06


def with_average(cfg, batch_norm=False):
    layers, channels = [], 3
    for v in cfg:
        if isinstance(v, str):
            layers.append(nn.AvgPool2d(2) if v == "A" else nn.MaxPool2d(2))
        else:
            norm = [nn.BatchNorm2d(v)] if batch_norm else []
            layers += [nn.Conv2d(channels, v, 3, padding=1), *norm, nn.ReLU()]
            channels = v
    return nn.Sequential(*layers)


def with_average_and_no_bias(cfg, batch_norm=False):
    """A batch norm behind a convolution takes its bias away, so many write none."""
    layers = with_average(cfg, batch_norm)
    for layer in layers if batch_norm else ():
        if isinstance(layer, nn.Conv2d):
            layer.register_parameter("bias", None)
    return layers


def sized(features, width, num_classes):
    return nn.Sequential(features, nn.Flatten(), nn.Linear(width, num_classes))


def one_step(ask, pixels, labels, epsilon):
    """FGSM: no more of the images may be right than after it, and no fewer are."""
    start = pixels.requires_grad_()
    functional.cross_entropy(ask(start), labels).backward()
    return (start + epsilon * start.grad.sign()).clamp(0, 1)


def middle(width, height):
    cut = abs(width - height) // 2
    return (cut, 0, cut + height, height) if width > height else [0, cut, width, cut + width]


PLAIN = nb04.seen(nb04.SPLIT.images)
BOTH = (PLAIN + nb04.seen(nb04.SPLIT.images.flip(3))) / 2


def mirrored(labels: torch.Tensor) -> dict:
    return {"model": nb04.MODEL, "split": replace(nb04.SPLIT, labels=labels)}


FIRST = nb04.MISTAKES[0]
OF_A_PAIR = (nb04.LABELS[FIRST] == nb04.LABELS) & (nb04.LOGITS.argmax(1) == nb04.LOGITS[FIRST].argmax())
FIVE_SIXTHS = torch.cat([nb06.RIGHT[:100], nb06.RIGHT[100:].roll(1, 1)])

RIGHT = {
    "1.1": [((8, 16, 32, 32), "gives the side"), (torch.zeros(8, 16, 32, 32).shape, "gives the side")],
    "1.2": [(295_168, "one bias")],
    "1.3": [(16, "doubles the distance"), (torch.tensor(16.0), "doubles the distance")],
    "1.4": [(torch.full((1, 1, 2, 2), 0.25), "make a mean")],
    "1.5": [(4, "give back")],
    "1.6": [
        ((5, 0, 0, 4), "keep the 5"),
        (torch.tensor([[5.0, 0], [0, 4]]), "keep the 5"),
        ([[5, 0], [0, 4]], ""),
        (torch.tensor([[[[5.0, 0], [0, 4]]]]), "keep the 5"),
    ],
    "1.7": [("b", "running averages"), (" B", "running averages")],
    "1.8": [(lambda image, weight, bias, padding: functional.conv2d(image, weight, bias, 1, padding), "in four cases")],
    "1.9": [
        (torch.tensor([[0.0, 1, 2], [-1, 0, 1], [-2, -1, 0]]), "with 0 to its mirror image"),
        (torch.tensor([[0.0, 1, 2], [-1, 0, 1], [-2, -1.5, 0.5]]), "times as strongly to one"),
    ],
    "2.1": [("VGG-12", "layers with weights"), (12, "layers with weights")],
    "2.2": [(134_217_728, "four times the weights")],
    "2.3": [(0.179, "112 places")],
    "2.4": [(134, "how large a batch")],
    "2.5": [(with_average, "a new branch"), (with_average_and_no_bias, "a new branch")],
    "2.6": [(sized, "every list and every size")],
    "2.7": [([16, "M", 16, "M", 16, "M", 16, "M", 128], "yours has 1.0 times")],
    "3.1": [(6.908, "minus its logarithm")],
    "3.2": [(220, "That is 2.2 epochs")],
    "3.3": [("c", "adds to the gradients")],
    "3.4": [(lambda step, steps_per_epoch, epochs: min(step + 1, steps_per_epoch) / steps_per_epoch, "rises")],
    "3.5": [(math.log(1 + 9 / math.e), "a second softmax")],
    "3.6": [("6347 8152", "gap and rhythm"), ("6,3,4,7,8,1,5,2", "gap and rhythm")],
    "3.7": [(2.0, "with 0.01 at", nb03.GIVEN)],
    "4.1": [((0.1, 1.0), "all others never")],
    "4.2": [
        (0.67, "67.0%, against 33.5%", nb04.GIVEN),
        (0.6704, "67.0%", nb04.GIVEN),
    ],  # of three images two: the label is first, second, or last
    "4.3": [((nb04.SURE, nb04.UNSURE), "where it is wrong", nb04.GIVEN)],
    "4.4": [
        (BOTH, "It helps", mirrored(BOTH.argmax(1))),
        (BOTH, "It does harm", mirrored(PLAIN.argmax(1))),
        (BOTH, "It changes nothing", mirrored((PLAIN + 9 * BOTH).argmin(1))),
    ],
    "4.5": [(0.3, "0.23 and 0.40")],
    "4.6": [(246_780, "About 247,000")],
    "4.7": [("c", "depends on the company")],
    "4.8": [
        (([FIRST], "only one of them"), "You chose 1 of the", nb04.GIVEN),
        (((FIRST,), "only one of them"), "You chose 1 of the", nb04.GIVEN),
        ((OF_A_PAIR.nonzero().flatten().numpy(), "all there are"), f"{int(OF_A_PAIR.sum())} of the", nb04.GIVEN),
        ((list(OF_A_PAIR.nonzero().flatten()), "all there are"), f"{int(OF_A_PAIR.sum())} of the", nb04.GIVEN),
        ((OF_A_PAIR.nonzero().flatten(), "all there are"), f"{int(OF_A_PAIR.sum())} of the", nb04.GIVEN),
    ],
    "4.9": [(one_step, "Right before: 100%", nb04.ATTACK)],
    "5.1": [(18_874_368, "64 × 3 × 3 products")],
    "5.2": [(1, "after each pool")],
    "5.3": [((500, 1000), "bf16 helps fully"), ([500.0, 1000.0], "bf16 helps fully")],
    "5.4": [(349, "three quarters")],
    "5.5": [(lambda part, factor: factor / (factor - factor * part + part), "only 5 times")],
    "5.6": [((0.8, 100), "Place 1 of 1 on this machine with cifar10")],
    "6.1": [((24, 8, 8), "what the two fifths leave")],
    "6.2": [(3 * 2049, "a few images are enough")],
    "6.3": [("b", "its images are new")],
    "6.4": [(middle, "loses the same at both ends")],
    "6.5": [(0.08, "small differences mean nothing")],
    "6.6": [
        (FIVE_SIXTHS, "83.3% of the test images", nb06.LABELS),
        (
            torch.eye(3),
            "100.0% of the test images",
            {"labels": torch.arange(3), "bar": 1.0},
        ),  # easy images of one's own
    ],
}
