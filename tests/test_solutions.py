"""Every folded solution of every exercise runs behind its notebook, and its own asserts hold."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FILES = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_solutions(file, monkeypatch):
    monkeypatch.setenv("VGG_COURSE_PLOT", "off")
    notebook = nbformat.read(file, as_version=4)
    solutions = [
        text
        for cell in notebook.cells
        if cell.cell_type == "markdown"
        for folded in re.findall(r"<details>(.*?)</details>", cell.source, flags=re.S)
        for text in re.findall(r"```python\n(.*?)```", folded, flags=re.S)
    ]
    assert len(solutions) >= 4
    assert all("answer" in text and "assert" in text for text in solutions)
    notebook.cells += [nbformat.v4.new_code_cell(text) for text in solutions]
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": file.parent}}).execute()
