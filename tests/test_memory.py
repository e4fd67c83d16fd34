"""``speed.memory_kept``: counted in pages that the system had to give out, as no test here looks at a clock."""

import ctypes
import sys
from contextlib import contextmanager

import pytest
import torch

from vgg_course import training
from vgg_course.data import load_dataset
from vgg_course.runs import RUNS
from vgg_course.speed import memory_kept
from vgg_course.training import Recipe, fit

CPU = torch.device("cpu")
PAGES = 2**26 // 4096  # of a tensor of 64 MB, if the system has pages of 4 KB

glibc_only = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "malloc_trim"),
    reason="this C library has no mallopt to set",
)


def pages_taken(times: int) -> int:
    """How many pages the system gives to ``times`` tensors of 64 MB, one after the other."""
    import resource  # not on Windows

    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.full((2**24,), 1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    """Bytes of this process that are in memory."""
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("VmRSS"))


@glibc_only
def test_memory_is_used_again_inside_and_given_back_afterwards():
    with memory_kept(CPU):
        pages_taken(1)  # now there is room for one
        assert pages_taken(10) < 2 * PAGES  # each time anew, it would be 10
        kept = resident()
    assert resident() < kept - 2**25


@glibc_only
def test_one_training_after_the_other():
    for _ in range(3):
        with pytest.raises(RuntimeError, match="in the middle"), memory_kept(CPU):
            pages_taken(1)
            assert pages_taken(10) < 2 * PAGES
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
