"""What the thread that draws sends, and when: seen from a page that keeps a list, and by a clock of the test's own."""

import time
import types
from itertools import pairwise

import pytest
from matplotlib.figure import Figure
from servers import WAIT

from vgg_course import curves, live_page, tracking
from vgg_course.tracking import LossTracker


class Page:
    """In the place of a server's page: its windows, and what it was asked to do since ``news`` was last called."""

    url = "http://localhost:1/env/list"

    def __init__(self) -> None:
        self.windows: set[str] = set()
        self.asked: list[str] = []

    def has(self, window: str) -> bool:
        return window in self.windows

    def show(self, window: str, message: dict) -> None:
        self.windows.add(window)
        self.asked.append(f"show {window.rpartition(' ')[0]}")

    def close(self, window: str) -> None:
        self.windows.discard(window)
        self.asked.append(f"close {window.rpartition(' ')[0]}")

    def news(self, tracker: LossTracker) -> list[str]:
        """What a drawing now brings: in mode "log" the tracker's own thread sends nothing."""
        tracker._absorb()
        tracker._send()
        asked, self.asked = self.asked, []
        return asked


@pytest.fixture
def page():
    return Page()


@pytest.fixture
def tracker(page):
    tracker = LossTracker("list", mode="log")
    tracker._page = page
    return tracker


def test_only_what_is_new_is_sent(page, tracker):
    tracker(0, {"loss": 1.0, "learning_rate": 0.1})
    assert page.news(tracker) == ["show loss", "show learning rate"]
    assert page.news(tracker) == []
    tracker(1, {"loss": 0.5})
    assert page.news(tracker) == ["show loss"]
    page.windows.clear()  # a server that was started anew
    assert page.news(tracker) == ["show loss", "show learning rate"]
    assert page.news(tracker) == []


def test_each_message_has_a_version_of_its_own(monkeypatch):
    """The page of visdom 0.3.0 draws nothing anew without it; that of 0.2.4, in the browser tests, does not ask."""
    versions = []
    for _ in range(2):  # the second one as after a restart of the kernel
        page = live_page.Page("http://localhost", 1, "", "versions")
        monkeypatch.setattr(page, "_ask", lambda _, message: versions.append(message["version"]) or message["win"])
        page.show("loss", {})
        page.show("loss", {})
        time.sleep(0.05)
    assert versions == sorted(set(versions)) and versions[-1] < 2**53  # whole numbers that JavaScript knows


def test_pictures_stand_behind_plots_and_are_sent_once(page, tracker):
    tracker.figure("a picture", Figure(figsize=(1, 1)))
    assert page.news(tracker) == ["show a picture 0"]
    tracker(0, {"loss": 1.0})
    assert page.news(tracker) == ["close a picture 0", "show loss", "show a picture 1"]  # behind one plot
    tracker(1, {"loss": 0.5})
    assert page.news(tracker) == ["show loss"]
    assert page.news(tracker) == []


def test_an_overlaid_run_without_an_epoch_has_no_line_yet(page, tracker):
    tracker.overlay("earlier", {"train_loss": ([], []), "validation_accuracy": ([], [])})
    tracker(3, {"epoch": 1, "train_loss": 2.0, "validation_accuracy": 0.5})
    assert page.news(tracker) == ["show loss", "show accuracy"]
    assert [len(curves.lines(name, tracker._curves, tracker._others)[1]) for name in ("loss", "accuracy")] == [1, 1]


def test_windows_of_the_run_before_are_closed_once(page, tracker):
    for step in range(3):
        tracker(step, {"loss": 1.0, "noise": 0.1})
    assert page.news(tracker) == ["show loss", "show noise"]
    tracker(3, {"loss": 1.0, "noise": 0.1})
    tracker(0, {"loss": 9.0})  # it begins again, without the noise
    assert page.news(tracker) == ["close noise", "show loss"]
    assert set(tracker._sent) == {"loss"}  # so the other one is not missed
    assert page.news(tracker) == []


