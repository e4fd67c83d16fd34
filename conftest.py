"""What every test run needs: the offline digits, unless VGG_COURSE_DATASET asks for something else; and no litter."""

import os
import shutil
import tempfile

import pytest

os.environ.setdefault("VGG_COURSE_DATASET", "digits")


def pytest_configure(config: pytest.Config) -> None:
    """nbval ends its kernels at once: what they have in the system's place for temporary files would stay there."""
    if config.getoption("nbval", default=False):
        folder = tempfile.mkdtemp(prefix="vgg_course_nbval_")
        for name in ("TMPDIR", "TEMP", "TMP"):  # for the kernels; pytest itself knows its place already
            os.environ[name] = folder
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
