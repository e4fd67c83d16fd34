"""Every notebook in JupyterLab, as a learner meets it: run all cells, on the digits, in a browser.

The exercises are solved with the solutions folded below them, and ``check`` has to take each for right. In the same run
the live plot of 03 grows. Then each control of each widget is moved, and the words of the head lead to the glossary.
"""

import json
import re
import time
from pathlib import Path

import pytest

NOTEBOOKS = sorted(path.name for path in (Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
INTERACTIVE = ("01", "02", "04")
# A notebook of one cell, with a figure that is not there.
CELL = {"cell_type": "markdown", "id": "a", "metadata": {}, "source": "![none](figures/none.svg)"}
NOTEBOOK = json.dumps({"cells": [CELL], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
# What a widget shows: its picture, and what it says in red.
SHOWN = """(widget) => ({
    picture: widget.querySelector("img")?.src,
    trouble: [...widget.querySelectorAll("[data-mime-type$='jupyter.error'], [data-mime-type$='jupyter.stderr']")]
        .map((output) => output.innerText).join("\\n"),
})"""


def test_a_figure_that_is_missing_is_noticed(lab, open_notebook):
    """First, for a Lab that is told to end while it answers a page waits for that thread for ever, and is killed."""
    (lab.folder / "missing.ipynb").write_text(NOTEBOOK, encoding="utf-8")
    opened = open_notebook("missing.ipynb")
    opened.page.locator(".jp-Notebook img").wait_for(state="attached")
    with pytest.raises(AssertionError, match=r"figures/none\.svg"):
        opened.images()
    assert [error for error in opened.errors if "404" in error and "figures/none.svg" in error], opened.errors


def test_a_notebook_is_saved_twice_where_lab_is_slow(lab, open_notebook):
    """Lab takes no second save before the checkpoint of the first is written, and does not say so."""
    (lab.folder / "twice.ipynb").write_text(NOTEBOOK, encoding="utf-8")
    opened, asked = open_notebook("twice.ipynb"), []

    def late(route) -> None:
        asked.append(route.request.method)
        time.sleep(2)
        route.continue_()

    opened.page.route("**/twice.ipynb/checkpoints*", late)
    first = opened.saved()
    assert opened.saved() == first and "POST" in asked


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_run_all(name, open_notebook, screenshots):
    opened = open_notebook(name)
    opened.run_all()
    if name.startswith("03"):  # the training is short
        assert len(opened.plot_grows(appears=300, apart=0.2)) == 3
        opened.page.screenshot(path=screenshots / "notebook 03 live.png")
    opened.wait_until_done(600)
    opened.page.screenshot(path=screenshots / f"{Path(name).stem}.png")
    cells = opened.saved()["cells"]
    for cell in cells:
        source, outputs = "".join(cell["source"]), cell.get("outputs", [])
        if cell["cell_type"] == "code" and source.strip():
            errors = [output for output in outputs if output["output_type"] == "error"]
            assert not errors or "raises-exception" in cell["metadata"].get("tags", []), f"{source[:200]}\n{errors}"
            assert cell["execution_count"], f"not run: {source[:200]}"
            if exercise := re.search(r'^check\("([\d.]+)"', source, flags=re.M):
                shown = "".join("".join(output.get("text", "")) for output in outputs)
                assert f"{exercise[1]} ✓ Right." in shown, f"{source}\n{shown}"
    opened.frames()
    markdown = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    drawn = sum("image/png" in output.get("data", {}) for cell in cells for output in cell.get("outputs", []))
    assert opened.images() >= drawn + markdown.count("](figures/") > 0
    widgets = opened.page.locator(".widget-interact")
    interactive = [c for c in cells if c["cell_type"] == "code" and "interact(" in "".join(c["source"])]
    assert widgets.count() == len(interactive) >= (name[:2] in INTERACTIVE)
    for number in range(widgets.count()):
        assert move_all_controls(widgets.nth(number)) >= 2
        opened.page.screenshot(path=screenshots / f"{Path(name).stem} widget {number + 1}.png")
    if name == NOTEBOOKS[0]:
        to_the_glossary_and_back(opened.page)
        opened.page.screenshot(path=screenshots / "from the glossary.png")
    assert not opened.errors, opened.errors


def move_all_controls(widget) -> int:
    """Move each slider, choose another entry of each list, click each box. Each time the picture below changes."""
    widget.scroll_into_view_if_needed()
    controls = widget.locator(".noUi-handle, select, input[type=checkbox]")
    for number in range(controls.count()):
        control, before = controls.nth(number), widget.evaluate(SHOWN)
        assert before["picture"] and not before["trouble"], before["trouble"]
        kind = control.evaluate("(element) => element.tagName")
        if kind == "SELECT":
            entries, chosen = control.evaluate("(list) => [list.length, list.selectedIndex]")
            control.select_option(index=(chosen + 1) % entries)
        elif kind == "INPUT":
            control.click()
        else:
            control.press("ArrowRight")
        deadline = time.monotonic() + 30
        while (shown := widget.evaluate(SHOWN)) == before or not (shown["picture"] or shown["trouble"]):
            assert time.monotonic() < deadline, f"control {number + 1} changes nothing: {widget.inner_text()}"
            widget.page.wait_for_timeout(100)
        assert not shown["trouble"], shown["trouble"]
    return controls.count()


def to_the_glossary_and_back(page) -> None:
    page.locator(".jp-Notebook a", has_text="glossary").first.click()
    glossary = page.locator(".jp-MarkdownViewer")
    glossary.get_by_role("heading", name="Glossary").wait_for()
    assert not page.locator(".jp-NotebookPanel").is_visible()
    glossary.get_by_role("link", name="01, section 7").first.click()
    page.locator(".jp-NotebookPanel").wait_for()
    heading = page.locator(".jp-Notebook h2", has_text="7. With which weights")
    page.wait_for_function(
        "(heading) => heading.getBoundingClientRect().top < innerHeight", arg=heading.element_handle()
    )
