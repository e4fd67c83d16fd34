"""From a name to images in memory, and from those to batches.

``load_dataset`` gives three splits of uint8 images; ``batches`` turns a split into normalised, shuffled, augmented
float tensors. A whole data set lies in memory (CIFAR-10: 184 MB), so there is no loader, no worker process and no
file access while a network trains.
"""

import hashlib
import os
import re
import socket
import urllib.request
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torchvision.datasets import CIFAR10

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# Mean and standard deviation of each channel over the 50,000 training images, for pixels from 0 to 1. A test
# computes them again where the images are at hand.
CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)
DIGITS_CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
SPLIT_SEED = 0  # the same validation images for everybody, in every run
SHIFT = 4  # pixels: how far augmentation moves an image, at most


@dataclass(frozen=True, eq=False)
class Images:
    """Images with labels: ``images`` uint8 ``(N, 3, 32, 32)``, ``labels`` int64 ``(N,)``, positions in ``classes``.

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
                f"images are bytes (torch.uint8), 0 to 255, not {self.images.dtype}; batches normalises them"
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
        if len(self.mean) != 3 or len(self.std) != 3 or not all(value > 0 for value in self.std):
            raise ValueError(f"mean and std need 3 numbers each, std above 0, not {self.mean} and {self.std}")

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: torch.Tensor | slice) -> "Images":
        """The images at these positions, in this order."""
        return replace(self, images=self.images[indices], labels=self.labels[indices])

    def to(self, device: torch.device | str) -> "Images":
        """The same images on another device."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 ``(N, 3, H, W)`` to float32 of the same shape: each channel minus its mean, over its std."""
        height, width = images.shape[2:]
        mean = torch.tensor(self.mean, device=images.device).mul(255).repeat(height * width)
        std = torch.tensor(self.std, device=images.device).mul(255).repeat(height * width)
        rows = images.permute(0, 2, 3, 1).flatten(1).float()  # one row for each image: 7 times as fast as 4 dimensions
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


