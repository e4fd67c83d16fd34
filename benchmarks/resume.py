"""Nothing is lost: runs killed at random moments must end in the same bits; and what checkpoints and long runs cost.

    python benchmarks/resume.py [--runs 25] [--seed 0] [--soak 2000]

Each run is a real process (tests/resume_run.py) that is ended by SIGKILL up to three times, at moments drawn from the
printed seed, and started again with the same line. Then: the time that writing takes as a part of an epoch of FAST's
network, the size of the file over that of the weights, and memory, open files and threads over a long training.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from vgg_course import checkpoint as checkpoints
from vgg_course.data import load_dataset
from vgg_course.runs import RUNS
from vgg_course.training import fit

SCRIPT = Path(__file__).parent.parent / "tests" / "resume_run.py"


def start(file: str) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, str(SCRIPT), file], stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    return process


def killed_runs(count: int, seed: int) -> None:
    begin = time.perf_counter()
    whole = start("none").communicate()[0].split()[-1]
    length = time.perf_counter() - begin
    rng, same, kills = random.Random(seed), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for run in range(count):
            wanted = rng.randint(1, 3)
            for _ in range(wanted):
                process = start(f"{folder}/{run}.pt")
                time.sleep(rng.uniform(0, 0.5))
                kills += process.poll() is None
                process.kill()
                process.communicate()
            out = start(f"{folder}/{run}.pt").communicate()[0]
            same += out.split()[-1] == whole and "done" in out
    print(f"seed {seed}: {same} of {count} runs end in the same bits after {kills} kills (one takes {length:.1f} s)")


def cost() -> None:
    digits = load_dataset("digits", verbose=False)
    images = digits.train.images.repeat(8, 1, 1, 1)[:10_000].contiguous(memory_format=torch.channels_last)
    data = replace(digits, train=replace(digits.train, images=images, labels=digits.train.labels.repeat(8)[:10_000]))
    run, spent = RUNS["fast"], []
    save = checkpoints.write

    def timed(*arguments):
        started = time.perf_counter()
        save(*arguments)
        spent.append(time.perf_counter() - started)

    checkpoints.write = timed
    with tempfile.TemporaryDirectory() as folder:
        file, model = Path(folder) / "fast.pt", run.build(train=data.train)
        history = fit(model, data, replace(run.recipe, epochs=2), checkpoint=file, progress=False)
        weights = sum(value.numel() * value.element_size() for value in model.state_dict().values())
        # An epoch of CIFAR-10 has 4.5 times as many images as this one.
        print(
            f"FAST: {1000 * sum(spent) / len(spent):.0f} ms for a checkpoint, "
            f"{sum(spent) / (4.5 * sum(history.seconds)):.2%} of an epoch of CIFAR-10; "
            f"its size is {file.stat().st_size / weights:.2f} times that of the weights"
        )
    checkpoints.write = save


def soak(steps: int) -> None:
    """Memory, open files and threads of this process at a tenth of the run, and at its end."""
    import psutil

    me, seen = psutil.Process(), {}
    digits = load_dataset("digits", verbose=False)
    epochs = -(-steps // -(-len(digits.train) // 64))

    def tracker(step, values):
        if step % 50 == 0:
            seen[step] = (me.memory_info().rss / 1e6, me.num_fds() if os.name == "posix" else 0, me.num_threads())

    with tempfile.TemporaryDirectory() as folder:
        recipe = replace(RUNS["fast"].recipe, epochs=epochs, batch_size=64, small_part=0.5)
        fit(
            RUNS["fast"].build(train=digits.train),
            digits,
            recipe,
            tracker,
            checkpoint=f"{folder}/a.pt",
            progress=False,
        )
    for step in (max(seen) // 10 // 50 * 50, max(seen) // 2 // 50 * 50, max(seen)):
        memory, files, threads = seen[step]
        print(f"step {step}: {memory:.0f} MB, {files} open files, {threads} threads")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--soak", type=int, default=2000, metavar="STEPS")
    options = parser.parse_args()
    killed_runs(options.runs, options.seed)
    cost()
    soak(options.soak)
