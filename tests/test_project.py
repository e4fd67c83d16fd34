"""The project's own files agree with each other; its set-up script says in one line what is missing."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA_NAMES = {"torch": "pytorch-cpu"}  # by another name on conda-forge
SCRIPT = ROOT / "tools" / "environment.py"


def test_environment_yml_says_the_same():
    wanted = set(PROJECT["dependencies"])
    for extra in PROJECT["optional-dependencies"].values():
        wanted |= set(extra)
    names = {re.match(r"[\w-]+", line)[0]: line.replace(" ", "") for line in wanted}
    wanted = {line.replace(name, CONDA_NAMES.get(name, name), 1) for name, line in names.items()}
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    found = re.findall(r"^ +- ([\w-]+[<>=][^\s#]*)", text, flags=re.M)
    assert set(found) - {f"python{PROJECT['requires-python']}"} == wanted
    assert len(found) == len(wanted) + 1


def test_upper_bounds_have_a_reason():
    for line in (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines():
        if re.match(r'\s+"[\w-]+.*<', line):
            assert "#" in line


def test_readme_names_the_two_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make lab" in text
    assert "make test" in text


def run_script(copy: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, copy / "tools" / "environment.py", "lab"],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=300,
    )


@pytest.fixture
def copy(tmp_path):
    """A copy of the project, so that no test touches the real environment."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    return tmp_path


@pytest.mark.skipif(os.name == "nt", reason="the faked commands are shell scripts")
class TestEnvironmentScript:
    def fake_python(self, copy: Path, script: str) -> None:
        python = copy / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)

    @pytest.mark.parametrize(
        ("said", "meaning"),
        [
            ("OSError: [Errno 28] No space left on device", "the disk is full"),
            ("NewConnectionError: Failed to establish a new connection: refused", "no package index can be reached"),
            ("ERROR: Could not find a version that satisfies it", "no fitting package for this Python"),
            ("ERROR: something new", "ERROR: something new"),
        ],
    )
    def test_what_pip_says_in_one_line(self, copy, said, meaning):
        self.fake_python(copy, f"echo '{said}'; exit 1")
        done = run_script(copy)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert meaning in done.stderr
        assert not (copy / ".venv" / ".lab-installed").exists()

    def test_a_second_call_does_nothing(self, copy):
        self.fake_python(copy, "echo called >> called")
        assert run_script(copy).returncode == 0
        calls = (copy / "called").read_text()
        assert run_script(copy).stdout == ""
        assert (copy / "called").read_text() == calls
        later = (copy / ".venv" / ".lab-installed").stat().st_mtime + 10
        os.utime(copy / "pyproject.toml", (later, later))
        run_script(copy)
        assert len((copy / "called").read_text()) > len(calls)

    def test_no_venv_module(self, copy):
        (copy / "venv.py").write_text(
            "raise SystemExit('The virtual environment was not created: ensurepip is not there')"
        )
        done = run_script(copy, PYTHONPATH=str(copy))
        assert done.stderr.startswith("environment: this Python has no venv module: apt-get install python3-venv")
        assert len(done.stderr.splitlines()) == 1
        assert not (copy / ".venv").exists()
