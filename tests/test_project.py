"""The project's own files agree with each other."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA_NAMES = {"torch": "pytorch-cpu", "playwright": "playwright-python"}  # by another name on conda-forge


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


def test_every_target_of_make_has_a_plain_command():
    targets = re.findall(r"^([\w-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)
    table = re.findall(r"^\| `make ([\w-]+)", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), flags=re.M)
    assert set(table) == set(targets) - {"help"}
