"""For .pre-commit-config.yaml: run the tests of the notebooks' form with the Python of .venv, on any system."""

import subprocess
import sys

from environment import PYTHON, ROOT

if not PYTHON.exists():
    raise SystemExit("check_outputs: there is no .venv yet: make lint (or python tools/environment.py test)")
command = [str(PYTHON), "-m", "pytest", "--quiet", "-p", "no:cacheprovider", "tests/test_notebooks.py"]
raise SystemExit(subprocess.call(command + sys.argv[1:], cwd=ROOT))