def load_dataset(name: str = "auto", root: str | Path = "data", verbose: bool = True) -> Dataset:
    """Load ``"cifar10"``, the offline ``"digits"`` sample, or, with ``"auto"``, the best that can be had.

    ``root`` is the folder of the data. Notebooks run in ``notebooks/``, so a relative ``root`` that is not in the
    current folder is also looked for one level up. CIFAR-10 is taken from ``root/cifar-10-batches-py`` (torchvision's
    folder), or from image folders ``root/cifar10/{train,test}/<class>/`` or ``root/cifar10-images/...``, or else
    downloaded. With ``"auto"`` the environment variable ``VGG_COURSE_DATASET`` chooses, and CIFAR-10 that cannot be
    downloaded is replaced by the digits; asked for by name, it never is. One printed line says which it is.

    Raises ``ValueError`` for an unknown name or unusable images, ``OSError`` for files that cannot be had, read or
    written; each message names the file and the next step.
    """
    wanted = os.environ.get("VGG_COURSE_DATASET") or "auto" if name == "auto" else name
    if wanted not in ("auto", "cifar10", "digits"):
        source = "VGG_COURSE_DATASET" if name == "auto" else "the name of the data set"
        raise ValueError(f"{source} is {wanted!r}, but it must be 'auto', 'cifar10' or 'digits'")
    if wanted == "digits":
        dataset, remark = _digits(), "for CIFAR-10: load_dataset('cifar10')"
    else:
        root = _find_root(root)
        try:
            dataset, remark = _cifar10(root, verbose), "for the small offline sample: load_dataset('digits')"
        except ConnectionError as error:
            if wanted == "cifar10":
                raise
            dataset, remark = _digits(), f"no CIFAR-10: {error}"
    if verbose:
        sizes = f"{len(dataset.train):,} training, {len(dataset.validation):,} validation, {len(dataset.test):,} test"
        print(f"{dataset.name}: {sizes} images ({remark})")
    return dataset


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
    """Yield ``(images, labels)``: float32 ``(B, 3, H, W)``, normalised, in channels_last order; int64 ``(B,)``.

    Every image comes once; the last batch may be smaller. What a batch holds follows from ``(seed, epoch, step)``
    alone, so ``first_step`` starts in the middle with exactly the batches that would have followed. ``augment`` flips
    half of the images and shifts each by up to 4 pixels, filling the edge with its reflection.

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
    order = torch.arange(len(split))
    if shuffle:
        order = torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(len(split)))
    for step in range(first_step, -(-len(split) // batch_size)):
        chosen = order[step * batch_size : (step + 1) * batch_size].to(split.images.device)
        if augment:
            images = _flip_and_shift(split.images, chosen, np.random.default_rng([seed, epoch, step]))
        else:
            images = split.images.permute(0, 2, 3, 1).index_select(0, chosen).permute(0, 3, 1, 2)  # as they are stored
        yield split.normalize(images), split.labels[chosen]


def _flip_and_shift(images: torch.Tensor, chosen: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """The chosen images, each flipped or not and moved: work out where every pixel comes from, then fetch them all."""
    count, (channels, height, width) = len(chosen), images.shape[1:]

    def sources(size: int, flip: np.ndarray | bool) -> torch.Tensor:  # (count, size): which row or column to take
        position = np.arange(size) + rng.integers(-SHIFT, SHIFT + 1, (count, 1))
        position = np.abs(position)  # -1 becomes 1: the reflection at the first pixel
        position = np.where(position >= size, 2 * (size - 1) - position, position)  # and at the last one
        return torch.from_numpy(np.where(flip, size - 1 - position, position)).to(images.device)

    rows = sources(height, False)
    columns = sources(width, rng.random((count, 1)) < 0.5)
    pixels = images.permute(0, 2, 3, 1).reshape(-1, channels)  # a view: the images are stored in channels_last order
    index = chosen[:, None, None] * (height * width) + rows[:, :, None] * width + columns[:, None, :]
    return pixels.index_select(0, index.flatten()).view(count, height, width, channels).permute(0, 3, 1, 2)


def _find_root(root: str | Path) -> Path:
    if not isinstance(root, (str, os.PathLike)):
        raise TypeError(f"root is the folder of the data, a text or a Path, not {root!r}")
    root = Path(root).expanduser()
    if not root.is_absolute() and not root.exists() and (".." / root).is_dir():
        root = ".." / root
    if root.exists() and not root.is_dir():
        raise NotADirectoryError(f"{root} is a file, but the data needs a folder: give another root")
    return root


def _split(name: str, train: tuple, test: tuple, validation_size: int, classes: tuple, mean=None, std=None) -> Dataset:
    """Build a Dataset from two pairs of arrays, images (N, H, W, 3) and labels; take validation out of training."""
    (train_images, train_labels), test_pair = train, test
    if mean is None:
        pixels = train_images.reshape(-1, 3) / 255
        mean, std = tuple(pixels.mean(0).tolist()), tuple(pixels.std(0).tolist())
    kept, held_out = train_test_split(
        np.arange(len(train_labels)), test_size=validation_size, stratify=train_labels, random_state=SPLIT_SEED
    )

    def images(pair: tuple, chosen: np.ndarray | slice = slice(None)) -> Images:
        pixels = torch.from_numpy(np.ascontiguousarray(pair[0][chosen])).permute(0, 3, 1, 2)  # stays channels_last
        return Images(pixels, torch.from_numpy(pair[1][chosen].astype(np.int64)), classes, name, mean, std)

    return Dataset(images(train, np.sort(kept)), images(train, np.sort(held_out)), images(test_pair), name)


def _digits() -> Dataset:
    """scikit-learn's 1,797 handwritten digits, enlarged from 8x8 to 32x32 and given two colours each."""
    gray, labels = load_digits(return_X_y=True)
    gray = torch.from_numpy(gray / 16).float().view(-1, 1, 8, 8)
    gray = torch.nn.functional.interpolate(gray, size=(32, 32), mode="bilinear").permute(0, 2, 3, 1).numpy()
    rng = np.random.default_rng(SPLIT_SEED)
    ink, paper = rng.uniform(0.6, 1, (len(gray), 1, 1, 3)), rng.uniform(0, 0.4, (len(gray), 1, 1, 3))
    images = np.round(255 * (gray * ink + (1 - gray) * paper)).astype(np.uint8)
    train, test = train_test_split(np.arange(len(images)), test_size=360, stratify=labels, random_state=SPLIT_SEED)
    return _split("digits", (images[train], labels[train]), (images[test], labels[test]), 180, DIGITS_CLASSES)


def _cifar10(root: Path, verbose: bool) -> Dataset:
    batches_folder = root / CIFAR10.base_folder
    folder = next((root / n for n in ("cifar10-images", "cifar10") if (root / n).is_dir()), None)
    if batches_folder.is_dir() or folder is None:
        if not batches_folder.is_dir():
            _download_cifar10(root, verbose)
        try:
            pairs = [CIFAR10(root, train=train) for train in (True, False)]
        except (RuntimeError, OSError, EOFError, ValueError) as error:
            raise OSError(f"{batches_folder} is damaged: delete it and load again ({_one_line(error)})") from None
        train, test = [(pair.data, np.array(pair.targets)) for pair in pairs]
    else:
        train, test = _image_folder(folder, CIFAR10_CLASSES, root / "cache", verbose)
    return _split("cifar10", train, test, 5000, CIFAR10_CLASSES, CIFAR10_MEAN, CIFAR10_STD)


