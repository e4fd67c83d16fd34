"""What the data costs: the time for a batch of 512 as a part of a training step, for the networks of the named runs.

Batches and steps are timed in turn, in one process, so that a slow moment of the machine hits both. Each run fetches
its batches as its recipe says, augmentation included. Prints means over an epoch: augmentation may come once an epoch.
"""

import time
from dataclasses import replace

import torch
from torch.nn import functional

from vgg_course.data import Dataset, load_dataset
from vgg_course.evaluation import autocast
from vgg_course.runs import RUNS
from vgg_course.training import _batches as recipe_batches

SIZE, ROUNDS = 512, 12


def dataset_of(count: int) -> Dataset:
    """Enough images for the rounds; the digits are repeated, for only their number matters."""
    data = load_dataset("digits", verbose=False)
    times = -(-count // len(data.train))
    images = data.train.images.repeat(times, 1, 1, 1).contiguous(memory_format=torch.channels_last)
    train = replace(data.train, images=images, labels=data.train.labels.repeat(times))
    return replace(data, train=train)


def main() -> None:
    train = dataset_of(SIZE * ROUNDS).train
    for name in ("quick", "fast", "lecture"):
        run = RUNS[name]
        recipe = replace(run.recipe, batch_size=SIZE)
        model, precision = run.build(train=train), recipe.resolve_precision()
        parameters = list(model.parameters())
        data_time = step_time = 0.0
        for epoch in range(2):  # the first one warms up
            stream, data_time, step_time = recipe_batches(train, recipe, epoch), 0.0, 0.0
            for _ in range(ROUNDS if name != "lecture" else 2):
                start = time.perf_counter()
                images, labels = next(stream)  # the first one of an epoch pays for its augmentation
                fetched = time.perf_counter()
                with autocast("cpu", precision):
                    logits = model(images)
                functional.cross_entropy(logits.float(), labels).backward()
                for parameter in parameters:
                    parameter.grad = None
                data_time += fetched - start
                step_time += time.perf_counter() - start
        count = ROUNDS if name != "lecture" else 2
        print(
            f"{name:8} {1000 * data_time / count:6.1f} ms for a batch of {SIZE}, {1000 * step_time / count:7.1f} ms "
            f"for the step with it: {data_time / step_time:.1%}"
        )


if __name__ == "__main__":
    main()
