"""The door: what a visitor sees first, and that every part of the README is there."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FILM = ROOT / "docs" / "live_plot.gif"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def section(title: str) -> str:
    """The text below a heading, up to the next one."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", README, flags=re.M | re.S)
    assert found, f"no section {title!r}"
    return found[1]


def test_it_is_short():
    assert len(README.splitlines()) <= 200


def test_the_first_screen():
    """What it is, the film, the two commands, the table of the notebooks; nothing before them."""
    assert re.findall(r"^## (.+)", README, flags=re.M)[:2] == ["Two commands", "The notebooks"]
    before, _ = README.split("## Two commands")
    assert "networks" in before and len(before.splitlines()) <= 10
    picture, width, alt = re.search(r'<img src="([^"]+)" width="(\d+)" alt="([^"]+)">', before).groups()
    assert (ROOT / picture) == FILM and int(width) < 600  # the table below it is on the screen too
    assert len(alt) > 80 and "loss" in alt
    assert re.findall(r"^    (make \w+)", section("Two commands"), flags=re.M) == ["make lab", "make test"]


def test_the_table_of_the_notebooks():
    rows = re.findall(r"^\| \[(\d\d) .+$", section("The notebooks"), flags=re.M)
    assert rows == [file.name[:2] for file in NOTEBOOKS]
    for file in NOTEBOOKS:
        (row,) = re.findall(rf"^\|.*\]\(notebooks/{file.name}\).*$", README, flags=re.M)
        _, learn, time, colab = row.removeprefix("| ").removesuffix(" |").split(" | ")
        assert len(learn) > 30 and re.fullmatch(r"\d+ (s|min)", time), row
        assert "colab-badge.svg" in colab and f"/blob/main/notebooks/{file.name})" in colab, row


def test_the_film_moves_and_is_small():
    assert FILM.stat().st_size < 1_000_000
    with Image.open(FILM) as film:
        assert film.format == "GIF" and film.is_animated
        assert 10 < film.n_frames <= 60 and 700 <= film.width <= 900
        pictures, durations = [], []
        for number in range(film.n_frames):
            film.seek(number)
            pictures.append(film.convert("RGB").resize((80, 60)).tobytes())
            durations.append(film.info["duration"])
        assert film.info["loop"] == 0
    assert len(set(pictures)) > 10, "most of its frames look alike"
    assert durations[-1] >= 2000 and sum(durations) < 20_000  # it rests on the last picture


def test_the_film_is_of_the_cell_that_trains(tmp_path):
    """The script finds the cell in notebook 03, and keeps what comes before it."""
    pytest.importorskip("playwright.sync_api")
    code = "import make_live_plot as m, pathlib, sys; m.write_notebook(pathlib.Path(sys.argv[1]))"
    path = [str(ROOT / "docs"), str(ROOT)]
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {path}; {code}", str(tmp_path / "short.ipynb")]
    subprocess.run(command, check=True, timeout=300)
    cells = json.loads((tmp_path / "short.ipynb").read_text(encoding="utf-8"))["cells"]
    assert "fit(model, data, recipe, tracker)" in "".join(cells[-2]["source"])
    assert "test accuracy" in "".join(cells[-1]["source"])
    assert all(cell["outputs"] == [] for cell in cells if cell["cell_type"] == "code")


def test_each_result_names_its_recorded_run():
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", section("Results"), flags=re.M)[2:]
    assert len(rows) >= 3
    for name, score, time in rows:
        link = re.search(r"\]\((data/runs/\w+\.json)\)", name)
        assert link, f"{name} names no record"
        record = json.loads((ROOT / link[1]).read_text(encoding="utf-8"))
        assert f"{record['test_accuracy']:.1%}".replace("%", " %") in score, link[1]
        assert f"{record['seconds']:.0f} s" == time, link[1]


def test_every_part_is_there():
    assert README.index("## Setting up") < README.index("## Results")
    for word in ("Windows", "Proxy", "GPU", "Colab", "VS Code", "conda", "Container", "git clone"):
        assert word in section("Setting up"), word
    assert "docs/in_class.md" in section("In class, and without a network")
    lecture = section("How it relates to the lecture")
    assert "Thanks" in lecture and "https://www.boostcourse.org/ai214" in lecture
    assert lecture.count("\n| ") >= 13  # the head of the table, and the mistakes
    messages = re.findall(r"^\| `.+ \| .+ \|$", section("Ten messages, and what to do"), flags=re.M)
    assert len(messages) == 10
    assert "`notebooks/`" in section("What is where")


def test_the_steps_for_a_class():
    """What the page for teachers names is there: commands, notebooks, variables."""
    text = (ROOT / "docs" / "in_class.md").read_text(encoding="utf-8")
    for file in re.findall(r"\b(tools/\w+\.py)", text):
        assert (ROOT / file).exists(), file
    scripts = [*(ROOT / "vgg_course").glob("*.py"), *(ROOT / "tools").glob("*.py")]
    code = "".join(file.read_text(encoding="utf-8") for file in scripts)
    variables = set(re.findall(r"`(VGG_COURSE_\w+)", text))
    assert variables and all(f'"{name}"' in code for name in variables)
    for name in re.findall(r"`(\d\d_\w+\.ipynb)`", text):
        assert (ROOT / "notebooks" / name).exists(), name
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {"lab", "class-kit"} <= set(re.findall(r"^    make ([\w-]+)", text, flags=re.M))
    assert re.search(r"^class-kit:", makefile, flags=re.M)
