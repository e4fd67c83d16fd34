"""The habits of the house: short files, short functions, and every folder says what it is for."""

import ast
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LONGEST_FILE, LONGEST_FUNCTION = 350, 50  # lines


@pytest.fixture(scope="module")
def files() -> list[Path]:
    """All files of the repository, new ones too, as paths from its root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [Path(name) for name in names.split("\0") if name and (ROOT / name).exists()]


def python(files: list[Path]) -> dict[str, str]:
    return {file.as_posix(): (ROOT / file).read_text(encoding="utf-8") for file in files if file.suffix == ".py"}


def test_no_file_is_too_long(files):
    lengths = {name: len(text.splitlines()) for name, text in python(files).items()}
    assert len(lengths) > 40
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_no_function_is_too_long(files):
    functions = [
        (f"{name}: {node.name}", node.end_lineno - node.lineno + 1)
        for name, text in python(files).items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert len(functions) > 400
    assert [function for function in functions if function[1] > LONGEST_FUNCTION] == []


def test_no_text_is_read_or_written_in_the_code_of_the_system(files):
    """Windows would take cp1252 for what is UTF-8."""
    calls = [
        (f"{name}, line {node.lineno}", node)
        for name, text in python(files).items()
        if not name.startswith("vgg_course/runs.py")  # asks Linux for its processor
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("read_text", "write_text")
    ]
    assert len(calls) > 100
    bare = [
        place
        for place, call in calls
        if len(call.args) <= (call.func.attr == "write_text") and "encoding" not in [word.arg for word in call.keywords]
    ]
    assert bare == []


def test_every_folder_says_what_it_is_for(files):
    """In a README of its own, in the docstring of its ``__init__.py`` or ``conftest.py``, or in the README's map."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    folders = {
        folder for file in files for folder in file.parents if folder.name and not folder.parts[0].startswith(".")
    }
    assert len(folders) > 10

    def says(folder: Path) -> bool:
        docstrings = [ROOT / folder / name for name in ("__init__.py", "conftest.py")]
        return (
            (ROOT / folder / "README.md").exists()
            or f"`{folder.as_posix()}/`" in readme
            or any(file.exists() and ast.get_docstring(ast.parse(file.read_text("utf-8"))) for file in docstrings)
        )

    assert [folder.as_posix() for folder in sorted(folders) if not says(folder)] == []


def test_types_and_docstrings_are_checked():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert settings["mypy"]["strict"] and settings["mypy"]["packages"] == ["vgg_course"]
    assert all(set(excused) == {"module", "ignore_missing_imports"} for excused in settings["mypy"]["overrides"])
    assert "-m mypy" in makefile and (ROOT / "vgg_course" / "py.typed").exists()
    assert "pytest --doctest-modules" in makefile and "vgg_course" in settings["pytest"]["ini_options"]["testpaths"]


def test_the_tests_reach_nearly_all_of_the_package():
    """Branches count; measured by the tests of the package alone, without the browser's."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["coverage"]
    (line,) = [line for line in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines() if "--cov" in line]
    assert settings["run"]["branch"] is True and "omit" not in settings["run"] and "report" not in settings
    assert "--cov=vgg_course" in line and int(line.split("--cov-fail-under=")[1].split()[0]) >= 97
    excused = [path for path in (ROOT / "vgg_course").rglob("*.py") if "pragma: no cover" in path.read_text("utf-8")]
    assert excused == []
