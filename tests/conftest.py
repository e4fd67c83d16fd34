"""For the tests of the package: figures are drawn into memory, no window opens."""

from pathlib import Path

import matplotlib
import pytest
from hypothesis.configuration import set_hypothesis_home_dir

from vgg_course import data

matplotlib.use("agg")
pytest.register_assert_rewrite("servers", "small_run")  # helpers of tests/tracking, whose asserts explain themselves
set_hypothesis_home_dir(Path(__file__).parents[1] / ".pytest_cache" / "hypothesis")  # no folder of its own


@pytest.fixture
def images_for_validation(monkeypatch):
    """Call it with the number of images that CIFAR-10 shall give to validation: a small stand-in has no 5,000."""
    split = data._split
    return lambda count: monkeypatch.setattr(data, "_split", lambda *a: split(*a[:3], count, *a[4:]))
