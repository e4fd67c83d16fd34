"""tools/store_outputs.py: a second run of a notebook changes no byte of what is compared."""

import importlib.util
import os
import runpy
import subprocess
import sys
import types
from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).parent.parent
PICTURE = """%matplotlib inline
import time
import matplotlib.pyplot as plt
plt.plot([1, time.time()])
plt.show()"""


@pytest.fixture
def tool(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    spec = importlib.util.spec_from_file_location("store_outputs", ROOT / "tools" / "store_outputs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "NOTEBOOKS", tmp_path)
    return module


def test_a_second_run_changes_nothing_that_is_compared(tool, tmp_path, capsys):
    cell = nbformat.v4.new_code_cell
    cells = [
        cell("import sys\nfor i in range(3):\n    print(i, flush=True)\n1 + 1", id="same"),
        cell("import time\ntime.time()", id="time", metadata={"tags": ["nbval-ignore-output"]}),
        cell(PICTURE, id="picture", metadata={"alt": "a line that is another one each time"}),
        cell("", id="empty"),
    ]
    file = tmp_path / "a.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), file)
    tool.store(file)
    assert "compared outputs changed in same" in capsys.readouterr().out
    first = nbformat.read(file, as_version=4)
    tool.store(file)
    assert "no compared output changed" in capsys.readouterr().out
    second = nbformat.read(file, as_version=4)
    assert [c.id for c in second.cells] == ["same", "time", "picture"]
    assert second.cells[0] == first.cells[0] and second.cells[0].outputs[0].text == "0\n1\n2\n"
    assert second.cells[1].outputs != first.cells[1].outputs  # so the comparison is not an empty one
    (picture,) = [output for output in second.cells[2].outputs if "image/png" in output.get("data", {})]
    assert picture.metadata["image/png"]["alt"] == "a line that is another one each time"
    second.cells[0].source = second.cells[0].source.replace("range(3)", "range(2)")
    nbformat.write(second, file)
    tool.store(file)
    assert "compared outputs changed in same" in capsys.readouterr().out


def test_a_name_that_is_no_file_is_told_before_anything_runs():
    command = [sys.executable, str(ROOT / "tools" / "store_outputs.py"), "01_layers"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 1 and told.stderr.startswith("store_outputs: there is no ")
    assert told.stderr.endswith("01_layers: give the path, such as notebooks/01_layers.ipynb\n")


@pytest.mark.parametrize(("asked", "got"), [(None, "cifar10"), ("digits", "digits")])
def test_the_notebooks_are_stored_with_cifar10_unless_another_is_asked_for(asked, got, tmp_path, monkeypatch):
    """As a script, with a kernel that only notes which data set it is to take."""
    given = []
    client = types.SimpleNamespace(execute=lambda: given.append(os.environ["VGG_COURSE_DATASET"]))
    monkeypatch.setattr(nbclient, "NotebookClient", lambda *_, **__: client)
    monkeypatch.setenv("VGG_COURSE_DATASET", "that of before")  # so that it is put back
    monkeypatch.delenv("VGG_COURSE_DATASET") if asked is None else monkeypatch.setenv("VGG_COURSE_DATASET", asked)
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "a.ipynb")
    monkeypatch.setattr(sys, "argv", ["store_outputs.py", str(tmp_path / "a.ipynb")])
    runpy.run_path(str(ROOT / "tools" / "store_outputs.py"), run_name="__main__")
    assert given == [got]


def test_a_full_disk_leaves_the_notebook_as_it_was(tool, tmp_path, monkeypatch):
    file = tmp_path / "a.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("text", id="a")]), file)
    before = file.read_bytes()

    def full(path, content):
        with open(path, "wb") as unfinished:
            unfinished.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tool, "NotebookClient", lambda *_, **__: types.SimpleNamespace(execute=lambda: None))
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        tool.store(file)
    assert file.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["a.ipynb"]
