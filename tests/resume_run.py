"""A small run with all that has a state (Muon, dropout, batch norm, augmentation), for tests that kill it.

    python tests/resume_run.py CHECKPOINT|none [--device-threads 1]

Prints the hash of the final weights and history, which are the same however often it was cut off.
"""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from vgg_course.data import Dataset, load_dataset
from vgg_course.training import FAST, History, fit
from vgg_course.vgg import VGG, make_layers

RECIPE = replace(FAST, epochs=3, batch_size=32, small_part=0.5, precision="fp32", device="cpu")


def build() -> tuple[VGG, Dataset]:
    torch.manual_seed(0)
    digits = load_dataset("digits", verbose=False)
    layers = make_layers([8, "M", 8, "M", 16, "M"], batch_norm=True)
    part = Dataset(digits.train.subset(slice(0, 300)), digits.validation.subset(slice(0, 50)), digits.test, "digits")
    return VGG(layers, num_classes=10, global_pool=True, hidden=(8,)), part


def digest(model: VGG, history: History) -> str:
    """Of every bit of the weights and of all that does not depend on the clock."""
    found = hashlib.sha256()
    for name, value in model.state_dict().items():
        found.update(name.encode() + value.contiguous().numpy().tobytes())
    clock = ("seconds", "images_per_second", "interrupted")
    found.update(repr([value for name, value in asdict(history).items() if name not in clock]).encode())
    return found.hexdigest()


def cut_off(at: int, how) -> Callable[[int, dict], None]:
    """A tracker that ends the run at a step."""

    def tracker(step, values):
        if step == at and "loss" in values:
            how()

    return tracker


def stop():
    raise KeyboardInterrupt


if __name__ == "__main__":
    torch.set_num_threads(1)
    model, data = build()
    file = None if sys.argv[1] == "none" else sys.argv[1]
    print("ready", flush=True)
    history = fit(model, data, RECIPE, checkpoint=file, checkpoint_minutes=0, progress=False)
    print("done" if not history.interrupted else "interrupted", digest(model, history), flush=True)
