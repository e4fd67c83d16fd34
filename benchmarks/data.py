"""What the data costs: the time for a batch of 512 as a part of a training step, for the networks of the named runs.

Batches and steps are timed in turn, in one process, so that a slow moment of the machine hits both. Prints medians.
"""

import statistics
import time
from dataclasses import replace

from torch.nn import functional

from vgg_course.data import Dataset, batches, load_dataset
from vgg_course.evaluation import autocast
from vgg_course.runs import RUNS

SIZE, ROUNDS = 512, 7


def dataset_of(count: int) -> Dataset:
    """Enough images for the rounds; the digits are repeated, for only their number matters."""
    data = load_dataset("digits", verbose=False)
    times = -(-count // len(data.train))
    train = replace(data.train, images=data.train.images.repeat(times, 1, 1, 1), labels=data.train.labels.repeat(times))
    return replace(data, train=train)


def main() -> None:
    train = dataset_of(SIZE * (ROUNDS + 1)).train
    for name in ("quick", "fast", "lecture"):
        run = RUNS[name]
        model, precision = run.build(), run.recipe.resolve_precision()
        parameters = list(model.parameters())
        data_times, step_times = [], []
        stream = batches(train, SIZE, shuffle=True, augment=True)
        for _ in range(ROUNDS if name != "lecture" else 3):
            start = time.perf_counter()
            images, labels = next(stream)
            fetched = time.perf_counter()
            with autocast("cpu", precision):
                logits = model(images)
            functional.cross_entropy(logits.float(), labels).backward()
            for parameter in parameters:
                parameter.grad = None
            done = time.perf_counter()
            data_times.append(fetched - start)
            step_times.append(done - start)
        data_time, step_time = statistics.median(data_times[1:]), statistics.median(step_times[1:])
        print(
            f"{name:8} {1000 * data_time:6.1f} ms for a batch of {SIZE}, {1000 * step_time:7.1f} ms for the step with "
            f"it: {data_time / step_time:.1%}"
        )


if __name__ == "__main__":
    main()