def test_a_drawing_that_fails_ends_the_plot_and_not_the_training(page, tracker, monkeypatch, capsys):
    def fail(window, message):
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(page, "show", fail)
    tracker._mode = "visdom"  # its own thread sends
    capsys.readouterr()
    tracker(0, {"loss": 1.0})
    tracker._thread.join(WAIT)
    tracker(1, {"loss": 0.5})
    assert capsys.readouterr().out == "the plot of 'list' has stopped: RuntimeError('a mistake of ours')\n"
    tracker(2, {"loss": 0.5})
    assert capsys.readouterr().out == "" and tracker._curves["loss"].first == 0
    for step in range(3, 2_000):  # nobody draws: no queue grows, and what is left below the cell is all of the run
        tracker(step, {"loss": 0.25})
    assert len(tracker._queue) <= 1
    assert curves.picture_of("list", tracker._curves, {})[1] == "plot of 'list', last: loss 0.25"
    tracker.close()
    tracker(2_000, {"loss": 0.125})  # it is tried once more
    tracker.close()
    assert "has stopped" in capsys.readouterr().out and tracker._curves["loss"].points()[1][-1] == 0.125


def test_a_picture_that_was_there_before_the_first_value_of_its_name(page, tracker):
    tracker.figure("noise", Figure(figsize=(1, 1)))
    assert page.news(tracker) == ["show noise 0"]
    tracker(0, {"noise": 1.0})
    assert page.news(tracker) == ["close noise 0", "show noise", "show noise (picture) 1"]
    tracker(1, {"rate": 1.0})  # not drawn yet
    tracker.figure("rate", Figure(figsize=(1, 1)))
    assert set(tracker._pictures) == {"noise (picture)", "rate (picture)"}


def test_a_line_of_the_log_stands_there_when_its_epoch_ends(capsys):
    tracker = LossTracker("now", mode="log")
    capsys.readouterr()
    tracker(9, {"loss": 0.5})
    assert capsys.readouterr().out == ""
    tracker(9, {"epoch": 1, "train_loss": 0.25})
    assert capsys.readouterr().out == "now: epoch 1, train_loss 0.25\n"


def test_a_server_that_is_not_there_is_looked_for_more_and_more_rarely(monkeypatch):
    now, looked = 0.0, []

    def nobody(env):
        looked.append(now)
        raise ConnectionError("nobody there")

    monkeypatch.setattr(tracking, "time", types.SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(live_page, "find", nobody)
    tracker = LossTracker("patient", mode="log")
    while now < 200:
        tracker._send()
        now += 0.25
    pauses = [after - before for before, after in pairwise(looked)]
    assert looked[0] == 2 and pauses[0] == 3
    assert pauses == sorted(pauses) and pauses[-2:] == [30, 30]


def test_drawing_takes_a_hundredth_of_the_time(tracker, monkeypatch):
    """After a drawing of 0.05 s the thread rests for 5 s, by a clock of the test's own; the rests are only noted."""
    rests, now = [], [0.0]
    stop = types.SimpleNamespace(is_set=lambda: len(rests) == 3, wait=rests.append)
    monkeypatch.setattr(tracking, "LONGEST", 30.0)
    monkeypatch.setattr(tracking.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(tracker, "_absorb", lambda: now.append(now.pop() + 0.05))
    monkeypatch.setattr(tracker, "_changed", {"loss"})
    tracker._draw_on(stop)
    assert rests == [pytest.approx(5)] * 3 + [0]


def test_the_end_waits_five_seconds_at_most(tracker):
    class Stuck:
        def join(self, seconds=None):
            self.seconds = seconds

    tracker._thread = stuck = Stuck()
    tracker.close()
    assert stuck.seconds == 5


def test_a_stop_during_the_end_leaves_a_tracker_that_draws(tracker):
    class Stopped:
        def join(self, seconds=None):
            raise KeyboardInterrupt

    tracker._thread = Stopped()
    with pytest.raises(KeyboardInterrupt):
        tracker.close()
    tracker(0, {"loss": 1.0})
    assert tracker._thread.is_alive() and not tracker._stop.is_set()


def test_a_line_stands_above_the_bar_of_a_terminal(tracker, monkeypatch):
    said = []
    monkeypatch.setattr(tracking.tqdm, "write", said.append)
    tracker._notes.append("a line")
    tracker(0, {"loss": 1.0})
    assert said == ["a line"]


def test_a_server_that_lets_the_lectures_function_wait_is_asked_rarely(monkeypatch, capsys):
    asked, now = [], [100.0]

    def slow(*_):
        asked.append(now[0])
        now[0] += 3.0
        raise ConnectionError("nobody answers")

    monkeypatch.setattr(live_page.Page, "_ask", slow)
    monkeypatch.setattr(live_page.time, "monotonic", lambda: now[0])
    for step in range(1000):
        tracking.append_to_window("theirs", step, 0.5)
        now[0] += 1.0
    assert len(asked) == 4 and capsys.readouterr().out == "loss_tracker: nobody answers\n"
    tracking._silent.clear()
