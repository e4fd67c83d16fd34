"""The plot moves while the cell runs: in JupyterLab, in a browser, on a real visdom server (03: see test_lab.py)."""

import json

CELL = """
import math, os, time
from vgg_course.tracking import LossTracker

with LossTracker("quick") as tracker:
    for step in range(6000):
        if os.path.exists("seen"):
            break
        loss = 2.3 * math.exp(-step / 300) + 0.1 * math.sin(step)
        tracker(step, {"loss": loss, "learning_rate": 1e-3 * (6000 - step)})
        if step % 75 == 74:
            values = {"train_loss": 2.3 * math.exp(-step / 300), "validation_loss": 2.4 * math.exp(-step / 350)}
            tracker(step, {"epoch": step // 75 + 1, **values, "validation_accuracy": 1 - math.exp(-step / 300)})
        time.sleep(0.02)
"""


def notebook(*cells: str) -> str:
    cells = [
        {"cell_type": "code", "execution_count": None, "id": f"c{i}", "metadata": {}, "outputs": [], "source": cell}
        for i, cell in enumerate(cells)
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return json.dumps({"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5})


def test_the_plot_grows_while_the_cell_runs(lab, open_notebook, screenshots):
    (lab.folder / "throw_away.ipynb").write_text(notebook(CELL, "'the next cell'"), encoding="utf-8")
    opened = open_notebook("throw_away.ipynb")
    opened.run_all()
    assert len(opened.plot_grows()) == 3
    (lab.folder / "seen").touch()  # the cell runs until then
    opened.page.screenshot(path=screenshots / "live.png")
    opened.wait_until_done(60)
    opened.page.wait_for_timeout(500)
    opened.page.screenshot(path=screenshots / "done.png")
    outputs = opened.saved()["cells"][0]["outputs"]
    assert [output["output_type"] for output in outputs] == ["stream", "display_data"]
    assert outputs[0]["name"] == "stdout" and len(outputs[0]["text"]) == 1
    assert "image/png" in outputs[1]["data"]  # a picture stays, no frame of a server that will be gone
    assert "last: loss" in "".join(outputs[1]["data"]["text/plain"])
