"""The glossary: in order, short, and true to the notebooks that it leads to."""

import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parent.parent
ENTRY = re.compile(r"- \*\*(.+?)\*\*: (.+) \[(\d\d), section (\d+)\]\(notebooks/([\w.]+)#([^)]+)\)")
LINES = (ROOT / "GLOSSARY.md").read_text(encoding="utf-8").split("\n\n")[-1].splitlines()
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def prose(notebook: Path) -> list[str]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]


def sections(notebook: Path) -> dict[str, tuple[str, str]]:
    """Heading, as Jupyter names its place -> (the number of the section, its text)."""
    found, number = {}, ""
    for part in re.split(r"^##+ ", "\n".join(prose(notebook)), flags=re.M)[1:]:
        heading, _, text = part.partition("\n")
        if numbered := re.match(r"(\d+)\.", heading):
            number = numbered[1]
        found[heading.replace("`", "").replace(" ", "-")] = number, f"{heading}\n{text}"
    return found


def test_in_order_and_short():
    terms, meanings = zip(*((entry[1], entry[2]) for entry in map(ENTRY.fullmatch, LINES)), strict=True)
    assert len(terms) >= 50
    assert list(terms) == sorted(set(terms), key=str.lower)
    for meaning in meanings:
        assert 1 <= len(re.findall(r"\.(?: |$)", meaning)) <= 2, meaning


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.split("**")[1])
def test_the_section_uses_the_word(line):
    term, _, notebook, number, file, place = ENTRY.fullmatch(line).groups()
    assert file.startswith(notebook)
    section, text = sections(ROOT / "notebooks" / file)[unquote(place)]
    assert section == number
    for word in term.split(", "):
        assert re.search(re.escape(word), text, flags=re.I), f"{file}, {place} does not speak of {word}"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_each_head_leads_to_it(notebook):
    assert "[glossary](../GLOSSARY.md)" in prose(notebook)[0]
