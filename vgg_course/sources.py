"""Where images come from: the digits sample, CIFAR-10 (downloaded, or in folders), and a folder of your own.

Each source gives pairs of arrays: the images, uint8 ``(N, side, side, 3)``, and their labels ``(N,)``. ``data.py``
makes a ``Dataset`` of them.
"""

import difflib
import hashlib
import os
import re
import struct
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, train_test_split

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# CIFAR-10 as its authors pack it, and as torchvision unpacks it:
ARCHIVE, BATCHES_FOLDER = "cifar-10-python.tar.gz", "cifar-10-batches-py"
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")
SPLIT_SEED = 0  # the same validation images for everybody, in every run
FOLDS = 5  # a folder without splits is dealt into five equal parts: three for training, one each for the other two
SPLIT_NAMES = {
    "train": ("train", "training", "train_set", "training_set"),
    "validation": ("validation", "valid", "val", "validation_set"),
    "test": ("test", "testing", "test_set"),
}


Pair = tuple[np.ndarray, np.ndarray]  # images and labels of a split


def digits() -> list[Pair]:
    """scikit-learn's 1,797 handwritten digits, enlarged from 8x8 to 32x32 and given two colours each: train, test."""
    gray, labels = load_digits(return_X_y=True)
    gray = torch.from_numpy(gray / 16).float().view(-1, 1, 8, 8)
    gray = torch.nn.functional.interpolate(gray, size=(32, 32), mode="bilinear").permute(0, 2, 3, 1).numpy()
    rng = np.random.default_rng(SPLIT_SEED)
    ink, paper = rng.uniform(0.6, 1, (len(gray), 1, 1, 3)), rng.uniform(0, 0.4, (len(gray), 1, 1, 3))
    images = np.round(255 * (gray * ink + (1 - gray) * paper)).astype(np.uint8)
    train, test = train_test_split(np.arange(len(images)), test_size=360, stratify=labels, random_state=SPLIT_SEED)
    return [(images[train], labels[train]), (images[test], labels[test])]


def cifar10(root: Path, verbose: bool) -> list[Pair]:
    """CIFAR-10's training and test images, from where they lie under ``root``, or else downloaded to there."""
    places = (root, root / "cifar10")  # the second: what the lecture's root="./cifar10" has made, moved here
    packed = [place for place in places if (place / BATCHES_FOLDER).is_dir()]
    folders = [root / name for name in ("cifar10-images", "cifar10")]
    unpacked = [folder for folder in folders if (folder / "train").is_dir() or (folder / "test").is_dir()]
    if unpacked and not packed:
        return _cifar10_folders(unpacked[0], CIFAR10_CLASSES, root / "cache", verbose)
    packed += [place for place in places if (place / ARCHIVE).is_file()]
    # Not at the top: it needs torchvision, whose import takes nearly as long as torch's, and nothing else here does.
    from vgg_course import download

    return download.cifar10(packed[0] if packed else root, verbose)


def own_folder(folder: Path, side: int) -> tuple[tuple[str, ...], list[Pair], str]:
    """The classes in ``folder``, its images (train, validation, test), what is not read. See ``data.load_folder``."""
    _check_folder(folder)
    inside = {path.name.lower(): path for path in _folders_in(folder)}
    homes = {
        split: inside[name]
        for split, names in SPLIT_NAMES.items()
        for name in names
        if name in inside and _folders_in(inside[name])  # 'train' may also be a class, beside 'bus'
    }
    if homes and len(homes) == len(inside) and "train" not in homes:
        raise FileNotFoundError(f"{folder} has {' and '.join(inside)}, but no train: that is where a network learns")
    if "train" not in homes:
        homes = {"train": folder}
    classes = tuple(path.name for path in _folders_in(homes["train"]))
    _check_classes(homes["train"], classes)
    pairs = {}
    for split, home in homes.items():
        files = _files_of_classes(home, classes, least=FOLDS if split == "train" and len(homes) < 3 else 1)
        with ThreadPoolExecutor() as pool:
            squares = list(pool.map(lambda path: _square(path, side), [path for path, _ in files]))
        pairs[split] = np.stack(squares), np.array([label for _, label in files])
    if missing := [split for split in ("validation", "test") if split not in pairs]:
        images, labels = pairs["train"]
        dealer = StratifiedKFold(FOLDS, shuffle=True, random_state=SPLIT_SEED)  # the same share of each class
        parts = [chosen for _, chosen in dealer.split(labels, labels)]
        for split in missing:
            chosen = parts.pop()
            pairs[split] = images[chosen], labels[chosen]
        rest = np.sort(np.concatenate(parts))
        pairs["train"] = images[rest], labels[rest]
    return classes, [pairs[split] for split in SPLIT_NAMES], _not_read(folder, homes, classes)


