"""A training that is cut off goes on as if nothing had happened: what ``fit(..., checkpoint=file)`` keeps, and how.

A checkpoint holds the weights, the state of the optimizer and its schedule, the random number generator, the position
in the epoch and the history. The batches follow from the recipe's seed, the epoch and the step, so this is all that a
run consists of. ``Checkpoint`` writes it so that no kill, at whatever moment, leaves less than the one before.
"""

import hashlib
import io
import math
import os
import re
import signal
import threading
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from filelock import FileLock, Timeout
from torch import nn

from vgg_course.data import Dataset, Images
from vgg_course.recipes import Recipe

MAGIC = b"vgg_course checkpoint 1\n"  # the first line; the second is the SHA-256 hash of all that follows
MAY_DIFFER = ("device", "precision")  # settings of a recipe that a run may change on its way


def write(file: Path, state: dict[str, Any]) -> None:
    """Put ``state`` into ``file``; what was there becomes ``<file>.previous``. A kill in the middle loses neither.

    Raises ``OSError`` if it cannot be written; the last good one is then still there.
    """
    memory = io.BytesIO()
    torch.save(state, memory)
    data, temporary = memory.getbuffer(), file.with_name(f"{file.name}.tmp")
    try:
        with open(temporary, "wb") as stream:
            stream.write(MAGIC + hashlib.sha256(data).hexdigest().encode() + b"\n")
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())  # on the disk before it takes the place of the good one
        if file.exists():
            os.replace(file, previous(file))
        os.replace(temporary, file)
        if os.name == "posix":  # the new names too
            with suppress(OSError):  # some drives cannot do that with a folder; the file is written all the same
                folder = os.open(file.parent, os.O_RDONLY)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)
    except OSError:
        if not file.exists() and previous(file).exists():
            os.replace(previous(file), file)  # if that fails too, the new one stays, and tells load what has happened
        with suppress(OSError):
            temporary.unlink()
        raise


def read(file: Path) -> dict[str, Any]:
    """The state in ``file``. Nothing in it is executed. Raises ``ValueError`` if it is damaged or of another kind."""
    content = file.read_bytes()
    start = len(MAGIC) + 65
    if not content.startswith(MAGIC):
        kind = "is of another version of" if content.startswith(MAGIC[:-2]) else "is no checkpoint of"
        found = f"{kind} this course" if content else "is empty"
    elif content[len(MAGIC) : start] != hashlib.sha256(content[start:]).hexdigest().encode() + b"\n":
        found = "is damaged: its checksum does not fit"
    else:
        with suppress(Exception), warnings.catch_warnings(action="ignore"):  # torch raises of many kinds for odd bytes
            state = torch.load(io.BytesIO(content[start:]), map_location="cpu", weights_only=True)
            if isinstance(state, dict):
                return state
        found = "holds something else than the state of a training, and was not loaded"
    before = previous(file)
    instead = f"rename {before} to {file.name} to go on from the one before, or " if before.exists() else ""
    raise ValueError(f"the checkpoint {file} {found}: {instead}give another name to start anew")


def _is_whole(file: Path) -> bool:
    """Whether a checkpoint is there and was written to its end."""
    with suppress(OSError, ValueError):
        return bool(read(file))
    return False


def previous(file: Path) -> Path:
    """Where the checkpoint before the last one is."""
    return file.with_name(f"{file.name}.previous")


def lock_for(file: Path, timeout: float = -1) -> FileLock:
    """A lock that ends with its process; a drive without locks tells when it is acquired.

    Then it is ``OSError`` or, of older versions of filelock, ``NotImplementedError``. ``timeout`` is in seconds, -1
    waits for ever. Raises ``OSError`` at once for a file that cannot be made.
    """
    open(file, "a").close()  # FileLock takes a file that cannot be made for one that is locked
    try:  # without locks, newer versions take any file of this name for somebody else's lock, so also the one just made
        return FileLock(file, timeout, fallback_to_soft=False)
    except TypeError:  # an older version, which has no such argument
        return FileLock(file, timeout)


def fingerprint(data: Dataset) -> str:
    """A short name for exactly these images and labels, for training and validation."""

    def digest(split: Images) -> str:
        parts = (split.images.permute(0, 2, 3, 1).contiguous(), split.labels.contiguous())
        return hashlib.sha256(b"".join(hashlib.sha256(p.cpu().numpy().data).digest() for p in parts)).hexdigest()[:12]

    return f"{data.name}, {len(data.train)} images, {digest(data.train)} {digest(data.validation)}"


