"""VGG: the network of Simonyan and Zisserman (2014, arXiv:1409.1556), built from a list of numbers.

Read this file first. It has three parts: ``cfg`` (the networks as lists), ``make_layers`` (a list becomes layers)
and ``VGG`` (those layers plus a classifier). The functions ``vgg11`` to ``vgg19_bn`` put them together. Names and the
order of the modules are those of the lecture and of torchvision, so weights fit in both directions; arguments are the
lecture's (torchvision says ``weights=`` today where it said ``pretrained=True``).
"""

import difflib
import hashlib
import numbers
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

__all__ = ["VGG", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn"]

# Weights trained on ImageNet. The hexadecimal digits in each name are the start of the file's SHA-256 hash.
model_urls = {
    "vgg11": "https://download.pytorch.org/models/vgg11-8a719046.pth",
    "vgg13": "https://download.pytorch.org/models/vgg13-19584684.pth",
    "vgg16": "https://download.pytorch.org/models/vgg16-397923af.pth",
    "vgg19": "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
    "vgg11_bn": "https://download.pytorch.org/models/vgg11_bn-6002323d.pth",
    "vgg13_bn": "https://download.pytorch.org/models/vgg13_bn-abd245e5.pth",
    "vgg16_bn": "https://download.pytorch.org/models/vgg16_bn-6c64b313.pth",
    "vgg19_bn": "https://download.pytorch.org/models/vgg19_bn-c79401a0.pth",
}


class _Configurations(dict[str, list[int | str]]):
    """A dict that says what it has when it is asked for what it has not."""

    def __missing__(self, name: object) -> None:
        near = difflib.get_close_matches(str(name).removeprefix("vgg").upper(), [k.upper() for k in self], 1)
        hint = next((f"; did you mean {k!r}?" for k in self if near and k.upper() == near[0]), "")
        raise KeyError(f"there is no cfg {name!r}; there are {', '.join(self)}{hint}")


# A number is a 3x3 convolution with that many output channels, 'M' is a 2x2 max pool. A, B, D and E are the columns
# of table 1 in the paper; 'custom' and 'cifar10' are the lecture's, the latter for 32x32 images; 'quick', 'fast',
# 'best' and 'wide' are ours for 32x32 images: few channels where the image is large, for there they cost most.
cfg: dict[str, list[int | str]] = _Configurations({
    "A": [64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"],
    "B": [64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"],
    "D": [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"],
    "E": [64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512, 512, 512, 512, "M"],
    "custom": [64, 64, 64, "M", 128, 128, 128, "M", 256, 256, 256, "M"],
    "cifar10": [32, 32, "M", 64, 64, 128, 128, 128, "M", 256, 256, 256, 512, 512, 512, "M"],
    "quick": [32, "M", 32, "M", 64, 64, "M", 128],
    "fast": [24, 24, "M", 24, 128, "M", 128, 256, "M", 256],
    "best": [24, 64, "M", 64, 256, "M", 256, 240, "M", 240],
    "wide": [24, 96, "M", 96, 384, "M", 384, 384, "M", 384, 384],
})  # fmt: skip


def make_layers(
    cfg: Sequence[int | str],
    batch_norm: bool = False,
    *,
    pool_first: bool = False,
    patch: int | None = None,
    gelu: bool = False,
) -> nn.Sequential:
    """Turn a list into layers: ``(N, 3, H, W)`` float in, ``(N, C, H / 2**pools, W / 2**pools)`` out.

    A number becomes a 3x3 convolution with padding 1 and that many output channels ``C``, then batch norm if asked
    for, then ReLU in place. ``'M'`` becomes a 2x2 max pool with stride 2. Three options for training fast:

    * ``pool_first=True`` puts a pool right behind the convolution before it: the norm and the ReLU then have a quarter
      of the pixels to do. ReLU gives the same maximum either way; a norm only in ``eval()`` with a positive scale, for
      in training it takes mean and spread from the maxima. GELU keeps the order of the values above -0.75 only.
    * ``patch=2`` makes the first convolution 2x2, without padding and norm: it sees whole patches of the image and
      nothing else. For ``speed.whiten``, which sets its weights. A 32x32 image becomes 31x31.
    * ``gelu=True`` takes GELU in place of ReLU (Hendrycks and Gimpel, 2016): ``x`` times the part of a normal
      distribution that lies below ``x``. It is smooth, so a little gradient comes through a bit below 0 as well.

    Raises ``ValueError`` for a list without a convolution and for an entry that is neither a positive whole number
    nor ``'M'``; the message names the entry and its position. Source: the lecture, part 1, and the paper's table 1.

    >>> make_layers([64, "M", 128, "M"])(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 128, 8, 8])
    """
    _check_cfg(cfg)
    if patch is not None and not (isinstance(patch, int) and patch >= 1):
        raise ValueError(f"patch is the side of the first convolution's patches in pixels, such as 2, not {patch!r}")
    layers: list[nn.Module] = []
    in_channels = 3
    conv2d: nn.Conv2d | None = None  # the last one so far
    for position, v in enumerate(cfg):
        if isinstance(v, str):  # 'M'
            pool = nn.MaxPool2d(kernel_size=2, stride=2)
            if pool_first and conv2d is not None and cfg[position - 1] != "M":
                layers.insert(layers.index(conv2d) + 1, pool)
            else:
                layers += [pool]
        else:
            if patch is not None and conv2d is None:
                conv2d = nn.Conv2d(in_channels, v, kernel_size=patch)
                layers += [conv2d, nn.GELU() if gelu else nn.ReLU(inplace=True)]
            else:
                conv2d = nn.Conv2d(in_channels, v, kernel_size=3, padding=1)
                norm = [nn.BatchNorm2d(v)] if batch_norm else []
                layers += [conv2d, *norm, nn.GELU() if gelu else nn.ReLU(inplace=True)]
            in_channels = v
    return nn.Sequential(*layers)


def _check_cfg(entries: Sequence[int | str]) -> None:
    rule = "each entry is a number of channels (a whole number from 1 up) or 'M' for a max pool"
    if isinstance(entries, str) or not isinstance(entries, Sequence):
        near = [name for name in cfg if isinstance(entries, str) and entries.lower() == name.lower()]
        hint = f": did you mean cfg[{near[0]!r}]?" if near else f"; {rule}"
        raise ValueError(f"make_layers takes a list such as [64, 'M', 128, 'M'], not {entries!r}{hint}")
    for position, entry in enumerate(entries):
        whole = isinstance(entry, numbers.Integral) and not isinstance(entry, bool) and 0 < entry < 2**31
        if not whole and not (isinstance(entry, str) and entry == "M"):
            raise ValueError(f"cfg entry {position} is {entry!r}, but {rule}")
    if all(entry == "M" for entry in entries):
        raise ValueError(f"the cfg {list(entries)!r} has no convolution: add at least one number of channels")


class VGG(nn.Module):
    """``features``, then ``avgpool``, then ``classifier``: ``(N, 3, H, W)`` to logits ``(N, num_classes)``.

    With the default arguments this is the network of the paper: the features of a 224x224 image are 512 maps of 7x7,
    and three linear layers classify them. Pooling to 7x7 lets other sizes through as well, but it is wasteful for
    small images: at 32x32 the features are 1x1, and each value is copied 49 times. For those, size the head:

    * ``input_size=32``: no pooling; the first linear layer fits the features of a 32x32 image exactly.
    * ``global_pool=True``: average each map to one number; fits images of every size. ``"max"``: its largest value.
    * ``hidden=(4096, 4096)``: the widths of the hidden linear layers; ``()`` for none.
    * ``dropout=0.5``: the part of the hidden values that dropout sets to zero while training.

    Raises ``ValueError`` for head arguments that make no sense, and in the forward pass for an input or features that
    do not fit. Source: the lecture, part 1; the head for small images answers the question that its part 1 leaves open.

    >>> model = VGG(make_layers(cfg["quick"]), num_classes=10, global_pool=True, hidden=())
    >>> model(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        features: nn.Module,
        num_classes: int = 1000,
        init_weights: bool = True,
        *,
        input_size: int | None = None,
        global_pool: bool | str = False,
        hidden: Sequence[int] = (4096, 4096),
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if not isinstance(features, nn.Module):
            raise TypeError(f"features are the layers that make_layers(cfg) gives, not {features!r}")
        convolutions = [m for m in features.modules() if isinstance(m, nn.Conv2d)]
        if not convolutions and (global_pool or input_size is not None):
            raise ValueError("the features have no convolution, so the head cannot be sized: use make_layers(cfg)")
        hidden = hidden if isinstance(hidden, Sequence) else (hidden,)
        for name, count in (("num_classes", num_classes), *(("a width in hidden", width) for width in hidden)):
            if not isinstance(count, numbers.Integral) or isinstance(count, bool) or not 0 < count < 2**31:
                raise ValueError(f"{name} is {count!r}, but it must be a whole number from 1 up")
        if not isinstance(dropout, (int, float)) or not 0 <= dropout <= 1:
            raise ValueError(f"dropout is {dropout!r}, but it must be a number from 0 to 1")
        self.features = features
        if global_pool not in (True, False, "max"):
            raise ValueError(f"global_pool is True (the mean of each map), 'max' or False, not {global_pool!r}")
        if input_size is not None and global_pool:
            raise ValueError(f"give input_size={input_size} or global_pool=True, not both: each sizes the head")
        if input_size is not None:
            self.avgpool: nn.Module = nn.Identity()
            width = self._features_of_a_square(input_size)
        elif global_pool:
            self.avgpool = nn.AdaptiveMaxPool2d((1, 1)) if global_pool == "max" else nn.AdaptiveAvgPool2d((1, 1))
            width = convolutions[-1].out_channels
        else:
            self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
            width = 512 * 7 * 7
        layers: list[nn.Module] = []
        for units in hidden:
            layers += [nn.Linear(width, units), nn.ReLU(True), nn.Dropout(dropout)]
            width = units
        self.classifier = nn.Sequential(*layers, nn.Linear(width, num_classes))
        if init_weights:
            self._initialize_weights()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float images ``(N, 3, H, W)`` to logits ``(N, num_classes)``."""
        self._check_input(x)
        x = self.features(x)
        x = self.avgpool(x)
        x = torch.flatten(x, 1)
        head = next((m for m in self.classifier.modules() if isinstance(m, nn.Linear)), None)
        if head is not None and x.shape[1] != head.in_features:
            raise ValueError(
                f"the features give {x.shape[1]} numbers an image, but the classifier takes {head.in_features}: "
                "build the network with VGG(features, ..., input_size=<side of your images>) or global_pool=True"
            )
        logits: torch.Tensor = self.classifier(x)
        return logits

    def _initialize_weights(self) -> None:
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
                if m.bias is not None:
                    nn.init.constant_(m.bias, 0)
            elif isinstance(m, nn.BatchNorm2d):
                nn.init.constant_(m.weight, 1)
                nn.init.constant_(m.bias, 0)
            elif isinstance(m, nn.Linear):
                nn.init.normal_(m.weight, 0, 0.01)
                nn.init.constant_(m.bias, 0)

    def _check_input(self, x: torch.Tensor) -> None:
        """Refuse an input that the layers cannot take, before a layer fails with words of its own."""
        if not isinstance(x, torch.Tensor):
            hint = ": for a picture, torchvision's pil_to_tensor(picture)[None], then data.train.normalize of that"
            raise TypeError(f"VGG takes a tensor (N, 3, H, W), not {type(x).__name__}{hint}")
        first = next((m for m in self.features.modules() if isinstance(m, nn.Conv2d)), None)
        channels = first.in_channels if first else None
        pools = (m for m in self.features.modules() if isinstance(m, nn.MaxPool2d) and not m.ceil_mode)
        halvings = sum(pool.kernel_size == pool.stride in (2, (2, 2)) for pool in pools)
        if x.dim() != 4:
            hint = "; add the batch dimension with x.unsqueeze(0)" if x.dim() == 3 else ""
            raise ValueError(f"VGG takes a batch (N, {channels}, H, W), but the input has shape {tuple(x.shape)}{hint}")
        if channels is not None and x.shape[1] != channels:
            hint = "; the channels come second: x.permute(0, 3, 1, 2)" if x.shape[3] == channels else ""
            raise ValueError(f"VGG takes {channels} channels, but the input {tuple(x.shape)} has {x.shape[1]}{hint}")
        if first is not None:
            self._check_kind(x, first.weight)
        border = first.kernel_size[0] - 1 if first and first.padding == (0, 0) else 0  # what it cuts off
        side = min(x.shape[2:])
        if side < 2**halvings + border:
            raise ValueError(
                f"{side} pixels allow {max(side - border, 1).bit_length() - 1} halvings; this cfg has {halvings}: "
                f"take out a pool or use images of at least {2**halvings + border} pixels"
            )

    @staticmethod
    def _check_kind(x: torch.Tensor, weight: torch.Tensor) -> None:
        """Refuse another type of number, or another device, than the weights have."""
        if x.device != weight.device:
            raise ValueError(
                f"the input is on {x.device}, the network on {weight.device}: x.to({str(weight.device)!r})"
            )
        mixed = x.device.type != "meta" and torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64
        if not x.is_floating_point() or (x.dtype != weight.dtype and not mixed):
            hint = "normalise it: data.train.normalize(x)" if x.dtype == torch.uint8 else f"x.to({weight.dtype})"
            raise ValueError(f"the input is {x.dtype}, the network's weights are {weight.dtype}: {hint}")

    def _features_of_a_square(self, side: int) -> int:
        """How many numbers the features of one ``side x side`` image are: run one through and count."""
        if not isinstance(side, int) or side < 1:
            raise ValueError(f"input_size is the side of the images in pixels, for instance 32, not {side!r}")
        weight = next(m for m in self.features.modules() if isinstance(m, nn.Conv2d)).weight
        image = torch.zeros(1, weight.shape[1], side, side, dtype=weight.dtype, device=weight.device)
        self._check_input(image)
        modes = [(module, module.training) for module in self.features.modules()]
        self.features.eval()  # a batch norm in train mode would learn from this black image
        with torch.no_grad():
            numbers_per_image: int = self.features(image).numel()
        for module, training in modes:
            module.training = training
        return numbers_per_image


def _vgg(name: str, letter: str, batch_norm: bool, pretrained: bool, progress: bool, **kwargs: Any) -> VGG:
    if pretrained:
        head = {k: v for k, v in kwargs.items() if k not in ("init_weights", "dropout")}
        if head and head != {"num_classes": 1000}:
            raise ValueError(
                f"the pretrained weights of {name} have 1000 classes and the standard head, but you gave {head}: "
                f"load them first, model = {name}(pretrained=True), then replace the last layer, "
                "model.classifier[6] = torch.nn.Linear(4096, num_classes)"
            )
        kwargs["init_weights"] = False  # they would be overwritten at once
    model = VGG(make_layers(cfg[letter], batch_norm=batch_norm), **kwargs)
    if pretrained:
        model.load_state_dict(_download(model_urls[name], progress))
    return model


def _download(url: str, progress: bool) -> dict[str, torch.Tensor]:
    """The weights at ``url``, from torch.hub's cache or the network, never without a look at their hash."""
    from vgg_course.certificates import trust_known_authorities  # not at the top: the network itself needs only torch

    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    by_hand = f"download {url} with a browser and put the file into {file.parent}"
    if file.exists():  # torch.hub checks what it downloads, but not what is there already
        with open(file, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if (wanted := re.search(r"-([0-9a-f]+)\.", file.name)) and not digest.startswith(wanted[1]):
            raise OSError(f"{file} is damaged or cut short (its hash does not fit its name): delete it, then {by_hand}")
    try:
        trust_known_authorities()
        return torch.hub.load_state_dict_from_url(
            url, progress=progress, map_location="cpu", check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError) as error:  # no network, no such file, or a hash that does not fit
        raise OSError(f"cannot download the weights ({error}): try again, or on another machine {by_hand}") from None


def vgg11(pretrained: bool = False, progress: bool = True, **kwargs: Any) -> VGG:
    """VGG with 11 layers that have weights (configuration A): ``(N, 3, 224, 224)`` to logits ``(N, 1000)``.

    ``pretrained=True`` loads the ImageNet weights (``progress`` shows a bar); ``kwargs`` go to :class:`VGG`.
    Raises ``ValueError`` for a head that the weights do not fit, ``OSError`` if they cannot be had or are damaged.
    """
    return _vgg("vgg11", "A", False, pretrained, progress, **kwargs)


def vgg11_bn(pretrained: bool = False, progress: bool = True, **kwargs: Any) -> VGG:
    """VGG with 11 layers that have weights (configuration A), with batch norm; see :func:`vgg11`."""
    return _vgg("vgg11_bn", "A", True, pretrained, progress, **kwargs)


def vgg13(pretrained: bool = False, progress: bool = True, **kwargs: Any) -> VGG:
    """VGG with 13 layers that have weights (configuration B); see :func:`vgg11`."""
    return _vgg("vgg13", "B", False, pretrained, progress, **kwargs)


def vgg13_bn(pretrained: bool = False, progress: bool = True, **kwargs: Any) -> VGG:
    """VGG with 13 layers that have weights (configuration B), with batch norm; see :func:`vgg11`."""
    return _vgg("vgg13_bn", "B", True, pretrained, progress, **kwargs)


def vgg16(pretrained: bool = False, progress: bool = True, **kwargs: Any) -> VGG:
    """VGG with 16 layers that have weights (configuration D); see :func:`vgg11`."""
    return _vgg("vgg16", "D", False, pretrained, progress, **kwargs)


def vgg16_bn(pretrained: bool = False, progress: bool = True, **kwargs: Any) -> VGG:
    """VGG with 16 layers that have weights (configuration D), with batch norm; see :func:`vgg11`."""
    return _vgg("vgg16_bn", "D", True, pretrained, progress, **kwargs)


def vgg19(pretrained: bool = False, progress: bool = True, **kwargs: Any) -> VGG:
    """VGG with 19 layers that have weights (configuration E); see :func:`vgg11`."""
    return _vgg("vgg19", "E", False, pretrained, progress, **kwargs)


def vgg19_bn(pretrained: bool = False, progress: bool = True, **kwargs: Any) -> VGG:
    """VGG with 19 layers that have weights (configuration E), with batch norm; see :func:`vgg11`."""
    return _vgg("vgg19_bn", "E", True, pretrained, progress, **kwargs)
