"""The plot moves while the cell runs: in JupyterLab, in a browser, on a real visdom server."""

import contextlib
import json
import time
from pathlib import Path

import pytest

NOTEBOOK_03 = Path(__file__).parents[2] / "notebooks" / "03_train_cifar10.ipynb"
CELL = """
import math, time
from vgg_course.tracking import LossTracker

with LossTracker("quick") as tracker:
    for step in range(750):
        loss = 2.3 * math.exp(-step / 300) + 0.1 * math.sin(step)
        tracker(step, {"loss": loss, "learning_rate": 1e-3 * (750 - step)})
        if step % 75 == 74:
            values = {"train_loss": 2.3 * math.exp(-step / 300), "validation_loss": 2.4 * math.exp(-step / 350)}
            tracker(step, {"epoch": step // 75 + 1, **values, "validation_accuracy": 1 - math.exp(-step / 300)})
        time.sleep(0.02)
"""
# calcdata: what plotly has drawn; plot.data is only what it was given.
POINTS = "() => document.querySelector('.js-plotly-plot')?.calcdata?.[0].length ?? 0"


def notebook(*cells: str) -> str:
    cells = [
        {"cell_type": "code", "execution_count": None, "id": f"c{i}", "metadata": {}, "outputs": [], "source": cell}
        for i, cell in enumerate(cells)
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return json.dumps({"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5})


def visdom_frame(page, seconds: float):
    """The frame of the visdom page below a cell, once it shows a plot."""
    from playwright.sync_api import Error  # without Playwright these tests are skipped

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for frame in page.frames:
            with contextlib.suppress(Error):  # JupyterLab may draw the output anew, with another frame
                if "/env/vgg_course" in frame.url and frame.evaluate(POINTS):
                    return frame
        page.wait_for_timeout(200)
    raise TimeoutError(f"no live plot in {seconds:g} s; frames: {[frame.url for frame in page.frames]}")


def three_counts(page, frame, apart: float = 1.5, seconds: float = 60) -> list[int]:
    """The number of points in the page's first plot, read three times while it grows."""
    counts, deadline = [frame.evaluate(POINTS)], time.monotonic() + seconds
    while len(counts) < 3 and time.monotonic() < deadline:
        page.wait_for_timeout(1000 * apart)
        count = frame.evaluate(POINTS)
        if count > counts[-1]:
            counts.append(count)
    return counts


def test_the_plot_grows_while_the_cell_runs(lab, open_notebook, screenshots):
    (lab.folder / "throw_away.ipynb").write_text(notebook(CELL, "'the next cell'"), encoding="utf-8")
    opened = open_notebook("throw_away.ipynb")
    opened.run_all()
    frame = visdom_frame(opened.page, 60)
    assert frame in opened.frames()
    counts = three_counts(opened.page, frame)
    opened.page.screenshot(path=screenshots / "live.png")
    assert len(counts) == 3, counts
    opened.wait_until_done(60)
    opened.page.wait_for_timeout(500)
    opened.page.screenshot(path=screenshots / "done.png")
    outputs = opened.saved()["cells"][0]["outputs"]
    assert [output["output_type"] for output in outputs] == ["stream", "display_data"]
    assert outputs[0]["name"] == "stdout" and len(outputs[0]["text"]) == 1
    assert "image/png" in outputs[1]["data"]  # a picture stays, no frame of a server that will be gone
    assert "last: loss" in "".join(outputs[1]["data"]["text/plain"])


@pytest.mark.skipif(not NOTEBOOK_03.exists(), reason="there is no notebook 03")
def test_notebook_03_shows_the_training_live(open_notebook, screenshots):
    opened = open_notebook(NOTEBOOK_03.name)
    opened.run_all()
    frame = visdom_frame(opened.page, 240)
    assert frame in opened.frames()
    frame.frame_element().scroll_into_view_if_needed()
    counts = three_counts(opened.page, frame, apart=0.2)  # the training is short
    opened.page.screenshot(path=screenshots / "notebook 03 live.png")
    assert len(counts) == 3, counts
