"""The judges of the exercises. That they take the notebooks' own solutions, too, tests/e2e/test_lab.py proves."""

import importlib
import itertools
import json
import re
from pathlib import Path

import pytest
import torch
from right_answers import RIGHT

from vgg_course import exercises
from vgg_course.exercises import EXERCISES, Wrong, attempt, check, compare, fingerprint, nb03, plain
from vgg_course.training import History

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
def test_right_answers_are_told_why(name, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # for the leaderboard
    assert RIGHT[name]
    for answer, part, *given in RIGHT[name]:
        words = said(capsys, name, answer, **(given[0] if given else {}))
        assert words.startswith(f"{name} ✓ Right. ") and part in words, words


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


def test_the_stop_button_stops_all_trainings_of_3_7(monkeypatch):
    trained = []
    cut_off = History(steps_per_epoch=1, interrupted=True)
    monkeypatch.setattr(nb03, "fit", lambda *_, **__: trained.append(True) or cut_off)
    with pytest.raises(KeyboardInterrupt):
        nb03.high_rate(0.5, lambda: None, None)
    assert trained == [True]


def test_an_unknown_exercise_is_named():
    with pytest.raises(ValueError, match=r"no exercise '1\.99'; there is 1\.1, 1\.2"):
        check("1.99", 3)
    with pytest.raises(ValueError, match="no exercise '99.1'; there is 1.1, for instance"):
        check("99.1", 3)
    with pytest.raises(ValueError, match="no exercise 'x'"):
        check("x", 3)


def test_the_machinery_is_short():
    assert len(Path(exercises.__file__).read_text(encoding="utf-8").splitlines()) <= 150


def test_numbers_from_everywhere():
    import numpy as np

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


def test_no_careful_list_sees_60_pixels_with_fewer_parameters_than_exercise_2_7_says(capsys):
    small = 27_258
    found = {}
    for blocks in itertools.product([0, 1, 2, 3], repeat=5):  # so many layers before each pool, then a last one
        entries = [v for count in blocks if count for v in [*[16] * count, "M"]]
        for last in ([*entries, 128], [*entries, 128, "M"]):
            side, step = 1, 1
            for v in last:
                side, step = (side + step, 2 * step) if v == "M" else (side + 2 * step, step)
            if side >= 60 and last.count("M") <= 5:
                channels = [v for v in last if v != "M"]
                pairs = zip([3, *channels], channels, strict=False)
                found[tuple(last)] = sum(9 * a * b + b for a, b in pairs) + 129 * 10
    best = min(found, key=found.get)
    assert found[best] == small
    assert f"needs {small:,}; yours has 1.0 times that" in said(capsys, "2.7", best)


def test_an_odd_list_is_right_in_2_7_with_a_remark(capsys):
    words = said(capsys, "2.7", [1, "M"] * 4 + [128])
    assert words.startswith("2.7 ✓ Right.") and "goes through 1 channels" in words


def test_the_leaderboard_keeps_each_try(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert "Place 1 of 1 on this machine with digits; the best is 80.0% in 100 s." in said(
        capsys, "5.6", (0.8, 100), dataset="digits"
    )
    assert "Place 2 of 2" in said(capsys, "5.6", (0.7, 20), dataset="digits")
    assert "Place 1 of 3" in said(capsys, "5.6", (0.8, 50), dataset="digits")
    assert "Place 1 of 1" in said(capsys, "5.6", (0.5, 50), dataset="cifar10")
    said(capsys, "5.6", (float("nan"), 50), dataset="cifar10")
    assert len(json.loads((tmp_path / "runs" / "leaderboard.json").read_text(encoding="utf-8"))["cifar10"]) == 1


@pytest.mark.parametrize(
    ("name", "answer", "given"),
    [
        ("4.1", (0.1, torch.rand(10)), {}),
        ("4.6", 10**400, {}),
        ("4.9", lambda ask, pixels, labels, epsilon: pixels.double(), WRONG["4.9"][0][2]),
        ("5.3", (torch.rand(2), 1), {}),
        ("6.4", lambda width, height: (torch.rand(2), 0, 30, 30), {}),
        ("6.4", lambda width, height: torch.rand(4), {}),
    ],
    ids=lambda value: f"{value}"[:9],  # 400 digits are too many for a name
)
def test_odd_tensors_and_numbers_are_wrong_and_no_error(name, answer, given, capsys):
    assert said(capsys, name, answer, **given).startswith(f"{name} ✗ Not yet. ")


def test_logits_may_come_from_a_device(capsys):
    class OnDevice(torch.Tensor):
        """Like a tensor on a GPU: it is not compared with one that is elsewhere."""

        def __eq__(self, other):
            raise RuntimeError("Expected all tensors to be on the same device")

        def cpu(self):
            return self.as_subclass(torch.Tensor)

    answer, _, given = RIGHT["6.6"][0]
    assert said(capsys, "6.6", answer.as_subclass(OnDevice), **given).startswith("6.6 ✓ Right. ")


@pytest.mark.parametrize("answer", [torch.eye(3) > 0, torch.eye(3).long(), torch.eye(3).to(torch.complex64)])
def test_what_are_no_logits(answer, capsys):
    words = said(capsys, "6.6", answer, labels=torch.arange(3), bar=1.0)
    assert words.startswith("6.6 ✗") and "logits are fractions, not torch." in words


@pytest.mark.parametrize("left", ['{"digits": [[0.8, ', "\xff", "[]"])
def test_a_leaderboard_that_was_cut_off_begins_anew(left, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "leaderboard.json").write_bytes(left.encode("latin1"))
    assert "Place 1 of 1" in said(capsys, "5.6", (0.8, 100), dataset="digits")


def test_a_leaderboard_that_cannot_be_written_is_as_it_was(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    said(capsys, "5.6", (0.8, 100), dataset="digits")
    before = (tmp_path / "runs" / "leaderboard.json").read_bytes()

    def full_disk(file, content, **_):
        with open(file, "wb") as stream:
            stream.write(b"[")
        raise OSError(28, "No space left on device")

    for name in ("write_bytes", "write_text"):
        monkeypatch.setattr(Path, name, full_disk)
    words = said(capsys, "5.6", (0.7, 100), dataset="digits")
    assert words.startswith("5.6 ✓ Right. Place 2 of 2") and "kept in" in words and "(No space left" in words
    assert (tmp_path / "runs" / "leaderboard.json").read_bytes() == before
