"""The visdom page itself in a browser: what no number and no name may break."""

import math
import time

import pytest
import torch
from drawn import PATIENCE, POINTS
from ports import PATIENT

from vgg_course import live_page, own_server, tracking, visdom_server
from vgg_course.tracking import LossTracker

TITLES = ("loss", "learning rate", "accuracy", "first batch")
needs_page = pytest.mark.skipif(visdom_server.find_assets() is None, reason="fetch the page's files first: --assets")


@pytest.fixture
def page(browser, monkeypatch):
    """A browser's page that records what must not happen: errors and dialogs."""
    monkeypatch.setenv("VISDOM_PORT", "1")  # where nothing is: the tracker starts a server of its own
    monkeypatch.setattr(live_page, "TIMEOUT", PATIENT)
    monkeypatch.setattr(tracking, "LAST", PATIENCE / 1000)
    context = browser.new_context(viewport={"width": 900, "height": 700})
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.trouble = []
    page.on("pageerror", lambda error: page.trouble.append(str(error)))
    page.on("dialog", lambda dialog: (page.trouble.append(dialog.message), dialog.dismiss()))
    yield page
    context.close()
    for tracker in LossTracker._live.values():
        tracker.close()
    LossTracker._live.clear()


def points_in(page, wanted: int, seconds: float = PATIENCE / 1000) -> int:
    deadline = time.monotonic() + seconds
    while (count := page.evaluate(POINTS)) < wanted and time.monotonic() < deadline:
        page.wait_for_timeout(100)
    return count


@needs_page
def test_the_page_lives_on_after_numbers_that_are_none(page, screenshots):
    tracker = LossTracker("numbers", mode="visdom")
    tracker(0, {"loss": 1.0})
    page.goto(tracker._page.url)
    assert points_in(page, 1) == 1
    for step, value in enumerate([math.nan, math.inf, 0.5, -math.inf, 1e308, -1e308, 0.2, 0.1], start=1):
        tracker(step, {"loss": value})
    assert points_in(page, 9) == 9
    tracker(9, {"loss": 0.3})
    assert points_in(page, 10) == 10
    page.screenshot(path=screenshots / "numbers.png")
    page.reload()
    assert points_in(page, 10) == 10
    assert not page.trouble


@needs_page
def test_the_axes_of_one_epoch_and_of_more(page, screenshots):
    """A single point has no extent: the axes show whole epochs from 0, and all accuracies there are."""
    read = "() => { const {xaxis, yaxis} = document.querySelector('.js-plotly-plot')._fullLayout; "
    read += "return {epochs: xaxis._vals.map(tick => tick.text), accuracy: yaxis.range} }"
    tracker = LossTracker("axes", mode="visdom")
    tracker(100, {"epoch": 1, "validation_accuracy": 0.77})
    page.goto(tracker._page.url)
    assert points_in(page, 1) == 1
    page.wait_for_function("() => document.querySelector('.js-plotly-plot')._fullLayout.xaxis._vals")
    page.screenshot(path=screenshots / "one epoch.png")
    assert page.evaluate(read) == {"epochs": ["0", "1"], "accuracy": [0, 1]}
    for epoch in (2, 3):
        tracker(100 * epoch, {"epoch": epoch, "validation_accuracy": 0.77 + 0.01 * epoch})
    deadline = time.monotonic() + PATIENCE / 1000  # the points are there before they are drawn
    while len((axes := page.evaluate(read))["epochs"]) < 4 and time.monotonic() < deadline:
        page.wait_for_timeout(100)
    page.screenshot(path=screenshots / "three epochs.png")
    assert axes["epochs"] == ["0", "1", "2", "3"]
    low, high = axes["accuracy"]  # now the axis is fitted to the points
    assert 0.7 < low < 0.77 and 0.8 < high < 0.83
    assert not page.trouble


@needs_page
def test_plots_that_come_later_stand_above_the_pictures(page, screenshots):
    """The page is open before the first step, as below a cell, and keeps the places that windows have had."""
    read = "() => [...document.querySelectorAll('.react-grid-item.pane, .window')].map(pane => [pane.innerText, "
    read += "pane.getBoundingClientRect().top])"
    for run in range(2):  # the second one replaces the first
        tracker = LossTracker("places", mode="visdom")
        tracker.images(torch.zeros(16, 3, 8, 8, dtype=torch.uint8), torch.zeros(16).long(), ["cat"])
        if run == 0:
            page.goto(tracker._page.url)
            page.wait_for_selector("text=first batch")
        else:  # the windows of the first run go
            page.wait_for_selector("text=accuracy", state="detached")
        page.wait_for_timeout(500)
        for step in range(10):
            tracker(step, {"loss": 1.0, "learning_rate": 0.1})
        assert points_in(page, 10) == 10
        tracker(10, {"epoch": 1, "validation_accuracy": 0.5})
        deadline = time.monotonic() + PATIENCE / 1000
        while True:  # the windows move to their places
            tops = {name: top for text, top in page.evaluate(read) for name in TITLES if name in text}
            there = set(tops) == set(TITLES)
            if there and tops["loss"] == tops["learning rate"] == tops["accuracy"] < tops["first batch"]:
                break
            assert time.monotonic() < deadline, page.evaluate(read)
            page.wait_for_timeout(100)
        page.screenshot(path=screenshots / f"places {run}.png")
        tracker.close()
    assert not page.trouble


@needs_page
def test_200_000_points_are_drawn_as_some_thousand(page, screenshots):
    tracker = LossTracker("long", mode="visdom")
    for step in range(200_000):
        tracker(step, {"loss": math.exp(-step / 5e4) + 0.1 * math.sin(step) ** 9})
    tracker.close()
    page.goto(tracker._page.url)
    assert 1_000 < points_in(page, 1_000) <= 5_000
    page.screenshot(path=screenshots / "long.png")
    assert page.evaluate("1 + 1") == 2 and not page.trouble


@needs_page
@pytest.mark.parametrize(
    "name",
    ["a/b", " two  words ", "한국어", "🦊", "x" * 300, "<script>alert(1)</script>", 'it\'s "q" \\', "50% off? #1 & +2"],
)
def test_run_names(name, page, screenshots):
    with LossTracker("other <img src=x onerror=alert(2)>", mode="visdom") as other:
        other(0, {"loss": 2.0})
    with LossTracker(name, mode="visdom") as tracker:
        tracker.overlay("other <img src=x onerror=alert(2)>")
        for step in range(5):
            tracker(step, {"loss": 1.0, "<img src=x onerror=alert(3)>": 1.0})
    page.goto(tracker._page.url)
    assert points_in(page, 5) == 5
    page.screenshot(path=screenshots / f"name {ord(name[0])}.png")
    assert not page.trouble


@needs_page
def test_a_server_killed_in_the_middle_comes_back_to_the_open_page(page):
    tracker = LossTracker("killed", mode="visdom")
    for step in range(50):
        tracker(step, {"loss": 1.0})
    page.goto(tracker._page.url)
    assert points_in(page, 50) == 50
    killed = own_server._own.process
    killed.kill()
    for step in range(50, 100):
        tracker(step, {"loss": 1.0})
        time.sleep(0.05)
    deadline = time.monotonic() + 60
    while (own_server._own.process is killed or tracker._lost) and time.monotonic() < deadline:
        time.sleep(0.1)  # until the tracker has seen it, and has drawn on the next one
    page.reload()
    assert points_in(page, 100) == 100
