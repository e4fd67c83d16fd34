"""``speed.memory_kept``: counted in pages that the system had to give out, as no test here looks at a clock."""

import ctypes
import sys
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from vgg_course import training
from vgg_course.data import load_dataset
from vgg_course.runs import RUNS
from vgg_course.speed import memory_kept
from vgg_course.training import Recipe, fit

CPU = torch.device("cpu")
glibc_only = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "malloc_trim"),
    reason="this C library has no mallopt to set",
)


def pages_taken(steps: int) -> int:
    """How many pages the system gives out for ``steps`` steps of a training whose maps have 64 MB.

    Steps, as in a training, and not one tensor after the other: where a small piece comes to lie beside a tensor that
    is given back, the next of the same size does not fit in its place, and chance decides how often that is so.
    """
    import resource  # not on Windows

    network = nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.ReLU())
    images = torch.rand(1024, 3, 32, 32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        network(images).sum().backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    """Bytes of this process that are in memory."""
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("VmRSS"))


@glibc_only
def test_memory_is_used_again_inside_and_given_back_afterwards():
    usual = pages_taken(2) // 2
    with memory_kept(CPU):
        pages_taken(2)  # now there is room for one step
        assert pages_taken(10) < usual
        kept = resident()
    assert resident() < kept - 2**25


@glibc_only
def test_one_training_after_the_other():
    usual = pages_taken(2) // 2
    for _ in range(3):
        with pytest.raises(RuntimeError, match="in the middle"), memory_kept(CPU):
            pages_taken(2)
            assert pages_taken(5) < usual / 2
            raise RuntimeError("in the middle")


@pytest.mark.parametrize("device", ["cuda", "mps", "meta"])
def test_nothing_is_set_for_another_device(device, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("it was"))
    with memory_kept(torch.device(device)):
        pass


@pytest.mark.parametrize("functions", [[], ["mallopt"]])  # macOS; musl, as in Alpine
def test_another_c_library(functions, monkeypatch):
    class Library:
        def __init__(self, name: None) -> None:
            for function in functions:
                setattr(self, function, lambda *_: pytest.fail("it is not glibc"))

    monkeypatch.setattr(ctypes, "CDLL", Library)
    with memory_kept(CPU):
        pass


def test_fit_trains_in_it(monkeypatch):
    """And validates, so that nothing is given back between two epochs."""
    seen, looks = [], []

    @contextmanager
    def noted(device):
        seen.append((device.type, "in"))
        yield
        seen.append((device.type, "out"))

    def look(step, values):
        looks.append(len(seen))

    data = load_dataset("digits", verbose=False)
    monkeypatch.setattr(training, "memory_kept", noted)
    fit(RUNS["digits"].build(), data, Recipe(epochs=2, batch_size=500, lr=0.1, device="cpu"), look, progress=False)
    assert seen == [("cpu", "in"), ("cpu", "out")] and set(looks) == {1}
