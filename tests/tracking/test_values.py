"""Every value, number of points and name comes through to the page, or is refused in words."""

import itertools
import json
import math

import numpy as np
import pytest
import requests
import torch
from servers import Door, eventually, needs_page

from vgg_course import curves, live_page
from vgg_course.tracking import LossTracker


@needs_page
def test_values_that_are_not_finite_are_gaps(visdom):
    tracker = LossTracker("gaps")
    values = [1.0, math.nan, 2.0, math.inf, 3.0, -math.inf, 4.0, 10**400, 5.0]
    for step, value in enumerate(values):
        tracker(step, {"loss": value})
    tracker.close()
    steps, drawn = visdom.lines(f"loss {tracker._token}", tracker._page.env)["training, each step"]
    assert steps == list(range(9))
    assert drawn == [1.0, None, 2.0, None, 3.0, None, 4.0, None, 5.0]


@needs_page
def test_every_kind_of_number(visdom):
    tracker = LossTracker("kinds")
    values = [
        1e308, -1e308, torch.tensor(0.5), torch.tensor([0.25]), torch.tensor([[2.0]], dtype=torch.bfloat16), 3,
        np.float32(0.125), np.array(4), torch.tensor(7), True, torch.tensor(1.5, requires_grad=True),
    ]  # fmt: skip
    if torch.cuda.is_available():
        values.append(torch.tensor([0.75], device="cuda"))
    for step, value in enumerate(values):
        tracker(torch.tensor(step), {"loss": value, "validation_loss": None})
    tracker.close()
    lines = visdom.lines(f"loss {tracker._token}", tracker._page.env)
    assert lines == {
        "training, each step": (
            list(range(len(values))),
            [float(getattr(value, "detach", lambda v=value: v)()) for value in values],
        )
    }


@needs_page
def test_a_value_may_be_called_as_a_window_of_ours(visdom):
    names = ("loss", "accuracy", "learning rate", "noise")
    with LossTracker("names") as tracker:
        for step in range(3):
            tracker(step, dict.fromkeys(names, 0.5))
    for name in names:
        (line,) = visdom.lines(f"{name} {tracker._token}", tracker._page.env).values()
        assert line == ([0, 1, 2], [0.5, 0.5, 0.5])


def test_values_may_have_numbers_for_names(capsys):
    """The accuracy of each class, say, beside a value of which nobody knows a place among the curves."""
    with LossTracker("classes", mode="log") as tracker:
        tracker(0, {0: 0.5, 1: 0.2, "noise": 1.0})
        tracker(1, {0: 0.6, 1: 0.1, "noise": 2.0})
    assert {name: curve.points() for name, curve in tracker._curves.items()} == {
        "0": ([0, 1], [0.5, 0.6]), "1": ([0, 1], [0.2, 0.1]), "noise": ([0, 1], [1.0, 2.0]),
    }  # fmt: skip
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_steps_that_begin_again_in_each_epoch_are_told_of_once(capsys):
    """As those of ``enumerate`` do; a second call of ``fit``, whose epochs have values of their own, is meant."""
    for values, notes in ({}, 1), ({"train_loss": 1.0}, 0):
        with LossTracker("again", mode="log") as tracker:
            for epoch in range(3):
                for step in range(5):
                    tracker(step, {"loss": 2.0})
                if values:
                    tracker(4, {"epoch": epoch + 1} | values)
        said = capsys.readouterr().out
        assert said.count("'again': step 0 came again, so the curves begin anew (if that was only a new") == notes
        assert tracker._curves["loss"].points()[0] == list(range(5))


def test_a_run_of_epochs_alone_begins_anew_too():
    """Without values of single steps, as in a loop that reports when an epoch ends; a run may go on at epoch 6."""
    with LossTracker("epochs", mode="log") as tracker:
        for first in (1, 1, 6):
            for epoch in range(first, first + 7):
                tracker(epoch - first, {"epoch": epoch, "train_loss": 1.0 / epoch, "validation_accuracy": 0.1 * epoch})
            tracker._absorb()
            assert tracker._curves["train_loss"].points()[0] == list(range(7))
            assert tracker._curves["validation_accuracy"].points()[0] == list(range(first, first + 7))


