"""Named runs: what to train with which recipe, and what such runs left behind (records and weights).

A record is a small JSON file in ``data/runs/`` that says what was trained, on what, where, with which command, and
how it went. ``python -m vgg_course.runs quick`` trains one and writes its record: the figures in the notebooks come
from these files.
"""

import argparse
import ast
import io
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from vgg_course.checkpoint import previous
from vgg_course.data import Dataset, Images, load_dataset
from vgg_course.distributed import is_first
from vgg_course.evaluation import accuracy, predict
from vgg_course.speed import start_as_identity, whiten
from vgg_course.tracking import LossTracker
from vgg_course.training import BEST, FAST, LECTURE, QUICK, WIDE, History, Recipe, Tracker, fit
from vgg_course.vgg import VGG, cfg, make_layers

PACKAGE = Path(__file__).parent
CHECKOUT_RECORDS = PACKAGE.parent / "data" / "runs"
RECORDS = CHECKOUT_RECORDS if CHECKOUT_RECORDS.is_dir() else PACKAGE / "runs"  # the latter in an installed package
WEIGHTS = PACKAGE / "weights"


@dataclass(frozen=True)
class Run:
    """A network and the recipe that trains it; ``head`` are keyword arguments of :class:`VGG`.

    ``layers`` are those of :func:`make_layers`; with ``"patch"`` the first layer is whitened for the training
    images. With ``identity`` the other layers start with filters that pass their input on. With ``views`` above 1 the
    trained network is tested on so many views of each image. With ``validation`` only so many images are held out,
    and the other validation images are learned from too: for a settled recipe.
    """

    recipe: Recipe
    cfg: Sequence[int | str]
    batch_norm: bool = True
    head: dict[str, Any] = field(default_factory=lambda: {"global_pool": True, "hidden": ()})
    layers: dict[str, Any] = field(default_factory=dict)
    identity: bool = False
    views: int = 1
    validation: int | None = None

    def build(self, num_classes: int = 10, train: Images | None = None) -> VGG:
        """The network with fresh weights, the same ones for the same seed of the recipe; whitened for ``train``."""
        torch.manual_seed(self.recipe.seed)
        features = make_layers(self.cfg, batch_norm=self.batch_norm, **self.layers)
        model = VGG(features, num_classes=num_classes, **self.head)
        if self.layers.get("patch") and train is not None:
            whiten(model, train)
        if self.identity:
            start_as_identity(model)
        return model

    def split(self, data: Dataset) -> Dataset:
        """``data`` with no more validation images than the run holds out: see ``validation``."""
        if self.validation is None or self.validation >= len(data.validation):
            return data
        return data.keep_for_validation(self.validation)


QUICK_NETWORK: dict[str, Any] = {
    "head": {"global_pool": "max", "hidden": ()},
    "layers": {"pool_first": True, "patch": 3},
}
FAST_NETWORK: dict[str, Any] = {
    **QUICK_NETWORK,
    "layers": {"pool_first": True, "patch": 2, "gelu": True},
    "identity": True,
    "validation": 500,  # the recipe is settled: nearly all images are for learning
}
CURED = replace(FAST, epochs=2, lr=QUICK.lr, bias_lr=None, small_part=0.0)
RUNS = {
    "lecture": Run(LECTURE, cfg["cifar10"], False, {"input_size": 32}),
    "lecture_per_batch": Run(replace(LECTURE, schedule="step_per_batch"), cfg["cifar10"], False, {"input_size": 32}),
    # The lecture's network with two of our ideas, batch norm and our recipe; its head takes images of 32 pixels only.
    "lecture_cured": Run(CURED, cfg["cifar10"], True, {"input_size": 32}),
    "quick": Run(QUICK, cfg["quick"], **QUICK_NETWORK),
    "digits": Run(replace(QUICK, epochs=5, batch_size=50), cfg["quick"], **QUICK_NETWORK),  # few images: small steps
    "fast": Run(FAST, cfg["fast"], **FAST_NETWORK, views=2),
    "best": Run(BEST, cfg["best"], **FAST_NETWORK, views=6),
    "wide": Run(WIDE, cfg["wide"], **FAST_NETWORK, views=6),
}


