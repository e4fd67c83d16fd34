"""What every test run needs: the offline digits, unless VGG_COURSE_DATASET asks for something else."""

import os

os.environ.setdefault("VGG_COURSE_DATASET", "digits")
