"""tools/environment.py, for its tests: run in a copy of the project, or loaded as a module."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "tools" / "environment.py"


def run_script(copy: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, copy / "tools" / "environment.py", "lab"],
        capture_output=True,
        text=True,
        env={**os.environ, "VGG_COURSE_TORCH": "plain", **environment},
        timeout=300,
    )


def load_script() -> ModuleType:
    """The script as a module of its own."""
    spec = importlib.util.spec_from_file_location("environment_script", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script
