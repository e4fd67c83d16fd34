"""Started by torchrun in tests/test_distributed.py: 20 steps of a small network; the first rank keeps its weights.

ddp_run.py FOLDER STEPS [--kill RANK]     with --kill, that rank dies without a word after STEPS steps
ddp_run.py FOLDER STEPS --third           two other trainings come before it in the same processes
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from vgg_course.data import load_dataset
from vgg_course.training import Recipe, fit
from vgg_course.vgg import VGG, make_layers

seen = backwards = 0


def count(step: int, values: dict) -> None:
    global seen
    seen += "loss" in values


def die_after(steps: int) -> None:
    """This process is gone, without a word, in the backward pass that follows so many."""
    backward = torch.Tensor.backward

    def die_later(self, *arguments, **more):
        global backwards
        backwards += 1
        if backwards > steps:
            os.kill(os.getpid(), 9)
        return backward(self, *arguments, **more)

    torch.Tensor.backward = die_later


class InDouble(nn.Sequential):
    """A network that computes in 64 bits.

    Two processes add in another order than one. In 32 bits that can choose another maximum where two values are nearly
    the same: on some processors weights moved by 1e-3 then, far more than what the test looks for.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.double())


def main() -> None:
    torch.set_num_threads(1)
    folder, steps, killed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[4]) if "--kill" in sys.argv else None
    rank = int(os.environ.get("RANK", 0))
    data = load_dataset("digits", verbose=False)
    data = replace(data, train=data.train.subset(slice(0, 500)))  # 10 steps, of 51 and 41: the shares differ in size
    for _ in range(2 * ("--third" in sys.argv)):
        other = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
        fit(other, data, Recipe(epochs=1, batch_size=250, lr=0.01, device="cpu"), progress=False)
    torch.manual_seed(0)
    model = InDouble(VGG(make_layers([8, "M", 16, "M"]), 10, input_size=32, hidden=()).double())
    recipe = Recipe(epochs=2, batch_size=51, lr=0.05, precision="fp32", augmentation=True, device="cpu")
    if killed == rank:
        die_after(steps)
    try:
        history = fit(model, data, recipe, count, checkpoint=folder / "run.pt", checkpoint_minutes=0, progress=False)
    except ConnectionError as error:
        sys.exit(f"SAID BY {rank}: {error}")
    if rank == 0:
        torch.save({"model": model.state_dict(), "loss": history.batch_loss, "seen": seen}, folder / "result.pt")


if __name__ == "__main__":
    main()
