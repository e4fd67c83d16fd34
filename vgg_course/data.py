"""From a name to images in memory, and from those to batches.

``load_dataset`` gives three splits of uint8 images, which ``sources.py`` finds and reads; ``batches`` turns a split
into normalised, shuffled, augmented float tensors. A whole data set lies in memory (CIFAR-10: 184 MB), so there is no
loader, no worker process and no file access while a network trains.
"""

import difflib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import train_test_split

from vgg_course import sources
from vgg_course.sources import CIFAR10_CLASSES, SPLIT_SEED, Pair

# Mean and standard deviation of each channel over the 50,000 training images, for pixels from 0 to 1. A test
# computes them again where the images are at hand.
CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)
DIGITS_CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
IMAGE_ENDINGS = sources.IMAGE_ENDINGS
NAMES = ("auto", "cifar10", "digits")  # every other name of a data set is a folder
Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # mean and standard deviation of each channel
SHIFT = 4  # pixels: how far augmentation moves an image, at most


@dataclass(frozen=True, eq=False)
class Images:
    """Images with labels: ``images`` uint8 ``(N, 3, side, side)``, ``labels`` int64 ``(N,)``, positions in ``classes``.

    ``mean`` and ``std`` (per channel, for pixels from 0 to 1) are those of the training images, in every split.
    """

    images: torch.Tensor
    labels: torch.Tensor
    classes: tuple[str, ...]
    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raise ``TypeError`` or ``ValueError`` for what are no images with labels: here, not in a training."""
        for name in ("images", "labels"):
            if not isinstance(getattr(self, name), torch.Tensor):
                raise TypeError(
                    f"{name} must be a tensor, not {type(getattr(self, name)).__name__}: torch.as_tensor(...)"
                )
        shape, classes = tuple(self.images.shape), len(self.classes)
        if self.images.dtype != torch.uint8:
            raise ValueError(
                f"images are bytes (torch.uint8), 0 to 255, not {self.images.dtype}; batches normalises them. "
                "Those from 0 to 1: (255 * images).round().to(torch.uint8)"
            )
        if len(shape) != 4 or shape[1] != 3:
            hint = ": images.permute(0, 3, 1, 2) brings the channels to their place" if shape[-1:] == (3,) else ""
            raise ValueError(f"images have the shape (N, 3, H, W), not {shape}{hint}")
        if self.labels.dtype != torch.int64 or self.labels.dim() != 1 or len(self.labels) != shape[0]:
            given = f"{self.labels.dtype} {tuple(self.labels.shape)}"
            raise ValueError(f"labels are one torch.int64 for each of the {shape[0]} images, not {given}")
        known = len(self.labels) and not self.labels.is_meta
        low, high = (int(self.labels.min()), int(self.labels.max())) if known else (0, 0)
        if low < 0 or high >= classes:
            raise ValueError(f"labels go from 0 to {classes - 1} for {classes} classes, but these from {low} to {high}")
        for name in ("mean", "std"):  # also of NumPy's or torch's numbers: a checkpoint takes Python's own only
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
        right = all(0 <= m <= 1 for m in self.mean) and all(0 < s <= 1 for s in self.std)
        if len(self.mean) != 3 or len(self.std) != 3 or not right:
            raise ValueError(
                f"mean and std need 3 numbers each, std above 0, not {self.mean} and {self.std}; they are of "
                "pixels from 0 to 1: divide those of bytes by 255"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: torch.Tensor | slice) -> "Images":
        """The images at these positions, in this order."""
        return replace(self, images=self.images[indices], labels=self.labels[indices])

    def to(self, device: torch.device | str) -> "Images":
        """The same images on another device."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """``(N, 3, H, W)``, 0 to 255, to new float32 of that shape: each channel minus its mean, over its std.

        Raises ``ValueError`` for another shape, and for floats from 0 to 1.
        """
        if not isinstance(images, torch.Tensor) or images.dim() != 4 or images.shape[1] != 3:
            given = tuple(images.shape) if isinstance(images, torch.Tensor) else type(images).__name__
            raise ValueError(
                f"normalize takes a tensor (N, 3, H, W), not {given}: image[None] makes one image a batch of one, "
                "permute(0, 3, 1, 2) brings the channels to their place, expand(-1, 3, -1, -1) makes grey ones RGB"
            )
        if images.is_floating_point() and images.numel() and 0 < images.max() <= 1:  # ToTensor's, say
            raise ValueError("normalize takes pixels from 0 to 255, but these go from 0 to 1: give 255 * images")
        height, width = images.shape[2:]
        factors = torch.tensor([self.mean, self.std]).to(images.device, non_blocking=images.is_cuda)  # without waiting
        mean, std = factors.mul(255).repeat(1, height * width)
        rows = images.permute(0, 2, 3, 1).flatten(1)  # one row for each image: 7 times as fast as 4 dimensions
        rows = rows.to(torch.float32, copy=True)
        rows.sub_(mean).div_(std)
        return rows.view(-1, height, width, images.shape[1]).permute(0, 3, 1, 2)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits: learn from ``train``, choose with ``validation``, and look at ``test`` once, at the end."""

    train: Images
    validation: Images
    test: Images
    name: str

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; label ``i`` means ``classes[i]``."""
        return self.train.classes

    def keep_for_validation(self, count: int) -> "Dataset":
        """The same data, of whose validation images only ``count`` stay: the others join the training images.

        Those that stay are the first, or, where they lie class by class as in a folder, some of each class.

        For the last run, when all settings are chosen and there is nothing more to validate than that it works.
        Raises ``ValueError`` for a ``count`` that is not from 1 to the number of validation images.
        """
        if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= len(self.validation):
            raise ValueError(f"count is the number of images to keep, 1 to {len(self.validation)}, not {count!r}")
        order = torch.arange(len(self.validation))
        if (self.validation.labels.diff() >= 0).all():  # a folder's images lie class by class: some of each stay
            order = torch.from_numpy(np.random.default_rng(SPLIT_SEED).permutation(len(order)))
            labels, place = self.validation.labels.cpu()[order], torch.zeros(len(order))  # an image's among its class
            for label in labels.unique():
                place[labels == label] = torch.arange((labels == label).sum(), dtype=torch.float32)
            order = order[place.argsort(stable=True)]
        staying, joining = (self.validation.subset(part) for part in (order[:count], order[count:]))
        pixels = [part.images.permute(0, 2, 3, 1) for part in (self.train, joining)]  # as they are stored
        images, labels = torch.cat(pixels).permute(0, 3, 1, 2), torch.cat([self.train.labels, joining.labels])
        train = replace(self.train, images=images, labels=labels)
        return replace(self, train=train, validation=staying)


def load_dataset(name: str | Path = "auto", root: str | Path = "data", verbose: bool = True) -> Dataset:
    """Load ``"cifar10"``, the offline ``"digits"`` sample, a folder of yours, or, with ``"auto"``, the best to be had.

    ``root`` is the folder of the data. Notebooks run in ``notebooks/``, so a relative ``root`` that is not in the
    current folder is also looked for one level up. CIFAR-10 is taken from ``root/cifar-10-batches-py`` (torchvision's
    folder; also in ``root/cifar10``), from the original archive in ``root``, or from image folders
    ``root/cifar10/{train,test}/<class>/`` or ``root/cifar10-images/...``, or else downloaded. With ``"auto"`` the
    environment variable ``VGG_COURSE_DATASET`` chooses, and CIFAR-10 that cannot be downloaded is replaced by the
    digits; asked for by name, it never is. One printed line says which it is. Any other ``name`` is the folder of your
    own images, see :func:`load_folder`.

    Raises ``ValueError`` for an unknown name or unusable images, ``OSError`` for files that cannot be had, read or
    written; each message names the file and the next step.
    """
    wanted = os.environ.get("VGG_COURSE_DATASET") or "auto" if name == "auto" else name
    if name != "auto" and (isinstance(name, Path) or (name not in NAMES and sources.is_path(name))):
        return load_folder(name, verbose=verbose)
    if wanted not in NAMES:
        source = "VGG_COURSE_DATASET" if name == "auto" else "the name of the data set"
        near = difflib.get_close_matches(str(wanted).lower().replace("-", ""), NAMES, 1)
        hint = f"; did you mean {near[0]!r}?" if near else "" if name == "auto" else " (or a folder that is there)"
        raise ValueError(f"{source} is {wanted!r}, but it must be 'auto', 'cifar10' or 'digits'{hint}")
    if wanted == "digits":
        dataset, remark = _digits(), "for CIFAR-10: load_dataset('cifar10')"
    else:
        try:
            root = sources.find_root(root)
            dataset, remark = _cifar10(root, verbose), "for the small offline sample: load_dataset('digits')"
        except PermissionError as error:
            if error.filename is None:  # in words of the course
                raise
            raise PermissionError(f"{error.filename} may not be read: ask its owner (chmod -R a+rX)") from None
        except ConnectionError as error:
            if wanted == "cifar10":
                raise
            dataset, remark = _digits(), f"no CIFAR-10: {error}"
    if verbose:
        print(f"{_sizes(dataset)} images ({remark})")
    return dataset


def load_folder(folder: str | Path, side: int = 32, verbose: bool = True) -> Dataset:
    """Load your own images: ``folder/<class>/*.jpg`` (or png, bmp, webp, gif, tif), or ``folder/train/<class>/*.jpg``.

    The classes are the folders in it, sorted by name. A split that has no folder (``train``, ``validation``, ``test``;
    ``Training``, ``val``, ``Testing`` and their like do as well) is taken from the images for training: a fifth of
    each class, the same ones each time. Each image becomes a square of ``side`` pixels, RGB: upright as the camera held
    it, the middle cut out, then resized. ``mean`` and ``std`` are those of the training images. Hidden files are left
    out, and a line says what else is not read. A relative folder is also looked for one level up.

    Raises ``FileNotFoundError`` for a folder that is not there, another ``OSError`` for what may not be read or is a
    file, ``ValueError`` for fewer than two classes, too few images in a class, a damaged image, a channel that is the
    same everywhere, or a ``side`` below 8; the messages name the file.
    """
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(f"folder is the folder of your images, a text or a Path, not {folder!r}")
    if not isinstance(side, int) or isinstance(side, bool) or side < 8:
        raise ValueError(f"side is the width and height of the images in pixels, 8 or more, not {side!r}")
    folder = sources.one_level_up(Path(folder).expanduser())
    classes, pairs, not_read = sources.own_folder(folder, side)
    name, (mean, std) = folder.resolve().name, _statistics(pairs[0][0])
    if min(std) == 0:
        raise ValueError(
            f"a colour channel has the same value in all training images of {folder}, so it cannot be normalised (std "
            f"{std}): save the images as grey ones, or add some that differ"
        )
    train, validation, test = (_images(pair, classes, name, mean, std) for pair in pairs)
    dataset = Dataset(train, validation, test, name)
    if verbose:
        print(f"{_sizes(dataset)} images of {len(classes)} classes, {side}x{side} pixels")
        if not_read:
            print(f"not read: {not_read}")
    return dataset


def memory_format(device: torch.device) -> torch.memory_format:
    """The fast order of images and filters: channels_last, but not on mps, the GPU of Macs.

    There, from torch 2.6 to a fix of 2026 (pytorch#175189), batch norm has wrong gradients in this order, or fails.
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def batches(
    split: Images,
    batch_size: int,
    *,
    shuffle: bool = False,
    augment: bool = False,
    seed: int = 0,
    epoch: int = 0,
    first_step: int = 0,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield ``(images, labels)``: float32 ``(B, 3, H, W)``, normalised; int64 ``(B,)``.

    The images are in the order of :func:`memory_format`: channels_last, but on Macs. Every image comes once;
    the last batch may be smaller. What a batch holds follows from ``(seed, epoch, step)`` alone, so ``first_step``
    starts in the middle with exactly the batches that would have followed. ``augment`` flips half of the images and
    shifts each by up to 4 pixels, filling the edge with its reflection.

    Raises ``ValueError`` for an empty split or a batch size below 1.
    """
    if not isinstance(split, Images):
        hint = ": take one of its splits, such as data.train" if isinstance(split, Dataset) else ""
        raise TypeError(f"batches takes a split, an Images, not {type(split).__name__}{hint}")
    for name, value in {"seed": seed, "epoch": epoch, "first_step": first_step}.items():
        if not isinstance(value, int) or value < 0:
            raise ValueError(f"{name} is {value!r}, but it must be a whole number from 0 up")
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        raise ValueError(f"batch_size is the number of images in a batch, at least 1, not {batch_size!r}")
    if len(split) == 0:
        raise ValueError(f"the split of {split.name} holds no images")
    if augment and min(split.images.shape[2:]) <= SHIFT:
        raise ValueError(f"augment moves images by up to {SHIFT} pixels, but a side has {min(split.images.shape[2:])}")
    order = torch.arange(len(split))
    if shuffle:
        order = torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(len(split)))
    order = order.to(split.images.device)  # once: each copy makes the CPU wait for a GPU
    for step in range(first_step, -(-len(split) // batch_size)):
        chosen = order[step * batch_size : (step + 1) * batch_size]
        if augment:
            images = _flip_and_shift(split.images, chosen, np.random.default_rng([seed, epoch, step]))
        else:
            images = split.images.permute(0, 2, 3, 1).index_select(0, chosen).permute(0, 3, 1, 2)  # as they are stored
        images = split.normalize(images).contiguous(memory_format=memory_format(images.device))
        yield images, split.labels[chosen]


def _flip_and_shift(images: torch.Tensor, chosen: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """The chosen images, each flipped or not and moved: work out where every pixel comes from, then fetch them all."""
    count, (channels, height, width) = len(chosen), images.shape[1:]

    def sources(size: int, flip: np.ndarray | bool) -> torch.Tensor:  # (count, size): which row or column to take
        position = np.arange(size) + rng.integers(-SHIFT, SHIFT + 1, (count, 1))
        position = np.abs(position)  # -1 becomes 1: the reflection at the first pixel
        position = np.where(position >= size, 2 * (size - 1) - position, position)  # and at the last one
        found, cuda = torch.from_numpy(np.where(flip, size - 1 - position, position)), images.device.type == "cuda"
        # From pinned memory a copy to the GPU does not make the CPU wait.
        return (found.pin_memory() if cuda else found).to(images.device, non_blocking=cuda)

    rows = sources(height, False)
    columns = sources(width, rng.random((count, 1)) < 0.5)
    pixels = images.permute(0, 2, 3, 1).reshape(-1, channels)  # a view: the images are stored in channels_last order
    index = chosen[:, None, None] * (height * width) + rows[:, :, None] * width + columns[:, None, :]
    return pixels.index_select(0, index.flatten()).view(count, height, width, channels).permute(0, 3, 1, 2)


def _digits() -> Dataset:
    train, test = sources.digits()
    return _split("digits", train, test, 180, DIGITS_CLASSES)


def _cifar10(root: Path, verbose: bool) -> Dataset:
    train, test = sources.cifar10(root, verbose)
    if verbose and (sizes := (len(train[1]), len(test[1]))) != (50_000, 10_000):
        print(f"not all of CIFAR-10 is there: {sizes[0]:,} and {sizes[1]:,} images in place of 50,000 and 10,000")
    return _split("cifar10", train, test, 5000, CIFAR10_CLASSES, (CIFAR10_MEAN, CIFAR10_STD))


def _split(
    name: str,
    train: Pair,
    test: Pair,
    validation_size: int,
    classes: tuple[str, ...],
    statistics: Statistics | None = None,
) -> Dataset:
    """Build a Dataset from images (N, H, W, 3) with labels; take validation out of training."""
    if len(train[1]) <= validation_size:
        raise ValueError(
            f"{name} has {len(train[1]):,} training images, too few to take {validation_size:,} for validation: unpack "
            "them again. (For images of your own: load_dataset('path/to/folder'))"
        )
    mean, std = statistics or _statistics(train[0])
    parts = train_test_split(
        np.arange(len(train[1])), test_size=validation_size, stratify=train[1], random_state=SPLIT_SEED
    )
    kept, held_out = ((train[0][chosen], train[1][chosen]) for chosen in map(np.sort, parts))
    splits = [_images(pair, classes, name, mean, std) for pair in (kept, held_out, test)]
    return Dataset(splits[0], splits[1], splits[2], name)


def _statistics(images: np.ndarray) -> Statistics:
    """From how often each channel has each value: all pixels as floats would need 16 times the memory."""
    counts = np.zeros((3, 256), np.int64)
    for image in images:
        for channel in range(3):
            counts[channel] += np.bincount(image[..., channel].ravel(), minlength=256)
    values, total = np.arange(256), counts.sum(1)
    mean = counts @ values / total
    std = np.sqrt((counts * (values - mean[:, None]) ** 2).sum(1) / total)
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())


def _images(pair: Pair, classes: tuple[str, ...], name: str, mean: tuple[float, ...], std: tuple[float, ...]) -> Images:
    pixels = torch.from_numpy(np.ascontiguousarray(pair[0])).permute(0, 3, 1, 2)  # stays channels_last
    return Images(pixels, torch.from_numpy(pair[1].astype(np.int64)), classes, name, mean, std)


def _sizes(dataset: Dataset) -> str:
    train, validation, test = (len(split) for split in (dataset.train, dataset.validation, dataset.test))
    return f"{dataset.name}: {train:,} training, {validation:,} validation, {test:,} test"
