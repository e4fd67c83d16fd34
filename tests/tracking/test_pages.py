"""What stands on the page: runs again, over each other, of two processes; pictures; the lecture's own window."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from servers import PATIENTLY, ROOT, WAIT, eventually, needs_page
from small_run import EPOCHS, check_drawn, check_same, train

from vgg_course.tracking import LossTracker, loss_tracker


@needs_page
def test_the_same_run_again_replaces_its_plot(visdom, alone):
    with LossTracker("again") as tracker:
        train(tracker)
        tracker.figure("extra", Figure(figsize=(2, 2)))
    with LossTracker("again") as tracker:  # the cell is run again
        for step in range(3):
            tracker(step, {"loss": 9.0})
    windows = json.loads(visdom.ask("win_data", eid=tracker._page.env, win=None))
    assert [window.partition(" ")[0] for window in windows] == ["loss"]
    assert visdom.lines(f"loss {tracker._token}", tracker._page.env)["training, each step"][0] == [0, 1, 2]
    with tracker:  # only the training is run again, with the same tracker
        run = train(tracker)
    check_same(run, alone)
    check_drawn(visdom, tracker, run[0])
    for step in range(5):
        tracker(step, {"loss": 8.0})
    tracker.close()
    assert visdom.lines(f"loss {tracker._token}", tracker._page.env)["training, each step"] == (
        [0, 1, 2, 3, 4],
        [8.0] * 5,
    )
    windows = json.loads(visdom.ask("win_data", eid=tracker._page.env, win=None))
    assert [window.partition(" ")[0] for window in windows] == ["loss"]


@needs_page
def test_several_runs_over_each_other(visdom):
    for name, rate in (("one <b>", 1.0), ("two", 2.0)):
        with LossTracker(name) as tracker:
            for step in range(4):
                tracker(step, {"loss": rate * step})
            tracker(3, {"epoch": 1, "train_loss": rate, "validation_loss": rate, "validation_accuracy": 0.5})
            tracker.overlay("one <b>") if name == "two" else None
    tracker.overlay("recorded", {"validation_accuracy": ([1, 2], [0.1, 0.2])})
    with pytest.raises(ValueError, match="there is no run 'three' here, only 'one <b>', 'two'"):
        tracker.overlay("three")
    tracker(4, {"loss": 8.0})
    tracker.close()
    env = tracker._page.env
    assert list(visdom.lines(f"loss {tracker._token}", env)) == [
        "training, each step", "training, mean of the epoch", "validation",
        "one &lt;b&gt;: training, mean of the epoch", "one &lt;b&gt;: validation",
    ]  # fmt: skip
    assert visdom.lines(f"accuracy {tracker._token}", env)["recorded: validation"] == ([1, 2], [0.1, 0.2])
    later = {"validation_accuracy": (np.arange(1, 2), np.array([0.3]))}
    tracker.overlay("later", later)  # also when it has been closed
    eventually(lambda: "later: validation" in visdom.lines(f"accuracy {tracker._token}", env))
    tracker.close()


@needs_page
def test_images_and_figures(visdom):
    tracker = LossTracker("pictures")
    tracker.images(torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8), torch.zeros(20).long(), ["<cat>"])
    tracker.figure("confusion matrix", Figure(figsize=(4, 2)))
    eventually(lambda: len(json.loads(visdom.ask("win_data", eid=tracker._page.env, win=None))) == 2)
    tracker(0, {"loss": 1.0, "learning_rate": 0.1})
    tracker(0, {"epoch": 1, "validation_accuracy": 0.5})
    tracker.close()
    windows = json.loads(visdom.ask("win_data", eid=tracker._page.env, win=None))  # in the order of the page
    titles = ["loss", "accuracy", "learning rate", "confusion matrix", "first batch"]
    assert [windows[name]["title"] for name in windows] == titles
    for title in ("first batch", "confusion matrix"):
        window = windows[tracker._sent[title]]
        assert window["title"] == title and window["content"]["src"].startswith("data:image/png;base64,")
    nowhere = LossTracker("pictures", mode="log")  # no page: nothing to do
    nowhere.figure("nowhere", Figure())
    nowhere.images(torch.zeros(20, 3, 8, 8), torch.zeros(20).long())
    assert not nowhere._pictures and nowhere._thread is None


@needs_page
def test_a_figure_called_as_a_plot_of_the_run_does_not_replace_it(visdom):
    with LossTracker("same title") as tracker:
        tracker(0, {"loss": 1.0, "noise": 2.0})
        for title in ("loss", "noise", "accuracy", "loss"):
            tracker.figure(title, Figure(figsize=(2, 2)))
        tracker(1, {"loss": 0.5, "noise": 1.0})
    windows = json.loads(visdom.ask("win_data", eid=tracker._page.env, win=None)).values()
    found = sorted((window["title"], window["type"]) for window in windows)
    plots, pictures = ["loss", "noise"], ["accuracy (picture)", "loss (picture)", "noise (picture)"]
    assert found == sorted([(title, "plot") for title in plots] + [(title, "image") for title in pictures])
    for title in plots:
        (line,) = visdom.lines(f"{title} {tracker._token}", tracker._page.env).values()
        assert line[0] == [0, 1]


@needs_page
def test_two_processes_with_one_run_name_have_two_plots(visdom):
    code = "from vgg_course.tracking import LossTracker\nwith LossTracker('same') as t: t(0, {'loss': %s})"
    processes = [subprocess.Popen([sys.executable, "-c", PATIENTLY + code % value], cwd=ROOT) for value in (1.0, 2.0)]
    assert [process.wait(WAIT) for process in processes] == [0, 0]
    windows = json.loads(visdom.ask("win_data", eid="vgg_course_same", win=None))
    assert sorted(window["content"]["data"][0]["y"] for window in windows.values()) == [[1.0], [2.0]]


@needs_page
def test_the_lectures_function_works_unchanged(mortal, capsys):
    tracker = LossTracker("lecture")
    loss_tracker(tracker, torch.Tensor([0.7]), torch.Tensor([30]))
    tracker.close()
    assert mortal.lines(f"loss {tracker._token}", tracker._page.env)["training, each step"] == (
        [30],
        [pytest.approx(0.7)],
    )
    # and with a window that the lecture's own code has opened in "main"
    plot = {"type": "scatter", "mode": "lines", "name": "1", "x": [0], "y": [0.0]}
    mortal.ask("events", win="theirs", eid="main", data=[plot], layout={}, opts={"title": "loss_tracker"})
    loss_tracker("theirs", torch.Tensor([0.5]), torch.Tensor([30]))
    loss_tracker("theirs", torch.Tensor([math.inf]), torch.Tensor([60]))
    assert mortal.lines("theirs", "main") == {"1": ([0, 30.0, 60.0], [0.0, 0.5, None])}
    capsys.readouterr()
    mortal.kill()
    for step in range(3):
        loss_tracker("theirs", torch.Tensor([0.5]), torch.Tensor([step]))
    loss_tracker(False, torch.Tensor([0.5]), torch.Tensor([3]))  # the window that visdom gives where nobody answers
    assert capsys.readouterr().out.splitlines() == [
        f"loss_tracker: no visdom server answers at http://localhost:{mortal.port}"
    ]


def test_a_script_logs_a_line_for_each_epoch(alone, capsys):
    with LossTracker("script") as tracker:
        history = train(tracker)[0]
    said = capsys.readouterr()
    _, *lines = said.out.splitlines()
    assert said.err == "" and len(lines) == EPOCHS
    assert lines[1] == (
        f"script: epoch 2, train_loss {history.train_loss[1]:.4g}, validation_loss {history.validation_loss[1]:.4g}, "
        f"validation_accuracy {history.validation_accuracy[1]:.4g}"
    )


def test_off_is_off(alone, capsys, monkeypatch):
    monkeypatch.setenv("VGG_COURSE_PLOT", "off")
    tracker = LossTracker("nothing")
    check_same(train(tracker), alone)
    assert capsys.readouterr().out == "plot of 'nothing': off (asked for off)\n" and tracker._thread is None