def _not_read(folder: Path, homes: dict[str, Path], classes: tuple[str, ...]) -> str:
    """In words: the files of other kinds in the folders of the classes, and the folders that are nothing to us."""
    inside = [path for home in homes.values() for name in classes for path in _visible(home / name)]
    kinds = [path.suffix.lower() or "without an ending" for path in inside if path.is_file()]
    others = {kind: kinds.count(kind) for kind in sorted({*kinds} - {*IMAGE_ENDINGS})}
    words = [f"{count} {kind} file{'s'[: count != 1]}" for kind, count in others.items()]
    loose = sum(path.is_file() for home in {folder, *homes.values()} for path in _visible(home))
    words += [f"{loose} file{'s'[: loose != 1]} in no folder of a class"] if loose else []
    folders = [path for path in inside if path.is_dir()]
    if folder not in homes.values():
        folders += [path for path in _folders_in(folder) if path not in homes.values()]
    return ", ".join([*words, *(f"the folder {path.relative_to(folder).as_posix()}" for path in folders)])


def is_path(name: object) -> bool:
    """Whether a name can only be meant as a folder: it has a slash, or there is such a folder."""
    return isinstance(name, str) and name != "" and (Path(name).name != name or os.path.isdir(one_level_up(Path(name))))


def one_level_up(path: Path) -> Path:
    """A relative path that is not in the current folder, but in the one above, as seen from notebooks/."""
    return ".." / path if not (path.is_absolute() or os.path.exists(path)) and os.path.isdir(".." / path) else path


def find_root(root: str | Path) -> Path:
    if not isinstance(root, (str, os.PathLike)):
        raise TypeError(f"root is the folder of the data, a text or a Path, not {root!r}")
    root = one_level_up(Path(root).expanduser())
    if root.exists() and not root.is_dir():
        raise NotADirectoryError(f"{root} is a file, but the data needs a folder: give another root")
    return root


def _check_folder(folder: Path) -> None:
    if folder.is_file():
        raise NotADirectoryError(f"{folder} is a file: give the folder that holds one folder of images for each class")
    if not folder.is_dir():
        parent = folder.parent
        names = [path.name for path in _folders_in(parent)] if parent.is_dir() else []
        near = difflib.get_close_matches(folder.name, names, 1)
        hint = f"; did you mean {parent / near[0]}?" if near else "" if names else f"; {parent} holds no folders"
        raise FileNotFoundError(f"there is no folder {folder}{hint}")


def _check_classes(folder: Path, classes: tuple[str, ...]) -> None:
    want = f"make one folder for each class, as in {folder}/cat/*.jpg and {folder}/dog/*.jpg"
    if not classes:
        loose = len(_images_in(folder))
        found = f"{loose} images, but they lie in no folder of a class" if loose else "no folders of classes"
        raise ValueError(f"{folder} holds {found}: {want}")
    if len(classes) == 1:
        inner = _folders_in(folder / classes[0])
        hint = f"give {folder / classes[0]}, which holds {len(inner)} folders" if len(inner) > 1 else want
        raise ValueError(f"{folder} holds a single class, {classes[0]!r}, so there is nothing to tell apart: {hint}")


