"""What a training step costs in other ways: threads, optimizers, torch.compile. The network is ``fast``'s.

    python benchmarks/steps.py                2 to 4 minutes on two cores

All ways take turns with the recipe's own, and the medians are compared: below 1.00 a way is faster. Needs no data: how
long a step takes does not depend on what the images show.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional

from vgg_course.evaluation import autocast
from vgg_course.runs import RUNS

ROUNDS, BATCH = 9, 500


class Way:
    """One way to do a step: an own copy of the network, and what differs from the recipe."""

    def __init__(
        self,
        optimizer: Callable[[nn.Module], torch.optim.Optimizer] = RUNS["fast"].recipe.make_optimizer,
        *,
        threads: int | None = None,
        to_none: bool = True,
        frozen: bool = True,
        compile: bool = False,
        channels_last: bool = True,
    ) -> None:
        model = RUNS["fast"].build()
        next(model.parameters()).requires_grad_(not frozen)  # as speed.whiten leaves the first layer
        order = torch.channels_last if channels_last else torch.contiguous_format
        self.images = torch.randn(BATCH, 3, 32, 32).contiguous(memory_format=order)
        self.labels = torch.randint(10, (BATCH,))
        self.optimizer = optimizer(model.to(memory_format=order))
        self.model: Callable[[torch.Tensor], torch.Tensor] = torch.compile(model) if compile else model
        self.threads, self.to_none, self.seconds = threads or torch.get_num_threads(), to_none, [0.0]

    def step(self, precision: str) -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        started = time.perf_counter()
        with autocast("cpu", precision):
            logits = self.model(self.images)
        loss = functional.cross_entropy(logits.float(), self.labels, label_smoothing=0.2)
        self.optimizer.zero_grad(set_to_none=self.to_none)
        loss.backward()
        self.optimizer.step()
        self.seconds.append(time.perf_counter() - started)
        torch.set_num_threads(before)


def sgd(**options: bool) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return lambda model: torch.optim.SGD(model.parameters(), 0.01, 0.9, nesterov=True, **options)


def main() -> None:
    precision = replace(RUNS["fast"].recipe, precision="auto").resolve_precision()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {precision}")
    ways = {
        "as in the recipe (Muon)": Way(),
        "one thread": Way(threads=1),
        "gradients set to 0 instead of None": Way(to_none=False),
        "the whitened layer gets a gradient": Way(frozen=False),
        "not channels_last": Way(channels_last=False),
        "SGD, foreach": Way(sgd(foreach=True)),
        "SGD, one parameter after the other": Way(sgd(foreach=False)),
        "SGD, fused": Way(sgd(fused=True)),
        "torch.compile": Way(compile=True),
    }
    for turn in range(ROUNDS + 1):
        for way in ways.values():
            way.step(precision)
            if turn == 0:
                way.seconds.clear()  # the first step warms up, or compiles
    usual = statistics.median(ways["as in the recipe (Muon)"].seconds)
    for name, way in ways.items():
        took = statistics.median(way.seconds)
        print(f"{name:36s} {took:6.3f} s  {took / usual:5.2f}")


if __name__ == "__main__":
    main()
