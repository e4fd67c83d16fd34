"""Every notebook in JupyterLab, as a learner meets it: run all cells, on the digits, in a browser.

The exercises are solved with the solutions folded below them, and ``check`` has to take each for right.
"""

import re
from pathlib import Path

import pytest

NOTEBOOKS = sorted(path.name for path in (Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
# Lab's own console, offline: its extension manager and news ask the network; it measures cells before they are there.
NOT_OURS = ("favicon", "ResizeObserver", "net::ERR_", "/lab/api/", "/lsp/", "extension", "Failed to load resource")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_run_all(name, open_notebook, screenshots):
    opened = open_notebook(name)
    opened.run_all()
    opened.wait_until_done(600)
    opened.page.screenshot(path=screenshots / f"{Path(name).stem}.png")
    for cell in opened.saved()["cells"]:
        source, outputs = "".join(cell["source"]), cell.get("outputs", [])
        if cell["cell_type"] == "code" and source.strip():
            errors = [output for output in outputs if output["output_type"] == "error"]
            assert not errors or "raises-exception" in cell["metadata"].get("tags", []), f"{source[:200]}\n{errors}"
            assert cell["execution_count"], f"not run: {source[:200]}"
            if exercise := re.search(r'^check\("([\d.]+)"', source, flags=re.M):
                shown = "".join("".join(output.get("text", "")) for output in outputs)
                assert f"{exercise[1]} ✓ Right." in shown, f"{source}\n{shown}"
    for frame in opened.page.frames[1:]:  # none is blank
        assert frame.evaluate("document.body.innerText.trim().length + document.querySelectorAll('svg, img').length")
    errors = [error for error in opened.errors if not any(word in error for word in NOT_OURS)]
    assert not errors, errors
