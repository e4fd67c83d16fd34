"""Run notebooks from top to bottom and store their outputs: `python tools/store_outputs.py [NOTEBOOK ...]`.

The text in a cell's metadata under `alt` becomes the alternative text of the pictures that the cell draws. What
differs from run to run without meaning (times, the state of progress bars) is left out. It says which outputs that
nbval compares have changed: after a run without an edit, none have.
"""

import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


def store(file: Path) -> None:
    from vgg_course.runs import write_whole  # here, as it takes seconds: a name that is no file is told before

    notebook = nbformat.read(file, as_version=4)
    before = compared(notebook)
    notebook.cells = [cell for cell in notebook.cells if cell.source.strip()]
    started = time.perf_counter()
    client = NotebookClient(
        notebook,
        timeout=1800,
        record_timing=False,
        store_widget_state=True,  # nbclient fails with KeyError for a widget that draws, if it keeps no state
        resources={"metadata": {"path": NOTEBOOKS}},
    )
    client.execute()
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = merge_streams(filter(stays_readable, cell.outputs))
        cell.metadata = {key: cell.metadata[key] for key in ("tags", "alt") if key in cell.metadata}
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}) and "alt" in cell.metadata:
                output.metadata["image/png"] = {"alt": cell.metadata["alt"]}
    write_whole(file, f"{nbformat.writes(notebook)}\n".encode())  # it is the source: a full disk must not cut it
    changed = [name for name, outputs in compared(notebook).items() if before.get(name) != outputs]
    news = f"compared outputs changed in {', '.join(changed)}" if changed else "no compared output changed"
    print(f"{file.name}: {time.perf_counter() - started:.0f} s, {news}", flush=True)


def compared(notebook: nbformat.NotebookNode) -> dict[str, list]:
    """What nbval compares: the outputs, without pictures, of each code cell without the tag nbval-ignore-output."""
    kept = {}
    for cell in notebook.cells:
        if cell.cell_type == "code" and "nbval-ignore-output" not in cell.metadata.get("tags", []):
            texts = [{k: v for k, v in o.get("data", {}).items() if "image/" not in k} for o in cell.outputs]
            kept[cell.id] = [(o.get("text"), data) for o, data in zip(cell.outputs, texts, strict=True)]
    return kept


def stays_readable(output: dict) -> bool:
    """Not so the sliders of ``interact``: without a kernel they are an error, and a static picture is there anyway."""
    return not str(output.get("data", {}).get("text/plain", "")).startswith("interactive(")


def merge_streams(outputs: Iterable) -> list:
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
    files = [Path(name).resolve() for name in sys.argv[1:]] or sorted(NOTEBOOKS.glob("*.ipynb"))
    if missing := [str(file) for file in files if not file.is_file()]:
        sys.exit(f"store_outputs: there is no {', '.join(missing)}: give the path, such as notebooks/01_layers.ipynb")
    for file in files:
        store(file)
