"""Film the live plot for the README: `python docs/make_live_plot.py`, with the environment of `make test` and CIFAR-10.

It opens notebook 03 in a real JupyterLab and a real browser, runs all cells up to the training, takes screenshots of
the training cell until it is done, and writes them to docs/live_plot.gif. Nothing is drawn or changed afterwards, only
the colours are rounded to a small palette. VGG_COURSE_FRAMES=folder keeps the screenshots.
"""

import io
import json
import os
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
from conftest import Lab, Notebook, browser_options, free_port  # noqa: E402

NAME = "03_train_cifar10.ipynb"
TRAINS = "history = fit(model, data, recipe, tracker)\ntracker.close()"  # a line of the cell that we film
SIZE = {"width": 876, "height": 712}  # of the browser's window
PAUSE, MOST = 0.25, 40  # seconds between two screenshots; frames of the film
FRAME, LAST = 180, 4000  # milliseconds that a frame stays


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        shots = film(Path(place))
    if folder := os.environ.get("VGG_COURSE_FRAMES"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        for number, shot in enumerate(shots):
            shot.save(Path(folder) / f"{number:02}.png")
    file = ROOT / "docs" / "live_plot.gif"
    save(shots, file)
    print(f"{file}: {len(shots)} frames, {file.stat().st_size / 1e6:.2f} MB")


def film(place: Path) -> list[Image.Image]:
    """Screenshots of the training cell, from the first point of the curve to the picture that stays."""
    folder = place / "notebooks"
    folder.mkdir()
    write_notebook(folder / NAME)
    (place / "data").symlink_to(ROOT / "data")
    lab = Lab(folder, place, VGG_COURSE_DATASET="cifar10", VGG_COURSE_PLOT="auto", VISDOM_PORT=str(free_port()))
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(**browser_options())
            opened = Notebook(browser.new_page(viewport=SIZE), lab, NAME)
            opened.page.locator(".jp-SideBar [data-id=filebrowser]").click()  # closes the list of files
            opened.run_all()
            opened.live_plot(600)
            return watch(opened.page)
    finally:
        lab.stop()


def write_notebook(file: Path) -> None:
    """Notebook 03 up to the cell after the training, without its stored outputs."""
    notebook = json.loads((ROOT / "notebooks" / NAME).read_text(encoding="utf-8"))
    sources = ["".join(cell["source"]) for cell in notebook["cells"]]
    training = next(number for number, source in enumerate(sources) if TRAINS in source)
    notebook["cells"] = notebook["cells"][: training + 2]
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
    file.write_text(json.dumps(notebook), encoding="utf-8")


def watch(page) -> list[Image.Image]:
    cell = page.locator(".jp-CodeCell", has_text="history = fit(model, data, recipe, tracker)").first
    score = page.locator(".jp-CodeCell", has_text="test_score = accuracy").last
    shots: list[Image.Image] = []
    done = False
    while not done:
        done = "test accuracy" in score.locator(".jp-OutputArea").inner_text()
        if done:
            page.wait_for_timeout(1000)
        cell.evaluate("cell => cell.scrollIntoView({block: 'start'})")
        shot = Image.open(io.BytesIO(page.locator(".jp-NotebookPanel").first.screenshot())).convert("RGB")
        if not shots or shot.tobytes() != shots[-1].tobytes():
            shots.append(shot)
        page.wait_for_timeout(1000 * PAUSE)
    if len(shots) > MOST:  # as many, evenly, with the first and the last
        shots = [shots[round(i * (len(shots) - 1) / (MOST - 1))] for i in range(MOST)]
    return shots


def save(shots: list[Image.Image], file: Path) -> None:
    """One palette for all frames, so that only what moves is stored again; it keeps rare colours, such as a dot's."""
    both = Image.new("RGB", (shots[0].width, 2 * shots[0].height))
    both.paste(shots[len(shots) // 2], (0, 0))
    both.paste(shots[-1], (0, shots[0].height))
    palette = both.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    frames = [shot.quantize(palette=palette, dither=Image.Dither.NONE) for shot in shots]
    durations = [FRAME] * (len(frames) - 1) + [LAST]
    frames[0].save(file, save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=False)


if __name__ == "__main__":
    main()