def _download_cifar10(root: Path, verbose: bool) -> None:
    """torchvision's download with its hash check. Raises ``ConnectionError`` where there is no way to the server."""
    ways = f"or unpack an archive of the images to {root / 'cifar10'}/train/<class>/ and test/<class>/"
    try:
        with _socket_timeout(20):  # torchvision sets none: a silent server would hang the notebook
            urllib.request.urlopen(CIFAR10.url).close()  # an early answer, before any folder is made
            if verbose:
                print(f"downloading CIFAR-10 (170 MB) to {root}: some minutes, once")
            root.mkdir(parents=True, exist_ok=True)
            CIFAR10(root, train=True, download=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise OSError(f"cannot write to the data folder {root}: give a root that you own ({error})") from None
    except (OSError, RuntimeError, EOFError) as error:
        if getattr(error, "errno", None) == 28:
            raise OSError(f"the disk is full: CIFAR-10 needs 350 MB at {root}") from None
        raise ConnectionError(f"{CIFAR10.url} cannot be had ({_one_line(error)}): try again, {ways}") from None


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _image_folder(folder: Path, classes: tuple[str, ...], cache: Path, verbose: bool) -> list[tuple]:
    """Read ``folder/{train,test}/<class>/*`` into ``[(images (N, 32, 32, 3) uint8, labels), ...]``, with a cache.

    Decoding 60,000 files takes half a minute, so the pixels are kept as one file. Its name is a fingerprint of the
    names, sizes and times of all files read: a changed folder is read again.
    """
    files = {split: _list_images(folder / split, classes) for split in ("train", "test")}
    fingerprint = hashlib.sha256(str(folder.resolve()).encode())
    for path, _ in files["train"] + files["test"]:
        status = os.stat(path)
        fingerprint.update(f"{path.relative_to(folder)} {status.st_size} {status.st_mtime_ns}\n".encode())
    cached = cache / f"{folder.name}-{fingerprint.hexdigest()[:16]}.npz"
    try:
        with open(cached, "rb") as stream, np.load(stream) as arrays:
            return [(arrays[f"{split}_images"], arrays[f"{split}_labels"]) for split in files]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # not there, or damaged: read the images
    if verbose:
        print(f"reading {sum(map(len, files.values())):,} images from {folder}, once")
    arrays = {}
    for split, pairs in files.items():
        with ThreadPoolExecutor() as pool:
            arrays[f"{split}_images"] = np.stack(list(pool.map(_decode, [path for path, _ in pairs])))
        arrays[f"{split}_labels"] = np.array([label for _, label in pairs])
    _save_cache(cached, arrays)
    return [(arrays[f"{split}_images"], arrays[f"{split}_labels"]) for split in files]


def _list_images(folder: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
    """``(path, label)`` of all images, ordered by the number in their names, as the original data is."""
    found = []
    for label, name in enumerate(classes):
        if not (folder / name).is_dir():
            raise FileNotFoundError(f"the class folder {folder / name} is missing: unpack the images again")
        files = [entry.path for entry in os.scandir(folder / name) if entry.name.lower().endswith(IMAGE_ENDINGS)]
        if not files:
            raise FileNotFoundError(f"{folder / name} holds no images ({', '.join(IMAGE_ENDINGS)}): unpack them again")
        found += [(Path(path), label) for path in files]

    def order(item: tuple[Path, int]) -> tuple:
        number = re.search(r"\d+", item[0].stem)
        return int(number[0]) if number else 0, item[1], item[0].name

    return sorted(found, key=order)


def _decode(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except PermissionError:
        raise PermissionError(f"{path} may not be read: change its permissions") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is no readable image: delete it or get it again ({_one_line(error)})") from None
    if pixels.shape != (32, 32, 3):
        height, width = pixels.shape[:2]
        raise ValueError(f"{path} has {width}x{height} pixels, but CIFAR-10's images have 32x32")
    return pixels


def _save_cache(file: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write to a temporary file and rename it: nobody ever sees half a cache. Older ones of this folder go."""
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(exist_ok=True)
        with open(temporary, "wb") as stream:
            np.savez(stream, **arrays)
        os.replace(temporary, file)
        for old in file.parent.glob(f"{file.stem[:-16]}{16 * '?'}.npz"):
            if old != file:
                old.unlink()
    except OSError as error:  # the images are in memory all the same
        with suppress(OSError):
            temporary.unlink()
        print(f"the decoded images could not be kept in {file.parent} ({_one_line(error)}): next time is slow again")
