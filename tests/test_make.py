"""`make` alone tells what it can do, and what the workflows of GitHub call is there."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def make(folder: Path, *given: str) -> subprocess.CompletedProcess:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(["make", *given], cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done


@pytest.mark.skipif(not shutil.which("make"), reason="no make on this machine")
def test_make_alone_prints_what_there_is_and_makes_nothing(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    done = make(tmp_path)
    targets = re.findall(r"^([\w-]+):.*?## (.+)$", MAKEFILE, flags=re.M)
    assert {"lab", "test", "notebooks", "site", "class-kit"} <= {name for name, _ in targets}
    assert [line.split(maxsplit=2) for line in done.stdout.splitlines()] == [["make", *target] for target in targets]
    assert [file.name for file in tmp_path.iterdir()] == ["Makefile"]


@pytest.mark.skipif(not shutil.which("make"), reason="no make on this machine")
def test_make_test_leaves_nothing_out():
    """Each command of the targets that it divides into, once."""
    said = make(ROOT, "--dry-run", "test").stdout
    parts = ["test-package", "test-notebooks", "style", "types"]
    commands = re.findall(rf"^(?:{'|'.join(parts)}):\n((?:\t.*\n)+)", MAKEFILE, flags=re.M)
    assert len(commands) == len(parts)
    for command in "".join(commands).splitlines():
        assert said.count(command.split("$(BIN)/")[1] + "\n") == 1, command
    for of_all in ("ruff check .", "ruff format", "codespell", "-m mypy", "--cov=", "e2e", "--nbval"):
        assert of_all in said


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_a_workflow_calls_what_there_is(file):
    jobs = yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"]
    scripts = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    for job in jobs.values():
        assert job["timeout-minutes"] <= 40 and job["steps"]
    for script in scripts:
        if bash := shutil.which("bash"):
            read = subprocess.run([bash, "-n"], input=script, capture_output=True, text=True)
            assert read.returncode == 0, read.stderr
        for target in re.findall(r"\bmake ([\w-]+)", script):
            assert re.search(rf"^{target}:", MAKEFILE, flags=re.M), target
        for path in re.findall(r"\bnotebooks/\S+\.ipynb|\bDockerfile\b", script):
            assert (ROOT / path).exists(), path
