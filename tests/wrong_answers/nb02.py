"""Typical wrong answers to the exercises of notebook 02: ``(answer, a part of the hint)``."""

from torch import nn

from vgg_course import vgg


def only_max(cfg, batch_norm=False):
    return vgg.make_layers(["M" if v == "A" else v for v in cfg], batch_norm)


def only_average(cfg, batch_norm=False):
    layers = only_max(cfg, batch_norm)
    return nn.Sequential(*(nn.AvgPool2d(2) if isinstance(layer, nn.MaxPool2d) else layer for layer in layers))


def filters_of_one_pixel(cfg, batch_norm=False):
    layers, channels = [], 3
    for v in cfg:
        norm = [nn.BatchNorm2d(v)] if batch_norm and v not in ("A", "M") else []
        pools = {"A": [nn.AvgPool2d(2)], "M": [nn.MaxPool2d(2)]}
        layers += pools.get(v) or [nn.Conv2d(channels, v, 1), *norm, nn.ReLU()]
        channels = channels if v in pools else v
    return nn.Sequential(*layers)


def average_of_three(cfg, batch_norm=False):
    layers = only_max(cfg, batch_norm)
    kinds = iter([v for v in cfg if isinstance(v, str)])
    return nn.Sequential(
        *(
            nn.AvgPool2d(3, stride=1) if isinstance(layer, nn.MaxPool2d) and next(kinds) == "A" else layer
            for layer in layers
        )
    )


def without_norm(cfg, batch_norm=False):
    layers, kinds = only_max(cfg), iter([v for v in cfg if isinstance(v, str)])
    return nn.Sequential(
        *(nn.AvgPool2d(2) if isinstance(layer, nn.MaxPool2d) and next(kinds) == "A" else layer for layer in layers)
    )


def as_in_the_paper(features, width, num_classes):
    return vgg.VGG(features, num_classes)


def twice_too_wide(features, width, num_classes):
    model = vgg.VGG(features, num_classes, init_weights=False)
    model.avgpool, model.classifier = nn.Identity(), nn.Linear(2 * width, num_classes)
    return model


def always_ten(features, width, num_classes):
    return nn.Sequential(features, nn.Flatten(), nn.Linear(width, 10))


WRONG = {
    "2.1": [("VGG-9", "These are the convolutions"), ("vgg15", "no weights"), ("custom", "a number behind it")],
    "2.2": [
        (33_554_432, "right for 32 pixels"),
        (134_221_824, "the biases"),
        (32_768, "So many numbers arrive"),
        (5, ""),
    ],
    "2.3": [
        (17.93, "in percent"),
        (0.1196, "two convolutions"),
        (0.0016, "part of the parameters"),
        (0.1808, "linear ones out"),
        (0.5, "Add up"),
    ],
    "2.4": [(135, "round down"), (538, "four bytes"), (147, "for D"), (144, "8 · 10⁹"), (1000, "one image")],
    "2.5": [
        (only_max, "no nn.AvgPool2d"),
        (only_average, "still be a max pool"),
        (average_of_three, "halve the side"),
        (lambda cfg, batch_norm: list(cfg), "an nn.Sequential"),
        (without_norm, "batch_norm=True the layers are"),
        (filters_of_one_pixel, "its convolutions are 3×3"),
    ],
    "2.6": [
        (as_in_the_paper, "still there"),
        (twice_too_wide, "starts at 8"),
        (always_ten, "(2, 5)"),
        (lambda features, width, num_classes: width, "an nn.Module"),
        (lambda width: None, "TypeError"),
    ],
    "2.7": [
        ([32, "M", 64, "M", 128], "receptive field is"),
        ([16, "M", 16, "M", 16, "M", 16, "M", 64], "64 channels"),
        ([256, "M", 256, "M", 256, "M", 256, "M", 256], "too many"),
        ([16, "M"] * 6 + [128], "6 pools"),
        (["M"] * 5 + [128], "a pool without a convolution"),
        ([16, "P", 128], "cfg entry 1"),
    ],
}
