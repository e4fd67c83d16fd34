"""The form of the notebooks, as they lie in the repository. What they compute, nbval checks."""

import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "notebooks").glob("*.ipynb"))
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
MACHINE_PATH = re.compile(r"/(?:root|home|tmp|work|Users|usr|opt)/[\w./-]+|[A-Z]:\\\\")
IMAGE = re.compile(r"!\[(?P<markdown>[^\]]*)\]\((?P<target>[^)]*)\)|<img\b(?P<html>[^>]*)>")


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def notebook(request) -> dict:
    return {"file": request.param, **json.loads(request.param.read_text(encoding="utf-8"))}


def text(value: str | list[str]) -> str:
    return value if isinstance(value, str) else "".join(value)


def code(notebook: dict) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def prose(notebook: dict) -> list[str]:
    return [text(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]


def lines(cell: dict) -> int:
    return len([line for line in text(cell["source"]).splitlines() if line.strip()])


def tags(cell: dict) -> list[str]:
    return cell["metadata"].get("tags", [])


def test_there_are_notebooks():
    assert [file.name[:2] for file in FILES] == [f"{i + 1:02}" for i in range(len(FILES))]
    assert len(FILES) >= 4


def test_executed_from_top_to_bottom(notebook):
    assert [cell["execution_count"] for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))


def test_no_error_and_no_stderr(notebook):
    for cell in code(notebook):
        for output in cell["outputs"]:
            assert output.get("name") != "stderr", text(output["text"])
            assert output["output_type"] != "error", text(cell["source"])


def test_no_slider_without_a_kernel(notebook):
    for cell in code(notebook):
        for output in cell["outputs"]:
            assert not text(output.get("data", {}).get("text/plain", "")).startswith("interactive("), text(
                cell["source"]
            )


def test_no_path_of_a_machine(notebook):
    for cell in notebook["cells"]:
        shown = [text(cell["source"])]
        for output in cell.get("outputs", []):
            shown += [text(output.get("text", "")), *map(text, (output.get("data") or {"": ""}).values())][:3]
        for words in shown:
            if len(words) < 100_000:
                assert not MACHINE_PATH.search(words), words


def test_nothing_but_the_course_in_the_metadata(notebook):
    assert notebook["metadata"].keys() <= {"kernelspec", "language_info"}
    for cell in notebook["cells"]:
        assert cell["metadata"].keys() <= {"tags", "alt"}


def test_cells_are_short(notebook):
    counts = sorted(lines(cell) for cell in code(notebook))
    assert counts[-1] <= 15
    assert 3 <= counts[len(counts) // 2] <= 7


def test_enough_words_and_not_too_many(notebook):
    words = sum(len(re.findall(r"\w+", re.sub(r"```.*?```", "", cell, flags=re.S))) for cell in prose(notebook))
    assert 6 <= words / sum(map(lines, code(notebook))) <= 11


def test_pictures_have_alt_text(notebook):
    for cell in prose(notebook):
        for image in IMAGE.finditer(cell):
            assert image["markdown"] or re.search(r'\balt="[^"]+"', image["html"] or ""), image[0]
            if image["target"] and not image["target"].startswith("http"):
                assert (notebook["file"].parent / image["target"]).exists(), image["target"]
    for cell in code(notebook):
        for output in cell["outputs"]:
            if "image/png" in output.get("data", {}):
                assert len(cell["metadata"].get("alt", "")) > 20, text(cell["source"])
                assert output["metadata"]["image/png"]["alt"] == cell["metadata"]["alt"]


def test_an_ignored_output_is_backed_by_an_assert(notebook):
    for cell in code(notebook):
        assert "nbval-skip" not in tags(cell)
        if "nbval-ignore-output" in tags(cell) and "import " not in text(cell["source"]):
            assert re.search(r"\bassert\b", text(cell["source"])), text(cell["source"])


def test_the_head(notebook):
    head = prose(notebook)[0]
    name, number = notebook["file"].name, FILES.index(notebook["file"])
    assert head.startswith("# ")
    colab = REPOSITORY.replace("https://github.com", "https://colab.research.google.com/github")
    assert f"{colab}/blob/main/notebooks/{name}" in head
    assert re.search(r"minute|second", head)
    for neighbour in FILES[max(0, number - 1) : number + 2]:
        if neighbour.name != name:
            assert f"]({neighbour.name})" in head, f"no link to {neighbour.name}"
    setup = text(code(notebook)[0]["source"])
    assert f'%pip install -q "vgg_course @ git+{REPOSITORY}"' in setup
    assert 'if "google.colab" in sys.modules' in setup


def test_links_to_files_lead_somewhere(notebook):
    for cell in prose(notebook):
        for target in re.findall(r"\]\(([^)#\s]+)\)", cell):
            if not target.startswith(("http", "data:")):
                assert (notebook["file"].parent / target).exists(), target


def test_exercises_have_folded_solutions(notebook):
    everything = "\n".join(prose(notebook))
    solutions = re.findall(r"<details><summary>Solution ([\d.]+)</summary>\s*```python\n", everything)
    assert everything.count("<details>") == everything.count("</details>") == len(solutions) >= 5
    checked = re.findall(
        r'^answer = None.*\ncheck\("([\d.]+)"', "\n".join(text(c["source"]) for c in code(notebook)), re.M
    )
    assert checked == solutions
    assert re.search(r"^#+ Summary", everything, flags=re.M)


def test_no_word_that_talks_down(notebook):
    for cell in prose(notebook):
        assert not re.search(r"\b(simply|obviously|just)\b", cell, flags=re.I), cell