def load_record(name: str) -> dict[str, Any]:
    """The record of a run, as :func:`train` makes it. Raises ``FileNotFoundError`` with the names there are."""
    file = RECORDS / f"{name}.json"
    if not file.exists():
        known = ", ".join(sorted(path.stem for path in RECORDS.glob("*.json")))
        raise FileNotFoundError(f"there is no record {file.name}; there are: {known}")
    record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return record


def load_trained(name: str = "fast") -> VGG:
    """A network of ours with its trained weights, in ``eval()`` mode; ``vgg_course/weights/README.md`` describes them.

    Raises ``FileNotFoundError`` with the names there are.
    """
    file = WEIGHTS / f"{name}.pt"
    if not file.exists():
        known = ", ".join(sorted(path.stem for path in WEIGHTS.glob("*.pt")))
        raise FileNotFoundError(f"there are no weights {file.name}; there are: {known}")
    saved = torch.load(file, map_location="cpu", weights_only=True)
    features = make_layers(saved["cfg"], batch_norm=saved["batch_norm"], **saved["layers"])
    model = VGG(features, saved["num_classes"], **saved["head"])
    model.load_state_dict(saved["state_dict"])  # stored as float16, computed with as float32
    return model.eval()


def write_whole(file: Path, content: bytes) -> None:
    """Put ``content`` into ``file``, all of it or nothing: on a full disk what was there before stays there.

    Raises ``OSError`` if it cannot be written.
    """
    if file.exists() and not file.is_file():  # such as /dev/null, which no file must replace
        file.write_bytes(content)
        return
    temporary = file.with_name(f"{file.name}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, file)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def save_weights(model: VGG, run: Run, file: str | Path) -> None:
    """Write the weights in half precision, with all that is needed to build the network again."""
    state = {k: (v.half() if v.is_floating_point() else v).cpu() for k, v in model.state_dict().items()}
    network = {"cfg": list(run.cfg), "batch_norm": run.batch_norm, "head": dict(run.head), "layers": dict(run.layers)}
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    memory = io.BytesIO()
    torch.save({**network, "num_classes": model.classifier[-1].out_features, "state_dict": state}, memory)
    write_whole(file, memory.getvalue())


@contextmanager
def _too_large_is_told() -> Iterator[None]:
    """Say what to do where a GPU's memory does not hold a batch: ``ValueError``."""
    try:
        yield
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        raise ValueError(
            f"the GPU's memory is too small ({str(error).partition('. ')[0]}): take a smaller batch_size (--set), and "
            "another --record if a checkpoint was written, which goes on with its own batch_size only"
        ) from None


def train(
    name: str,
    dataset: str = "cifar10",
    tracker: Tracker | None = None,
    checkpoint: Path | None = None,
    **changes: Any,
) -> tuple[VGG, dict[str, Any]]:
    """Train a named run, its recipe with ``changes``; returns the network and the record of the run.

    With ``checkpoint``, a file, a run that was cut off goes on: see :func:`vgg_course.training.fit`. The test accuracy
    of one that is stopped by hand is ``None``.
    """
    if name not in RUNS:
        raise ValueError(f"there is no run {name!r}: choose one of {', '.join(RUNS)}")
    if unknown := changes.keys() - {f.name for f in fields(Recipe)}:
        raise ValueError(f"a recipe has no {', '.join(sorted(unknown))}; it has {', '.join(Recipe.__annotations__)}")
    run = replace(RUNS[name], recipe=replace(RUNS[name].recipe, **changes))
    data = run.split(load_dataset(dataset, verbose=is_first()))
    started = time.perf_counter()
    model = run.build(len(data.classes), data.train)
    built = time.perf_counter()
    with _too_large_is_told():
        history = fit(model, data, run.recipe, tracker, checkpoint=checkpoint)
    fitted = time.perf_counter()
    precision, test_accuracy = run.recipe.resolve_precision(), None
    if not history.interrupted:  # the test images are looked at once, at the end
        logits = predict(model, data.test, precision=precision, views=run.views)
        test_accuracy = round(accuracy(logits, data.test.labels), 4)
    seconds = built - started + sum(history.seconds) + time.perf_counter() - fitted  # of all parts, if it was cut off
    return model, {
        "name": name,
        "dataset": data.name,
        "cfg": list(run.cfg),
        "recipe": asdict(run.recipe),
        "precision": precision,
        "seed": run.recipe.seed,
        "training_images": len(data.train),
        "seconds": round(seconds, 1),
        "test_accuracy": test_accuracy,
        "views": run.views,
        "machine": f"{_processor()}, {torch.get_num_threads()} threads, {next(model.parameters()).device.type}",
        "torch": torch.__version__,
        "history": _rounded(history),
    }


def _processor() -> str:
    """The name of the processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _rounded(history: History) -> dict[str, Any]:
    return {
        name: [float(f"{value:.4g}") for value in values] if isinstance(values, list) else values
        for name, values in asdict(history).items()
    }


def _setting(text: str) -> tuple[str, object]:
    """``"lr=0.1"`` as a name of the recipe and its value. Raises ``ValueError`` for anything else."""
    name, sign, value = text.partition("=")
    known = [f.name for f in fields(Recipe)]
    if not sign or name not in known:
        raise ValueError(f"--set {text}: give a setting of the recipe and its value, such as lr=0.1; known: {known}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):  # a word such as bf16
        return name, value


def main(arguments: Sequence[str] | None = None) -> None:
    """Train a named run from the shell. Cut off, by Ctrl-C or anything else, it goes on with the same command."""
    parser = argparse.ArgumentParser(
        prog="python -m vgg_course.runs", description="Train a named run, write its record."
    )
    parser.add_argument("name", choices=list(RUNS))
    parser.add_argument("--dataset", default="cifar10", choices=["auto", "cifar10", "digits"])
    parser.add_argument("--epochs", type=int, help="fewer or more epochs than the recipe has")
    parser.add_argument("--seed", type=int)
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="another setting of the recipe"
    )
    parser.add_argument("--record", type=Path, help="where to write the record (default: data/runs/NAME.json)")
    parser.add_argument("--weights", type=Path, help="where to write the weights, in half precision (default: nowhere)")
    options = parser.parse_args(arguments)
    changes = {k: getattr(options, k) for k in ("epochs", "seed") if getattr(options, k) is not None}
    file = options.record or RECORDS / f"{options.name}.json"
    checkpoint = RECORDS / f"{options.name}.checkpoint"
    try:
        if file.is_file() or not file.exists():  # beside the record, for several side by side; not beside /dev/null
            checkpoint = file.with_name(f"{file.name.removesuffix('.json')}.checkpoint")
        changes |= dict(map(_setting, options.set))
        for result in filter(None, (file, options.weights)):
            if result.is_dir():  # what is wrong with it is told before the training
                raise IsADirectoryError(f"{result} is a folder: give the name of a file in it")
            result.parent.mkdir(parents=True, exist_ok=True)
            if result.is_file() or not result.exists():  # not so /dev/null, in whose folder only root may write
                tempfile.TemporaryFile(dir=result.parent).close()
        with LossTracker(options.name) if is_first() else nullcontext() as tracker:
            model, record = train(options.name, options.dataset, tracker, checkpoint, **changes)
    except (ValueError, OSError, FloatingPointError) as error:
        parser.exit(1, f"{error}\n")
    if not is_first():  # one of several processes shows and keeps what all of them have learned
        return
    if record["history"]["interrupted"]:
        parser.exit(1, f"stopped by hand: no record yet; the same command goes on from {checkpoint} (if it is there)\n")
    print(f"test accuracy {record['test_accuracy']:.2%} after {record['seconds']:.0f} s")
    words = [f"--dataset {options.dataset}", *(f"--set {name}={value}" for name, value in changes.items())]
    record["command"] = " ".join(["python -m vgg_course.runs", options.name, *words])
    try:
        if options.weights:
            save_weights(model, RUNS[options.name], options.weights)
            print(f"weights: {options.weights}")
        write_whole(file, f"{json.dumps(record)}\n".encode())
    except OSError as error:
        kept = f": the run is kept in {checkpoint}; the same command writes it" if checkpoint.exists() else ""
        parser.exit(1, f"{error}{kept}\n")
    print(f"record: {file}")
    for left in (checkpoint, previous(checkpoint), Path(f"{checkpoint}.lock")):  # all is well: not needed any more
        left.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
