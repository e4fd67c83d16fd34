"""For the tests of the package: figures are drawn into memory, no window opens."""

import matplotlib

matplotlib.use("agg")