def _files_of_classes(folder: Path, classes: tuple[str, ...], least: int) -> list[tuple[Path, int]]:
    """``(path, label)`` of the images of all classes, in the order of their names; at least so many of each class."""
    if unknown := [path.name for path in _folders_in(folder) if path.name not in classes]:
        raise ValueError(f"{folder / unknown[0]} is no class that there is for training ({', '.join(classes)})")
    found = []
    for label, name in enumerate(classes):
        if not (folder / name).is_dir():
            raise FileNotFoundError(f"the class folder {folder / name} is missing: each split needs all classes")
        files = _images_in(folder / name)
        if len(files) < least:
            others = {path.suffix.lower() for path in _visible(folder / name) if path.is_file()} - {*IMAGE_ENDINGS}
            hint = f"; read are {' '.join(IMAGE_ENDINGS)}, not {' '.join(sorted(others))}" if others else ""
            why = " (three splits: three images for training, one each for validation and test)" if least > 1 else ""
            raise ValueError(
                f"the class {name!r} has {len(files)} images in {folder / name}, but it needs at least {least}{why}: "
                f"add {least - len(files)} or take the folder away{hint}"
            )
        found += [(path, label) for path in files]
    return found


def _visible(folder: Path) -> list[Path]:
    """What lies in a folder, in the order of the names, without what systems put there (.DS_Store, __MACOSX)."""
    found = [path for path in folder.iterdir() if not path.name.startswith((".", "__"))]
    return sorted(found, key=lambda path: path.name)  # on Windows, paths themselves are sorted with a before B


def _folders_in(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.is_dir()]


def _images_in(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.suffix.lower() in IMAGE_ENDINGS and path.is_file()]


def one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _cifar10_folders(folder: Path, classes: tuple[str, ...], cache: Path, verbose: bool) -> list[Pair]:
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
        files = [file.path for file in os.scandir(folder / name) if file.name.lower().endswith(IMAGE_ENDINGS)]
        files = [path for path in files if not os.path.basename(path).startswith(".")]  # ._1.png, from a Mac
        if not files:
            raise FileNotFoundError(f"{folder / name} holds no images ({', '.join(IMAGE_ENDINGS)}): unpack them again")
        found += [(Path(path), label) for path in files]

    def order(item: tuple[Path, int]) -> tuple[int, int, str]:
        number = re.search(r"\d+", item[0].stem)
        return int(number[0]) if number else 0, item[1], item[0].name

    return sorted(found, key=order)


def _decode(path: Path) -> np.ndarray:
    """An image of CIFAR-10: ``(32, 32, 3)``."""
    with _named(path), Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    if pixels.shape != (32, 32, 3):
        height, width = pixels.shape[:2]
        raise ValueError(f"{path} has {width}x{height} pixels, but CIFAR-10's images have 32x32")
    return pixels


def _square(path: Path, side: int) -> np.ndarray:
    """An image of any size, upright, as ``(side, side, 3)``: its middle square, resized. Transparent becomes white."""
    with _named(path), Image.open(path) as image:
        image.draft("RGB", (2 * side, 2 * side))  # a large JPEG is decoded at a fraction of its size: many times faster
        if image.mode.startswith(("I", "F")):
            raise ValueError("more than 8 bits for a pixel: save it as an ordinary RGB or grey image")
        try:
            image.getexif()  # it says which side is up, and is kept; without its bytes nothing of it is written back,
            image.info.pop("exif", None)  # which fails for entries of odd types
            upright = ImageOps.exif_transpose(image)
        except (struct.error, SyntaxError):  # damaged there, which says nothing of the pixels
            upright = image
        if upright.mode != "RGB":
            upright = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright).convert("RGB")
        return np.asarray(ImageOps.fit(upright, (side, side)))


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors of what is done here name the file."""
    try:
        yield
    except PermissionError:
        raise PermissionError(f"{path} may not be read: change its permissions") from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path} has too many pixels: save it smaller ({one_line(error)})") from None
    except (OSError, SyntaxError, ValueError, EOFError, RuntimeError) as error:
        raise ValueError(f"{path} is no readable image: delete it or get it again ({one_line(error)})") from None


def _save_cache(file: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write to a temporary file and rename it: nobody ever sees half a cache. Older ones of this folder go."""
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(exist_ok=True)
        with open(temporary, "wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]
        os.replace(temporary, file)
        for old in file.parent.glob(f"{file.stem[:-16]}{16 * '?'}.npz"):
            if old != file:
                old.unlink()
    except OSError as error:  # the images are in memory all the same
        with suppress(OSError):
            temporary.unlink()
        print(f"the decoded images could not be kept in {file.parent} ({one_line(error)}): next time is slow again")
