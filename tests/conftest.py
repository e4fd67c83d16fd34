"""For the tests of the package: figures are drawn into memory, no window opens."""

import os
import sys
import types
from pathlib import Path

import matplotlib
import pytest
from hypothesis.configuration import set_hypothesis_home_dir

from vgg_course import data

matplotlib.use("agg")
for name in ("no_proxy", "NO_PROXY"):  # behind a proxy, too, the servers of the tests are asked directly
    os.environ[name] = ",".join(filter(None, [os.environ.get(name), "localhost,127.0.0.1"]))
pytest.register_assert_rewrite("servers", "small_run")  # helpers of tests/tracking, whose asserts explain themselves
set_hypothesis_home_dir(Path(__file__).parents[1] / ".pytest_cache" / "hypothesis")  # no folder of its own


@pytest.fixture(scope="module", autouse=True)
def coverage_of_processes(request):
    """Off: it makes each start of a process half as long again. ``MEASURED = True`` in a file of tests leaves it on."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("COV")]:
            if not getattr(request.module, "MEASURED", False):
                patch.delenv(name)
        yield


@pytest.fixture
def uncounted():
    """A test whose loop over very many points is not worth counting its lines: that makes it four times as long."""
    trace = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(trace)


@pytest.fixture
def images_for_validation(monkeypatch):
    """Call it with the number of images that CIFAR-10 shall give to validation: a small stand-in has no 5,000."""
    split = data._split
    return lambda count: monkeypatch.setattr(data, "_split", lambda *a: split(*a[:3], count, *a[4:]))


@pytest.fixture
def on_colab(monkeypatch):
    """Call it, and the course is on Colab: a stand-in for ``google.colab`` with the one function that the course uses.

    It has the real one's signature (googlecolab/colabtools, google/colab/output/_util.py) and nothing beside it: other
    arguments and other names fail. Returned is the list of what it was asked for, as (port, path).
    """
    asked = []

    def stand_in(error: str = "") -> list[tuple[int, str]]:
        def serve_kernel_port_as_iframe(port, path="/", width="100%", height="400", cache_in_notebook=False):
            assert type(port) is int and path.startswith("/") and all(type(size) is str for size in (width, height))
            asked.append((port, path))
            if error:
                raise RuntimeError(error)

        modules = {name: types.ModuleType(name) for name in ("google", "google.colab", "google.colab.output")}
        modules["google.colab.output"].serve_kernel_port_as_iframe = serve_kernel_port_as_iframe
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)
        return asked

    return stand_in
