"""The table of targets: how well and how fast the named runs learn CIFAR-10 on this machine.

    python benchmarks/recipes.py              all but BEST, three seeds each: 12 to 20 minutes on two cores
    python benchmarks/recipes.py best         the run meant for 94 %, one seed: 8 to 20 minutes
    python benchmarks/recipes.py --quick      the digits sample only, under 20 seconds
    python benchmarks/recipes.py --precision fp32       as on a processor without bf16 instructions; A is fp32 too

A ratio of 1 or less is a target that was met. "A" is the time that airbench94's published recipe would need here: its
network is written down below from the description (Jordan, 2024), a few of its steps are timed, the rest is counted.
"""

import argparse
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent.parent))

from vgg_course.data import Dataset, batches, load_dataset
from vgg_course.evaluation import accuracy, autocast, predict
from vgg_course.runs import RUNS
from vgg_course.training import fit

DATA = Path(__file__).parent.parent / "data"


class Target(NamedTuple):
    """What a named run has to reach: an accuracy (0 to 1) within so many seconds on two cores."""

    run: str
    dataset: str
    accuracy: float
    seconds: float
    seeds: int


# Between quick and fast: fast's recipe, half as wide, two epochs, quick's rate. It has no name in the course.
MEDIUM = replace(
    RUNS["fast"],
    cfg=(24, 24, "M", 24, 64, "M", 64, 128, "M", 128),
    recipe=replace(RUNS["fast"].recipe, epochs=2, lr=RUNS["quick"].recipe.lr),
)
MEASURED = {**RUNS, "medium": MEDIUM}

TARGETS = [
    Target("quick", "cifar10", 0.76, 10, 3),
    Target("medium", "cifar10", 0.85, 30, 3),
    Target("fast", "cifar10", 0.90, 90, 3),
    Target("best", "cifar10", 0.94, 430, 1),
    Target("digits", "digits", 0.97, 15, 3),
]


def measure(target: Target, data: Dataset, precision: str = "auto") -> tuple[list[float], list[float], float]:
    """Test accuracies and seconds, one for each seed, and the images a second of the fastest epoch.

    The seconds are those of everything from fresh weights to the last prediction for the test images: whitening,
    training, a look at the validation images after each epoch, and the test.
    """
    scores, seconds, rate = [], [], 0.0
    for seed in range(target.seeds):
        run = MEASURED[target.run]
        run = replace(run, recipe=replace(run.recipe, seed=seed, precision=precision))
        split = run.split(data)
        started = time.perf_counter()
        model = run.build(len(split.classes), split.train)
        history = fit(model, split, run.recipe, progress=False)
        logits = predict(model, data.test, precision=run.recipe.resolve_precision(), views=run.views)
        seconds.append(time.perf_counter() - started)
        scores.append(accuracy(logits, data.test.labels))
        rate = max(rate, *history.images_per_second)
    return scores, seconds, rate


def airbench94() -> nn.Sequential:
    """The network of airbench94 as its paper describes it, (N, 3, 32, 32) to logits: only its speed counts here."""

    def block(before: int, after: int) -> list[nn.Module]:
        def convolution(channels: int) -> nn.Module:
            return nn.Conv2d(channels, after, 3, padding=1, bias=False)

        return [
            *(convolution(before), nn.MaxPool2d(2), nn.BatchNorm2d(after), nn.GELU()),
            *(convolution(after), nn.BatchNorm2d(after), nn.GELU()),
        ]

    first = nn.Conv2d(3, 24, 2)
    first.weight.requires_grad_(False)
    blocks = [*block(24, 64), *block(64, 256), *block(256, 256)]
    return nn.Sequential(first, nn.GELU(), *blocks, nn.MaxPool2d(3), nn.Flatten(), nn.Linear(256, 10, bias=False))


def airbench94_seconds(data: Dataset, precision: str, steps: int = 5, batch_size: int = 500) -> float:
    """What 9.9 epochs of 50,000 images and a test with six views of 10,000 would take here, from a few steps."""
    model = airbench94().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.85, nesterov=True)
    training, testing = [], []
    for step, (images, labels) in enumerate(batches(data.train, batch_size)):
        if step == steps:
            break
        started = time.perf_counter()
        with autocast("cpu", precision):
            logits = model(images)
        functional.cross_entropy(logits.float(), labels, label_smoothing=0.2).backward()
        optimizer.step()
        optimizer.zero_grad()
        training.append(time.perf_counter() - started)
        started = time.perf_counter()
        with torch.inference_mode(), autocast("cpu", precision):
            model(images)
        testing.append(time.perf_counter() - started)
    return (9.9 * 50_000 * statistics.median(training) + 6 * 10_000 * statistics.median(testing)) / batch_size


def main() -> None:
    """Print one row for each target; where CIFAR-10 is not in data/, say so and keep to the digits."""
    parser = argparse.ArgumentParser(description="Print the table of targets.")
    parser.add_argument(
        "runs", nargs="*", metavar="run", help="quick, medium, fast, best, digits (default: all but best)"
    )
    parser.add_argument("--quick", action="store_true", help="the digits only, less than 20 seconds")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"], help="of all runs and of A")
    options = parser.parse_args()
    wanted = ["digits"] if options.quick else options.runs or ["quick", "medium", "fast", "digits"]
    unknown = set(wanted) - {target.run for target in TARGETS}
    if unknown:
        parser.error(f"there is no target for {', '.join(unknown)}")
    targets = [target for target in TARGETS if target.run in wanted]
    loaded = {"digits": load_dataset("digits", verbose=False)}
    if any(target.dataset == "cifar10" for target in targets):
        if any((DATA / name).is_dir() for name in ("cifar10", "cifar10-images", "cifar-10-batches-py")):
            loaded["cifar10"] = load_dataset("cifar10", DATA, verbose=False)
        else:
            print(f"CIFAR-10 is not in {DATA}: without it there are only the digits")
    precision = replace(RUNS["quick"].recipe, precision=options.precision).resolve_precision()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {precision}")
    reference = airbench94_seconds(loaded["cifar10"], precision) if "cifar10" in loaded else None
    if reference:
        print(f"A = {reference:.0f} s (airbench94's recipe on this machine, counted from 5 steps)")
    print("run      target           measured (mean of seeds)    images/s  time/target  time/A  accuracy by seed")
    for target in targets:
        if target.dataset not in loaded:
            continue
        scores, seconds, rate = measure(target, loaded[target.dataset], precision)
        score, spent = statistics.mean(scores), statistics.mean(seconds)
        met = "met" if score >= target.accuracy and spent <= target.seconds else "missed"
        over_a = f"{spent / reference:7.3f}" if reference and target.dataset == "cifar10" else "      -"
        aim, got = f"{target.accuracy:.1%} in {target.seconds:3.0f} s", f"{score:6.2%} in {spent:5.1f} s {met:6s}"
        by_seed = " ".join(f"{s:.2%}" for s in scores)
        ratio = spent / target.seconds
        print(f"{target.run:8s} {aim}   {got} {rate:12,.0f} {ratio:12.2f} {over_a}  {by_seed}", flush=True)


if __name__ == "__main__":
    main()
