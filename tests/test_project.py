"""The project's own files agree with each other."""

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
CONDA_NAMES = {"torch": "pytorch-cpu", "playwright": "playwright-python"}  # by another name on conda-forge


def test_environment_yml_says_the_same():
    wanted = set(PROJECT["dependencies"])
    for extra in PROJECT["optional-dependencies"].values():
        wanted |= set(extra)
    wanted = {line.split(";")[0].replace(" ", "") for line in wanted}  # for which system, pyproject.toml says alone
    names = {re.match(r"[\w-]+", line)[0]: line for line in wanted}
    wanted = {line.replace(name, CONDA_NAMES.get(name, name), 1) for name, line in names.items()}
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    found = re.findall(r"^ +- ([\w-]+[<>=][^\s#;]*)", text, flags=re.M)
    assert set(found) - {f"python{PROJECT['requires-python']}"} == wanted
    assert len(found) == len(wanted) + 1


def test_conda_forge_has_every_name():
    lines = (ROOT / "tests" / "conda_names.txt").read_text(encoding="utf-8").splitlines()
    assert re.search(r"\d{4}-\d\d-\d\d", lines[0]), "the list has a date"
    known = {line.split()[0] for line in lines if line and not line.startswith("#")}
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert re.findall(r"^channels:\n((?:  - .*\n)*)", text, flags=re.M) == ["  - conda-forge\n"]
    missing = set(re.findall(r"^  - ([\w-]+)[<>=]", text, flags=re.M)) - known
    assert not missing, f"look up on conda-forge and add to tests/conda_names.txt: {', '.join(sorted(missing))}"


def test_upper_bounds_have_a_reason():
    for line in (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines():
        if re.match(r'\s+"[\w-]+.*<', line):
            assert "#" in line


def test_readme_names_the_two_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make lab" in text
    assert "make test" in text


def test_no_tool_needs_a_posix_system():
    """What only some systems have is used behind a question whether it is there."""
    posix = r"\b(?:os\.(?:geteuid|getuid|getpgid|killpg|setsid|fork|uname|chown|mkfifo)|signal\.SIG(?:KILL|HUP|USR1))\b"
    for file in (ROOT / "tools").glob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"^\s*(?:import|from) (?:fcntl|grp|pwd|resource|termios|pty)\b", text, flags=re.M), file
        for name in set(re.findall(posix, text)):
            module, function = name.split(".")
            assert f'hasattr({module}, "{function}")' in text, f"{file.name}: {name} is not there on Windows"


@pytest.mark.skipif(os.name == "nt", reason="the faked Python is a shell script")
@pytest.mark.parametrize("code", [0, 3])
def test_pre_commit_refuses_what_the_tests_refuse(code, tmp_path):
    for name in ("check_outputs.py", "environment.py"):
        (tmp_path / "tools").mkdir(exist_ok=True)
        shutil.copy(ROOT / "tools" / name, tmp_path / "tools")
    command = [sys.executable, str(tmp_path / "tools" / "check_outputs.py")]
    none = subprocess.run(command, capture_output=True, text=True)
    assert none.returncode == 1 and none.stderr.startswith("check_outputs: there is no .venv yet: make lint")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$@"\nexit {code}\n', encoding="utf-8")
    python.chmod(0o755)
    done = subprocess.run([*command, "-x"], capture_output=True, text=True)
    assert done.returncode == code and done.stdout.endswith(" tests/test_notebooks.py -x\n")


def make_targets() -> dict[str, list[str]]:
    """The lines of the Makefile's recipes, each target's, with the environment's folder on Linux."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8").replace("$(BIN)", ".venv/bin")
    recipes = re.findall(r"^([\w-]+):(?!=).*\n((?:\t.*\n?)+)", text, flags=re.M)
    return {target: [line.lstrip("\t@") for line in lines.splitlines()] for target, lines in recipes}


def test_every_target_of_make_has_its_plain_commands():
    targets = re.findall(r"^([\w-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)
    text, recipes = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), make_targets()
    rows = re.findall(r"^\| `make ([\w-]+)([^`]*)` \| (.+) \| (.+) \|$", text, flags=re.M)
    assert {target for target, *_ in rows} == set(targets) - {"help"}
    recipes["lint"] = recipes["style"] + recipes["types"]
    recipes["test"] = recipes["test-package"] + recipes["test-notebooks"]
    for target, given, linux, windows in rows:
        assert windows == linux.replace("python3 ", "py -3.12 ").replace(".venv/bin/", ".venv\\Scripts\\")
        for name, value in re.findall(r"(\w+)=(\w+)", given):
            recipes[target] = [line.replace(f"$({name})", value) for line in recipes[target]]
        commands = recipes[target]
        if target == "clean":
            commands = commands[0].removeprefix("rm -rf ").split()
        elif target == "bench":
            commands = [f".venv/bin/python {file}" for file in re.findall(r"`\S+ (benchmarks/\w+\.py)`", linux)]
            assert all((ROOT / command.split()[1]).exists() for command in commands)
        assert commands and all(f"`{command}`" in linux for command in commands), (target, commands)
