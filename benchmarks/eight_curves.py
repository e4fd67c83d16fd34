"""Eight runs of 400 steps, seven of them with something wrong: the loss curves of exercise 3.6.

    python benchmarks/eight_curves.py                                        CIFAR-10: some minutes on one thread
    python benchmarks/eight_curves.py --record data/runs/eight_curves.json   the same, and keep it for notebook 03
    python benchmarks/eight_curves.py --quick                                the digits sample, 20 steps

The record holds the curves under the letters a to h. Which run got which letter, it does not say.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent.parent))

from vgg_course.data import Images, batches, load_dataset
from vgg_course.evaluation import predict
from vgg_course.runs import _processor
from vgg_course.training import SCHEDULES
from vgg_course.vgg import VGG, make_layers

DATA = Path(__file__).parent.parent / "data"
BATCH, LOOK = 100, 20  # images in a step; steps between two looks at the validation images
POOLED = {"global_pool": True, "hidden": ()}


@dataclass(frozen=True)
class Settings:
    """What sets the eight runs apart; the values here are those of the healthy one."""

    images: int = 8_000
    lr: float = 0.02
    schedule: str = "one_cycle"
    augment: bool = True
    in_order: bool = False  # sorted by class, and not shuffled
    softmax_first: bool = False  # the loss is given probabilities, of which it takes the softmax again
    deep: bool = False  # the lecture's shape: thirteen convolutions, no batch norm


RUNS = {
    "healthy": Settings(),
    "rate too high": Settings(lr=6.0, schedule="constant"),
    "rate too low": Settings(lr=1e-3, schedule="constant"),
    "rate vanishes": Settings(lr=0.005, schedule="step_per_batch"),
    "does not start": Settings(lr=0.002, schedule="constant", deep=True),
    "by heart": Settings(images=1_000, augment=False),
    "in order": Settings(lr=0.001, schedule="constant", in_order=True),
    "softmax twice": Settings(images=300, lr=0.1, augment=False, softmax_first=True),
}


def build(settings: Settings) -> VGG:
    torch.manual_seed(0)
    if settings.deep:
        thin = [4, 4, "M", 8, 8, 16, 16, 16, "M", 32, 32, 32, 64, 64, 64, "M"]
        return VGG(make_layers(thin), 10, input_size=32, hidden=(512,))
    return VGG(make_layers([16, "M", 32, "M", 64, "M", 128, "M"], batch_norm=True), 10, **POOLED)


def endless(split: Images, settings: Settings) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches for ever, epoch after epoch."""
    epoch = 0
    while True:
        yield from batches(split, BATCH, shuffle=not settings.in_order, augment=settings.augment, epoch=epoch)
        epoch += 1


def train(settings: Settings, train: Images, validation: Images, steps: int) -> dict[str, list[float]]:
    """The loss of each step, and that of the validation images after every ``LOOK`` steps."""
    model, split = build(settings), train.subset(slice(0, settings.images))
    if settings.in_order:
        split = split.subset(split.labels.argsort(stable=True))

    def loss_of(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(logits.softmax(1) if settings.softmax_first else logits, labels)

    optimizer = torch.optim.SGD(model.parameters(), lr=settings.lr, momentum=0.9, weight_decay=5e-4)
    found, epoch_steps = {"batch_loss": [], "validation_loss": []}, -(-len(split) // BATCH)
    for step, (images, labels) in zip(range(steps), endless(split, settings), strict=False):
        factor = SCHEDULES[settings.schedule](step, epoch_steps, -(-steps // epoch_steps))
        optimizer.param_groups[0]["lr"] = settings.lr * factor
        model.train()
        loss = loss_of(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found["batch_loss"].append(round(loss.item(), 3))
        if step % LOOK == LOOK - 1:
            found["validation_loss"].append(round(loss_of(predict(model, validation), validation.labels).item(), 3))
    return found


def main() -> None:
    """Print how each run ends; record the curves if asked to."""
    parser = argparse.ArgumentParser(description="Train the eight runs of exercise 3.6.")
    parser.add_argument("--quick", action="store_true", help="the digits only, 20 steps: to see that it works")
    parser.add_argument("--record", type=Path, help="a JSON file to write")
    options = parser.parse_args()
    here = any((DATA / name).is_dir() for name in ("cifar10", "cifar10-images", "cifar-10-batches-py"))
    if not here and not options.quick:
        print(f"CIFAR-10 is not in {DATA}: nothing is trained (--quick takes the digits)")
        return
    data = load_dataset("digits" if options.quick else "cifar10", DATA, verbose=False)
    validation, steps = data.validation.subset(slice(0, 500)), 20 if options.quick else 400
    started, found = time.perf_counter(), {}
    for name, settings in RUNS.items():
        found[name] = train(settings, data.train, validation, steps)
        last = {key: values[-1] for key, values in found[name].items()}
        print(f"{name:15} {last}", flush=True)
    mixed = sorted(found, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    if options.record:
        record = {
            "name": options.record.stem,
            "dataset": data.name,
            "recipe": {"batch_size": BATCH, "steps": steps, "look_every": LOOK},
            "seed": 0,
            "seconds": round(time.perf_counter() - started, 1),
            "machine": f"{_processor()}, {torch.get_num_threads()} threads, cpu",
            "torch": torch.__version__,
            "command": f"python benchmarks/eight_curves.py --record data/runs/{options.record.name}",
            "curves": {letter: found[name] for letter, name in zip("abcdefgh", mixed, strict=True)},
        }
        options.record.write_text(json.dumps(record) + "\n", encoding="utf-8")
        print(f"record: {options.record}")


if __name__ == "__main__":
    main()