def test_epochs_that_begin_anew_while_steps_go_on(capsys):
    """The cell was run twice, and its loop counts the steps on: nothing is lost, whatever a step's value is called."""
    with LossTracker("on", mode="log") as tracker:
        for step in range(40):
            tracker(step, {"noise": 1.0})
            if step % 10 == 9:
                tracker(step, {"epoch": 1 + step // 10 % 2, "train_loss": 1.0, "validation_accuracy": 0.5})
        tracker._absorb()
        assert tracker._curves["noise"].points()[0] == list(range(40))
    assert "begin anew" not in capsys.readouterr().out
    with LossTracker("epochs alone", mode="log") as tracker:
        for step, epoch in enumerate((1, 2, 1, 2)):
            tracker(step, {"epoch": epoch, "error": 1.0, "validation_accuracy": 0.5})
        tracker._absorb()
        assert tracker._curves["error"].points()[0] == [2, 3]
    assert "epoch 1 came again, so the curves begin anew" in capsys.readouterr().out


def test_the_words_of_a_long_run_have_its_last_value(uncounted):
    curve = curves.Curve()
    for step in range(4_001):
        curve.add(step, [1.0, 3.0, 2.0][step % 3] if step < 4_000 else 2.5)
    _, words = curves.picture_of("long", {"loss": curve}, {})
    assert words == "plot of 'long', last: loss 2.5"


def test_a_tensor_on_a_device_is_read_by_the_drawing_thread_from_a_copy():
    waiting = torch.tensor([1.0], device="meta")  # a device whose values cannot be read: reading it would fail here
    kept = curves.number("loss", waiting)
    assert isinstance(kept, torch.Tensor) and kept is not waiting


def test_a_tensor_of_several_elements_is_refused():
    tracker = LossTracker("shape", mode="log")
    with pytest.raises(ValueError, match=r"loss must be a single number, not a tensor of shape \(2, 3\)"):
        tracker(0, {"loss": torch.zeros(2, 3)})
    with pytest.raises(ValueError, match="loss must be a real number, not a complex one"):
        tracker(0, {"loss": torch.tensor(1j)})
    with pytest.raises(ValueError, match="mode is 'page'"):
        LossTracker("shape", mode="page")


@needs_page
def test_steps_out_of_order_repeated_negative(visdom):
    tracker = LossTracker("order")
    for step, value in [(0, 1.0), (5, 2.0), (3, 3.0), (5, 4.0), (-2, 5.0), (-7, 6.0), (3, 7.0)]:
        tracker(step, {"loss": value})
    tracker.close()
    lines = visdom.lines(f"loss {tracker._token}", tracker._page.env)
    assert lines["training, each step"] == ([-7, -2, 0, 3, 5], [6.0, 5.0, 1.0, 7.0, 4.0])


@needs_page
def test_200_000_points(visdom, uncounted):
    tracker = LossTracker("long")
    for step in range(200_000):
        value = {77_777: 99.0, 123_456: -5.0}.get(step, math.sin(step / 1000))
        tracker(step, {"loss": value})
        assert len(tracker._queue) <= 1_001
    tracker.close()
    assert len(tracker._curves["loss"].buckets) <= curves.MAX_BUCKETS
    x, y = eventually(
        lambda: (
            (line := visdom.lines(f"loss {tracker._token}", tracker._page.env)["training, each step"])[0][-1] > 199_000
            and line
        )
    )
    assert 1_000 < len(x) <= 5_000 and x == sorted(set(x))
    assert y[x.index(77_777)] == 99.0 and y[x.index(123_456)] == -5.0
    assert max(b - a for a, b in itertools.pairwise(x)) < 1_000  # thinned evenly
    assert all(abs(v - math.sin(s / 1000)) < 1e-9 for s, v in zip(x, y, strict=True) if s not in (77_777, 123_456))


@needs_page
def test_200_000_points_while_the_drawing_thread_is_stuck(visdom, visdom_at, uncounted):
    door = Door(visdom.port, "open")
    visdom_at(door.port)
    tracker = LossTracker("stuck")
    door.mode = "silent"
    try:
        for step in range(200_000):
            tracker(step, {"loss": float(step % 1000)})
            assert len(tracker._queue) <= 1_001
        assert len(tracker._curves["loss"].points()[0]) <= 5_000
    finally:
        door.close()


def test_a_short_curve_loses_nothing():
    curve = curves.Curve()
    for step in range(3_000):
        curve.add(step, float(step * 7 % 13) if step % 50 else math.nan)
    steps, values = curve.points()
    assert steps == list(range(3_000))
    assert values == [float(step * 7 % 13) if step % 50 else None for step in steps]


def test_a_thinned_curve_keeps_extremes_and_gaps(uncounted):
    curve = curves.Curve()
    for step in range(100_000):
        curve.add(step, math.nan if step % 2 else float(step == 50_000))
    steps, values = curve.points()
    assert len(steps) <= 5_000 and 1.0 in values and None in values


NAMES = {
    "slash": "a/b", "blanks": " two  words ", "hangul": "한국어", "emoji": "🦊 run", "long": "x" * 300,
    "long hangul": "가" * 300, "script": "<script>alert(1)</script>",
    "quotes": "it's \"q\" \\ `", "url": "a?b#c%20&d+e:*|",
    "empty": "", "dots": "../..", "control": "a\nb\x00c", "surrogate": "a\udc80b",
}  # fmt: skip


@needs_page
def test_run_names(visdom):
    envs = {}
    for name in NAMES.values():
        with LossTracker(name) as tracker:
            tracker(0, {"loss": 1.0})
        envs[name] = tracker._page.env
        assert visdom.lines(f"loss {tracker._token}", tracker._page.env)["training, each step"] == ([0], [1.0])
        assert requests.get(tracker._page.url, timeout=60).status_code == 200
    assert len(set(envs.values())) == len(NAMES)
    assert set(json.loads(visdom.ask("env_state"))) >= {"main", *envs.values()}
    assert envs["한국어"] == "vgg_course_한국어"
    for env in envs.values():
        assert not set(env) & set("/\\<>'\"`?#%&+:*|\n\x00") and len(env.encode()) < 120
    assert json.loads(visdom.ask("save", data=list(envs.values()))) == list(envs.values())  # each is a file name too


def test_names_that_become_alike_stay_apart():
    assert len({live_page.env_name(name) for name in ("a/b", "a_b", "a?b", "a b", " a b")}) == 5


@pytest.mark.parametrize("epochs, accuracy", [([1], (0, 1)), ([1, 2, 3], None)])
def test_the_picture_counts_whole_epochs_from_0(epochs, accuracy, monkeypatch):
    monkeypatch.setattr(curves, "png", lambda figure: figure)
    style = {"name": "validation", "color": "red", "width": 1, "dash": False}
    line = {"x": epochs, "y": [0.7 + 0.01 * epoch for epoch in epochs], **style}
    (axis,) = curves.picture({"accuracy": ("epoch", [line])}).axes
    assert axis.get_xlim()[0] == 0 and all(tick == int(tick) for tick in axis.get_xticks())
    assert axis.lines[0].get_marker() == "s"  # training has round marks
    assert axis.get_ylim() == (accuracy or pytest.approx((0.709, 0.731), abs=1e-6))
