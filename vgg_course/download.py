"""CIFAR-10 by way of torchvision: its download, made safe, and reading what it has unpacked."""

import errno
import http.client
import os
import shutil
import socket
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import check_integrity

from vgg_course.certificates import trust_known_authorities
from vgg_course.checkpoint import lock_for
from vgg_course.sources import Pair, one_line


def cifar10(root: Path, verbose: bool) -> list[Pair]:
    """CIFAR-10's training and test images from ``root/cifar-10-batches-py``, downloaded to there if they are not there.

    Raises ``ConnectionError`` if they cannot be had, ``OSError`` if they are damaged.
    """
    folder, archive = root / CIFAR10.base_folder, root / CIFAR10.filename
    if not folder.is_dir():
        if archive.is_file() and not check_integrity(archive, CIFAR10.tgz_md5):
            raise ConnectionError(f"{archive} is damaged, or not all there yet: delete it or get it again")
        _download(root, verbose)
    try:
        pairs = [CIFAR10(root, train=train) for train in (True, False)]
    except PermissionError:  # nothing is damaged: load_dataset says whom to ask
        raise
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        raise OSError(f"{folder} is damaged: delete it and load again ({one_line(error)})") from None
    return [(pair.data, np.array(pair.targets)) for pair in pairs]


def _download(root: Path, verbose: bool) -> None:
    """torchvision's download with its hash check. Raises ``ConnectionError`` if it cannot be had, or not be kept."""
    archive = root / CIFAR10.filename  # perhaps somebody has brought it
    ways = f"or unpack an archive of the images to {root / 'cifar10'}/train/<class>/ and test/<class>/"
    try:
        # torchvision sets no timeout: a silent server would hang the notebook. And once the hash is right, it unpacks
        # without the filter that Python 3.12 and 3.13 advise.
        with _socket_timeout(20), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Python 3.14 will", DeprecationWarning)
            if not archive.is_file():
                trust_known_authorities()
                urllib.request.urlopen(CIFAR10.url).close()  # an early answer, before any folder is made
            root.mkdir(parents=True, exist_ok=True)
            with _one_at_a_time(root / "cifar10.lock"):
                if not (root / CIFAR10.base_folder).is_dir():
                    if verbose and archive.is_file():
                        print(f"unpacking {archive}, once")
                    elif verbose:
                        print(f"downloading CIFAR-10 (170 MB) to {root}: some minutes, once")
                    _download_to(root)
    except (OSError, RuntimeError, EOFError, http.client.HTTPException) as error:
        number = getattr(error, "errno", None)
        if number in (errno.EEXIST, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS):
            reason = f"cannot write to the data folder {root}: give a root that you own ({one_line(error)})"
            raise ConnectionError(reason) from None
        if number in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):  # Windows knows no quota
            raise ConnectionError(f"the disk is full: CIFAR-10 needs 350 MB at {root}") from None
        raise ConnectionError(f"{CIFAR10.url} cannot be had ({one_line(error)}): try again, {ways}") from None


def _download_to(root: Path) -> None:
    """Into a folder beside it first: a process that does not ask for the lock sees all of the data or none of it."""
    part = root / "cifar10-download"
    try:
        if (archive := root / CIFAR10.filename).is_file():  # with it, torchvision downloads nothing
            part.mkdir(exist_ok=True)
            shutil.copyfile(archive, part / CIFAR10.filename)
        CIFAR10(part, train=True, download=True)
        os.replace(part / CIFAR10.base_folder, root / CIFAR10.base_folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def _one_at_a_time(file: Path) -> Iterator[None]:
    """torchrun starts several processes at once: one of them downloads, and the others wait for it."""
    lock = lock_for(file)
    with suppress(OSError, NotImplementedError):  # a drive without locks: as if there was nobody else
        lock.acquire()
    try:
        yield
    finally:
        with suppress(OSError):
            file.unlink()
        lock.release()


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
