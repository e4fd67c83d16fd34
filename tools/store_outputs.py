"""Run notebooks from top to bottom and store their outputs: `python tools/store_outputs.py [NOTEBOOK ...]`.

The text in a cell's metadata under `alt` becomes the alternative text of the pictures that the cell draws. What
differs from run to run without meaning (times, the state of progress bars) is left out.
"""

import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


def store(file: Path) -> None:
    notebook = nbformat.read(file, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.source.strip()]
    started = time.perf_counter()
    client = NotebookClient(
        notebook,
        timeout=1800,
        record_timing=False,
        store_widget_state=True,  # a picture inside a widget needs it; it goes with the metadata, below
        resources={"metadata": {"path": NOTEBOOKS}},
    )
    client.execute()
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = merge_streams(cell.outputs)
        cell.metadata = {key: cell.metadata[key] for key in ("tags", "alt") if key in cell.metadata}
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}) and "alt" in cell.metadata:
                output.metadata["image/png"] = {"alt": cell.metadata["alt"]}
    nbformat.write(notebook, file)
    print(f"{file.name}: {time.perf_counter() - started:.0f} s")


def merge_streams(outputs: list) -> list:
    """What is printed at once may arrive in pieces, in other pieces each time: put them together."""
    merged = []
    for output in outputs:
        if merged and output.output_type == merged[-1].output_type == "stream" and output.name == merged[-1].name:
            merged[-1].text += output.text
        else:
            merged.append(output)
    return merged


if __name__ == "__main__":
    os.environ.setdefault("VGG_COURSE_DATASET", "cifar10")
    for name in sys.argv[1:] or sorted(NOTEBOOKS.glob("*.ipynb")):
        store(Path(name).resolve())
