"""Distillation: does a network learn better from the answers of ``best`` than from the labels alone?

    python benchmarks/distil.py               10 to 25 minutes on two cores; needs CIFAR-10 in data/

``medium`` of ``recipes.py`` is trained with ``part`` of its loss against what ``best`` says of the same images (its
softmax), the rest against the labels as usual (Hinton, Vinyals and Dean, 2015). Two seeds each. The seconds include the
answers of ``best``, which has to look at every image anew, because each epoch moves and mirrors them.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from loop import shuffled, train
from recipes import MEDIUM
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent.parent))

from vgg_course.data import Dataset, load_dataset
from vgg_course.evaluation import accuracy, autocast, predict
from vgg_course.runs import load_trained

ROOT = Path(__file__).parent.parent


def distilled(data: Dataset, seed: int, part: float) -> tuple[float, float]:
    """Test accuracy (two views) and seconds of ``medium`` with ``part`` of the loss against ``best``'s answers."""
    run = replace(MEDIUM, recipe=replace(MEDIUM.recipe, seed=seed))
    recipe, precision = run.recipe, run.recipe.resolve_precision()
    data, count = run.split(data), len(run.split(data).train)
    started = time.perf_counter()
    teacher = load_trained("best").to(memory_format=torch.channels_last)

    def loss(images: torch.Tensor, labels: torch.Tensor, _: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        each = functional.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing, reduction="none")
        if not part:
            return each
        with torch.no_grad(), autocast("cpu", precision):
            answers = teacher(images).float().softmax(1)
        return (1 - part) * each + part * functional.cross_entropy(logits, answers, reduction="none")

    model = train(run, data, loss, [count] * recipe.epochs, lambda epoch: shuffled(count, seed, epoch))
    logits = predict(model, data.test, precision=precision, views=run.views)
    return accuracy(logits, data.test.labels), time.perf_counter() - started


def main() -> None:
    try:
        data = load_dataset("cifar10", ROOT / "data", verbose=False)
    except ConnectionError as error:
        return print(error)  # so that `make bench` goes on
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for part in (0.0, 0.5, 0.9):
        for seed in (0, 1):
            score, seconds = distilled(data, seed, part)
            print(
                f"{part:.0%} of the loss against best's answers, seed {seed}: {score:.2%} in {seconds:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
