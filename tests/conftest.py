"""For the tests of the package: figures are drawn into memory, no window opens."""

from pathlib import Path

import matplotlib
import pytest
from hypothesis.configuration import set_hypothesis_home_dir

matplotlib.use("agg")
pytest.register_assert_rewrite("servers", "small_run")  # helpers of tests/tracking, whose asserts explain themselves
set_hypothesis_home_dir(Path(__file__).parents[1] / ".pytest_cache" / "hypothesis")  # no folder of its own
