"""The judges of the exercises. That they take the notebooks' own solutions for right, tests/e2e/test_lab.py proves."""

import importlib
import json
import re
from pathlib import Path

import pytest

from vgg_course import exercises
from vgg_course.exercises import EXERCISES, Wrong, attempt, check, compare, fingerprint, plain

ROOT = Path(__file__).parents[1]
NUMBERS = sorted(path.stem for path in (ROOT / "vgg_course" / "exercises").glob("nb*.py"))
WRONG = {}
for stem in NUMBERS:
    importlib.import_module(f"vgg_course.exercises.{stem}")
    WRONG |= importlib.import_module(f"wrong_answers.{stem}").WRONG


def said(capsys, *arguments, **given) -> str:
    check(*arguments, **given)
    return capsys.readouterr().out


@pytest.mark.parametrize("name", EXERCISES)
def test_at_least_two_wrong_answers_each_with_a_hint_of_its_own(name, capsys):
    hints = []
    for answer, part, *given in WRONG[name]:
        words = said(capsys, name, answer, **(given[0] if given else {}))
        assert words.startswith(f"{name} ✗ Not yet. ") and part in words, words
        hints.append(words)
    assert len(set(hints)) == len(hints) >= 2


@pytest.mark.parametrize("name", EXERCISES)
@pytest.mark.parametrize("nothing", [None, ...])
def test_no_answer_is_no_error(name, nothing, capsys):
    assert said(capsys, name, nothing) == (
        f"{name} is not answered yet: give {EXERCISES[name].wanted} and run this cell again.\n"
    )


@pytest.mark.parametrize("name", EXERCISES)
@pytest.mark.parametrize("nonsense", ["", -1, 10**30, float("nan"), [], {}, lambda: None, object()])
def test_nonsense_is_wrong_and_no_error(name, nonsense, capsys):
    assert said(capsys, name, nonsense, **(WRONG[name][0][2] if len(WRONG[name][0]) > 2 else {})).startswith(
        f"{name} ✗ Not yet. "
    )


@pytest.mark.parametrize("stem", NUMBERS)
def test_each_exercise_is_in_its_notebook_and_the_other_way_round(stem):
    (file,) = (ROOT / "notebooks").glob(f"{stem[2:]}_*.ipynb")
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    checked = re.findall(
        r'check\("([\d.]+)"', "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    )
    assert checked == [name for name in EXERCISES if name.startswith(f"{int(stem[2:])}.")]
    assert len(checked) >= 5


def test_an_unknown_exercise_is_named():
    with pytest.raises(ValueError, match=r"no exercise '1\.99'; there is 1\.1, 1\.2"):
        check("1.99", 3)
    with pytest.raises(ValueError, match="no exercise 'x'"):
        check("x", 3)


def test_the_machinery_is_short():
    assert len(Path(exercises.__file__).read_text().splitlines()) <= 150


def test_numbers_from_everywhere():
    import numpy as np
    import torch

    assert [plain(v) for v in (3.0, torch.tensor(3), np.float64(3), np.array(3))] == [3, 3, 3, 3]
    assert plain(2.5) == 2.5 and plain([1]) == [1] and plain("3") == "3"
    compare([torch.tensor(1.0), 2], (1, 2.001), near=0.01)


def test_compare_names_the_answer_where_no_hint_fits():
    with pytest.raises(Wrong, match="7 is not it"):
        compare(7, 8)


def test_a_failing_function_of_the_reader_is_a_hint():
    with pytest.raises(Wrong, match=r"your function stops for \(1, 0\) with ZeroDivisionError"):
        attempt(lambda a, b: a / b, 1, 0)


def test_a_fingerprint_forgives_spaces_and_capitals():
    assert fingerprint("3.3", " B ") == fingerprint("3.3", "b") != fingerprint("3.4", "b")