def differences(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """Field by field, what a checkpoint says of its run, and what this run is."""
    return [
        f"{name} was {old.get(name)!r} and is {new.get(name)!r}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]


def describe(model: nn.Module) -> dict[str, dict[str, object]]:
    """What tells two networks apart: the shapes of their numbers, what learns, and their layers as they print."""
    printed = re.sub(" at 0x[0-9a-f]+", "", str(model), flags=re.IGNORECASE)  # where a function lies in the memory
    return {
        "shapes": {name: tuple(value.shape) for name, value in model.state_dict().items()},
        "learns": {name: "learning" if p.requires_grad else "frozen" for name, p in model.named_parameters()},
        "prints": {f"line {n} of the network": _timeless(line) for n, line in enumerate(printed.splitlines(), 1)},
    }


def _timeless(line: str) -> str:
    """A line of a network as every PyTorch prints it: since 2026 it also tells that a norm has a bias, as most have."""
    return re.sub(r"(Norm\w*\(.*), bias=True", r"\1", line.strip())


class Stateful(Protocol):
    """What a checkpoint can keep and bring back: a network, an optimizer, a schedule, ..."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> object: ...


class Checkpoint:
    """The checkpoint of a run of ``fit``, or, with ``file=None``, none. A context: its lock ends with the process.

    ``parts``, by name, and ``log`` are what changes in a run. It writes after each epoch, every ``minutes``, and when
    Ctrl-C or SIGTERM asks the run to end: then it ends after the step, when all parts agree, and ``KeyboardInterrupt``
    is raised. SIGTERM is passed on when the context ends. Raises ``TypeError`` or ``ValueError`` for arguments that
    make no sense, ``IsADirectoryError`` or ``NotADirectoryError`` for a name that can be no file, and
    ``BlockingIOError`` if another training has the lock.
    """

    def __init__(
        self,
        file: str | Path | None,
        parts: Mapping[str, Stateful],
        recipe: Mapping[str, Any],
        data: Dataset,
        log: Stateful,
        minutes: float,
    ) -> None:
        if isinstance(minutes, bool) or not isinstance(minutes, (int, float)) or not 0 <= minutes < math.inf:
            raise ValueError(f"checkpoint_minutes is the time between two checkpoints, 0 or more, not {minutes!r}")
        if file is not None and not isinstance(file, (str, os.PathLike)):
            raise TypeError(f"checkpoint is the name of a file, not {file!r}")
        self.file = None if file is None else Path(file).expanduser()
        self.parts, self.recipe, self.log, self.seconds = dict(parts), dict(recipe), log, 60 * minutes
        self.asked: int | None = None  # the signal that asked the run to end
        self.handlers: dict[int, Any] = {}  # what the signals did before
        self.lock: FileLock | None = None
        if self.file is None:
            return
        self.data, self.network = fingerprint(data), describe(cast(nn.Module, parts["model"]))
        self.scale = {"mean of the images": tuple(data.train.mean), "std of the images": tuple(data.train.std)}
        try:
            if self.file.is_dir():
                raise IsADirectoryError(f"the checkpoint {self.file} is a folder: give the name of a file in it")
            if not self.file.parent.is_dir():  # on Colab, perhaps, a Drive that was not mounted
                self.file.parent.mkdir(parents=True, exist_ok=True)
                print(f"a new folder for the checkpoint, so this run begins anew: {self.file.parent.resolve()}")
        except IsADirectoryError:
            raise
        except (FileExistsError, NotADirectoryError):
            raise NotADirectoryError(f"{self.file.parent} is a file, so {self.file} cannot be in it") from None
        except OSError as error:
            print(f"no checkpoint can be written to {self.file.parent} ({error.strerror}): training goes on without")
            self.file = None

    def __enter__(self) -> "Checkpoint":
        if self.file is None:
            return self
        try:
            self.lock = lock_for(Path(f"{self.file}.lock"), timeout=0)
            self.lock.acquire()
        except Timeout:
            raise BlockingIOError(
                f"another training is writing to {self.file}: stop it, or give this one another checkpoint "
                "(from the shell: another --record)"
            ) from None
        except (OSError, NotImplementedError):  # a folder that cannot be written to, or a drive without locks
            self.lock = None
        if threading.current_thread() is threading.main_thread():
            for name in (signal.SIGINT, signal.SIGTERM):
                self.handlers[name] = signal.signal(name, self._ask)
        self.saved_at = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for name, handler in self.handlers.items():
            signal.signal(name, handler if handler is not None else signal.SIG_DFL)
        if self.lock:
            self.lock.release()
        if self.asked == signal.SIGTERM and kind in (None, KeyboardInterrupt):  # an error is told first
            signal.raise_signal(signal.SIGTERM)

    def _ask(self, number: int, frame: object) -> None:
        if self.asked:  # a second time: at once
            raise KeyboardInterrupt
        self.asked = number
        print("stopping after this step, to keep it in the checkpoint (once more: at once)")

    def load(self) -> tuple[int, int]:
        """Bring all parts to the state of the checkpoint. The epoch and the step to go on with; (0, 0) without one.

        Raises ``ValueError`` for a file that is damaged, or of another run: with all that is different.
        """
        if self.file is None:
            return 0, 0
        file, before = self.file, previous(self.file)
        if not file.exists() and before.exists():
            if _is_whole(file.with_name(f"{file.name}.tmp")):  # cut off between two renames
                file = before
            else:  # somebody has deleted it
                print(f"{file} is not there, so this run begins anew (rename {before} to {file.name} to go on from it)")
        if not file.exists():
            return 0, 0
        state = read(file)
        self._compare(state)
        for name, part in self.parts.items():
            if state[name]:  # the scaler of a run without fp16 has no state
                part.load_state_dict(state[name])
        self.log.load_state_dict(state["log"])
        torch.set_rng_state(state["rng"])
        if torch.cuda.is_available() and state["cuda_rng"]:
            torch.cuda.set_rng_state_all(state["cuda_rng"][: torch.cuda.device_count()])
        if torch.backends.mps.is_available() and state.get("mps_rng") is not None:
            torch.mps.set_rng_state(state["mps_rng"])
        epoch, step = state["epoch"], state["step"]
        if epoch < self.recipe["epochs"]:
            print(f"going on from {file}: epoch {epoch + 1}, step {step}")
        else:
            print(f"{file} holds the whole run: there is nothing left to learn")
        return epoch, step

    def _compare(self, state: dict[str, Any]) -> None:
        new = dict(self.recipe)
        # A setting that the file does not name came into the course after it, with a default that changes nothing.
        old = {f.name: f.default for f in fields(Recipe) if f.name in new} | state["recipe"]
        if old["epochs"] < new["epochs"]:
            print(
                f"the checkpoint's recipe had {old['epochs']} epochs, this one has {new['epochs']}: the schedule "
                f"{new['schedule']!r} goes on as if there had been {new['epochs']} from the start"
            )
            old["epochs"] = new["epochs"]
        for name in MAY_DIFFER:
            if old.get(name) != new.get(name):
                print(f"{name} was {old.get(name)!r} and is {new.get(name)!r}: the numbers will differ a little")
                old[name] = new.get(name)
        found = differences(old, new) + differences({"data": state["data"]}, {"data": self.data})
        found += differences(state.get("scale", self.scale), self.scale)  # an older file does not tell
        before: dict[str, Any] = {"shapes": {name: tuple(value.shape) for name, value in state["model"].items()}}
        before |= state.get("network", {})
        if "prints" in before:
            before["prints"] = {name: _timeless(line) for name, line in before["prints"].items()}
        for kind, now in self.network.items():
            layers = differences(before.get(kind, now), now)
            found += layers[:3] + ([f"{len(layers) - 3} more layers differ"] if len(layers) > 3 else [])
            if layers:
                break  # that says it
        if found:
            raise ValueError(
                f"the checkpoint {self.file} is of another run: {'; '.join(found)}. Go on with the same settings, or "
                "give another name (or delete the file) to start anew"
            )

    def after(self, epoch: int, step: int, epoch_ends: bool = False) -> None:
        """Called when ``step`` steps of the epoch are done; raises ``KeyboardInterrupt`` if the run is to end."""
        if self.file is None:
            return
        if self.asked or epoch_ends or time.monotonic() - self.saved_at >= self.seconds:
            self._save(self.file, epoch, step)
        if self.asked:
            raise KeyboardInterrupt

    def _save(self, file: Path, epoch: int, step: int) -> None:
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
        state: dict[str, Any] = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"recipe": self.recipe, "data": self.data, "scale": self.scale, "network": self.network}
        state |= {"epoch": epoch, "step": step}
        state |= {"log": self.log.state_dict(), "rng": torch.get_rng_state()}
        state |= {"cuda_rng": cuda, "mps_rng": mps}
        try:
            if not file.parent.is_dir():
                file.parent.mkdir(parents=True)
                print(f"the folder of the checkpoint was gone and is made again: {file.parent.resolve()}")
            write(file, state)
        except OSError as error:
            then = "what came after the one before it is lost" if self.asked else "training goes on"
            print(f"the checkpoint {file} could not be written ({error.strerror or error}): {then}")
        self.saved_at = time.monotonic()
