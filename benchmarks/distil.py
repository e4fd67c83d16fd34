"""Distillation: does a network learn better from the answers of ``best`` than from the labels alone?

    python benchmarks/distil.py               10 to 25 minutes on two cores; needs CIFAR-10 in data/

``medium`` of ``recipes.py`` is trained with ``part`` of its loss against what ``best`` says of the same images (its
softmax), the rest against the labels as usual (Hinton, Vinyals and Dean, 2015). Two seeds each. The seconds include the
answers of ``best``, which has to look at every image anew, because each epoch moves and mirrors them.
"""

import math
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from recipes import MEDIUM
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR

sys.path.insert(0, str(Path(__file__).parent.parent))

from vgg_course.data import Dataset, batches, load_dataset
from vgg_course.evaluation import accuracy, autocast, predict
from vgg_course.recipes import SCHEDULES
from vgg_course.runs import load_trained
from vgg_course.speed import augmented, smaller

ROOT = Path(__file__).parent.parent


def distilled(data: Dataset, seed: int, part: float) -> tuple[float, float]:
    """Test accuracy (two views) and seconds of ``medium`` with ``part`` of the loss against ``best``'s answers."""
    run = replace(MEDIUM, recipe=replace(MEDIUM.recipe, seed=seed))
    recipe, precision = run.recipe, run.recipe.resolve_precision()
    data = run.split(data)
    started = time.perf_counter()
    teacher = load_trained("best").to(memory_format=torch.channels_last)
    model = run.build(len(data.classes), data.train).to(memory_format=torch.channels_last)
    optimizer = recipe.make_optimizer(model)
    steps = math.ceil(len(data.train) / recipe.batch_size)
    schedule = SCHEDULES[recipe.schedule]
    scheduler = LambdaLR(optimizer, lambda step: schedule(step, steps, recipe.epochs))
    for epoch in range(recipe.epochs):
        train = augmented(data.train, seed=seed, epoch=epoch, shift=recipe.shift)
        for step, (images, labels) in enumerate(
            batches(train, recipe.batch_size, shuffle=True, seed=seed, epoch=epoch), epoch * steps
        ):
            with autocast("cpu", precision):
                with torch.no_grad():
                    answers = teacher(images).float().softmax(1) if part else None
                shown = smaller(images) if step < recipe.small_part * steps * recipe.epochs else images
                logits = model(shown)
            loss = functional.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
            if answers is not None:
                loss = (1 - part) * loss + part * functional.cross_entropy(logits.float(), answers)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
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
