"""For the tests of the package: figures are drawn into memory, no window opens."""

from pathlib import Path

import matplotlib
from hypothesis.configuration import set_hypothesis_home_dir

matplotlib.use("agg")
set_hypothesis_home_dir(Path(__file__).parents[1] / ".pytest_cache" / "hypothesis")  # no folder of its own
