"""Colab, the shell, containers: each way in does what it says, and nothing else."""

import ast
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from ports import free_port

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def sources(file: Path) -> list[str]:
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


# ------------------------------------------------------------------ Colab, VS Code, classic


@pytest.fixture
def shell(monkeypatch, tmp_path):
    """An IPython shell in which %pip only notes what it is asked for."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
    shell.asked = []
    shell.register_magic_function(shell.asked.append, "line", "pip")
    return shell


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_the_first_cell_installs_the_course_on_colab_only(file, shell, monkeypatch, on_colab):
    (first, *others) = sources(file)
    wanted = f'install -q "vgg_course @ git+{PROJECT["urls"]["Repository"]}"'
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    assert shell.run_cell(first).success
    assert shell.asked == []
    on_colab()
    assert shell.run_cell(first).success
    assert shell.asked == [wanted]
    assert not re.search(r"^\s*[!%]\s*pip", "\n".join(others), flags=re.M)  # and no later one installs anything


def test_colab_keeps_its_packages():
    """Each of ours that Colab has is good enough for the course, its own PyTorch and widgets too; two are added."""
    lines = (ROOT / "tests" / "colab_packages.txt").read_text(encoding="utf-8").splitlines()
    assert re.search(r"\d{4}-\d\d-\d\d", lines[1]), "the list has a date"
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    colab = {canonicalize_name(pin.name): str(pin.specifier)[2:] for pin in pins}
    assert SpecifierSet(PROJECT["requires-python"]).contains(colab["python"])
    ours = list(map(Requirement, PROJECT["dependencies"]))
    added = sorted(r.name for r in ours if canonicalize_name(r.name) not in colab)
    assert added == ["torchinfo", "visdom"]
    theirs = [Requirement(line) for name in added for line in importlib.metadata.requires(name) or []]
    theirs = [needed for needed in theirs if not needed.marker or needed.marker.evaluate({"extra": ""})]
    assert len(theirs) > 5
    for needed in ours + theirs:
        if needed.name not in (*added, "openTSNE"):  # the latter comes with visdom 0.3.0, so from Python 3.12 on
            version = colab[canonicalize_name(needed.name)]
            assert needed.specifier.contains(version), f"pip would replace Colab's {needed.name} {version}: {needed}"
    assert colab["ipywidgets"].startswith("7."), "Colab's page knows these widgets only"


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_nothing_depends_on_jupyterlab(file):
    for source in sources(file):
        magics = re.findall(r"^\s*(%%?\w+|!)", source, flags=re.M)
        assert set(magics) <= {"%pip", "%matplotlib"}, source
        assert not re.search(r"\b(jupyterlab|Javascript\(|require\()", source), source


# ------------------------------------------------------------------ jupyter execute


def test_jupyter_execute_runs_the_beginning_of_a_notebook(tmp_path):
    """With the data set as the environment asks for it; the whole notebook is nbval's."""
    notebook = json.loads(NOTEBOOKS[0].read_text(encoding="utf-8"))
    notebook["cells"] = notebook["cells"][:2]
    extra = "import vgg_course.data as d\nprint(d.load_dataset(verbose=False).name)"
    notebook["cells"].append(
        {"cell_type": "code", "metadata": {}, "source": extra, "outputs": [], "execution_count": 1}
    )
    for number, cell in enumerate(notebook["cells"]):
        cell["id"] = f"cell-{number}"
    (tmp_path / "short.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    env = {
        **os.environ,
        "VGG_COURSE_DATASET": "digits",
        "PYTHONPATH": str(ROOT),
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }
    command = [sys.executable, "-m", "jupyter", "execute", "--inplace", "short.ipynb"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    cells = json.loads((tmp_path / "short.ipynb").read_text(encoding="utf-8"))["cells"]
    printed = "".join("".join(output["text"]) for output in cells[-1]["outputs"])  # the kernel may send it in pieces
    assert printed.strip() == "digits"


def parameters(notebook: dict) -> list[dict]:
    return [cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", [])]


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_that_loads_data_takes_the_data_set_as_a_parameter(file):
    """papermill writes what it is given behind the one cell with the tag ``parameters``."""
    calls = [
        ast.unparse(node.args[0]) if node.args else ""
        for source in sources(file)[1:]  # the first installs, with a magic
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("load_dataset")
    ]
    assert set(calls) <= {"DATASET", "'digits'", "folder"}, "a call that the parameter does not reach"
    found = parameters(json.loads(file.read_text(encoding="utf-8")))
    assert len(found) == (1 if "DATASET" in calls else 0)
    assert calls, "no notebook does without data"
    if found:
        names = [
            ast.unparse(n.targets[0]) for n in ast.parse("".join(found[0]["source"])).body if isinstance(n, ast.Assign)
        ]
        assert "DATASET" in names
        rest = "\n".join(sources(file)[1:])
        assert len(re.findall(r"^DATASET = ", rest, flags=re.M)) == 1, "set again behind the parameter"


def test_papermill_hands_notebook_03_its_parameters(tmp_path):
    """The cells around one training, by papermill itself; `jupyter execute` knows no parameters."""
    notebook = json.loads((ROOT / "notebooks" / "03_train_cifar10.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]

    def cell_with(words: str) -> dict:
        return next(cell for cell in cells if words in "".join(cell["source"]))

    needed = ("data = load_dataset(", "first = data.", "tracker = LossTracker(", "fit(model, data, recipe, tracker)")
    seen = "print(data.name, len(history.seconds))"
    seen = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None, "id": "seen", "source": seen}
    notebook["cells"] = [cells[0], *parameters(notebook), *map(cell_with, needed), seen]
    (tmp_path / "short.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    # The parameter wins over the environment, which asks here for what is not there.
    env = {**os.environ, "VGG_COURSE_DATASET": "cifar10", "VGG_COURSE_PLOT": "off", "PYTHONPATH": str(ROOT)}
    env["IPYTHONDIR"] = str(tmp_path / "ipython")
    command = [sys.executable, "-m", "papermill", "short.ipynb", "mine.ipynb", "-p", "DATASET", "digits"]
    done = subprocess.run(
        [*command, "-p", "EPOCHS", "2"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    cells = json.loads((tmp_path / "mine.ipynb").read_text(encoding="utf-8"))["cells"]
    assert "".join("".join(output["text"]) for output in cells[-1]["outputs"]) == "digits 2\n"


# ------------------------------------------------------------------ containers


def test_the_dockerfile_copies_what_there_is():
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copied = [name for line in re.findall(r"^COPY (.*)$", text, flags=re.M) for name in line.split()[1:-1]]
    assert {"pyproject.toml", "tools", "vgg_course", "notebooks"} <= set(copied)
    allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for name in copied:
        assert (ROOT / name).exists() and f"!{name}" in allowed, name
    files = re.findall(r"\btools/\w+\.py", text + (ROOT / "compose.yaml").read_text(encoding="utf-8"))
    assert files and all((ROOT / name).exists() for name in files)
    version = re.search(r"^FROM python:(3\.\d+)-slim$", text, flags=re.M)[1]
    assert version in (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    assert re.search(r"^USER (?!root)", text, flags=re.M)


def test_hadolint_has_nothing_to_say():
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    linter = shutil.which("hadolint", path=beside)
    if linter is None:
        pytest.skip("no hadolint here; it has no package for Windows")
    done = subprocess.run([linter, str(ROOT / "Dockerfile")], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and not done.stdout, done.stdout + done.stderr


def test_compose_opens_nothing_to_the_network():
    services = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) == 2 and all(port.startswith("127.0.0.1:") for port in ports)
    assert services["lab"]["environment"]["JUPYTER_TOKEN"].startswith("${JUPYTER_TOKEN:?")  # none: it does not start


def test_what_a_reader_leaves_in_notebooks_goes_into_no_image():
    ignored = re.findall(r"^/(notebooks/.*)/$", (ROOT / ".gitignore").read_text(encoding="utf-8"), flags=re.M)
    assert "notebooks/photos" in ignored
    assert set(ignored) <= set((ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines())


@pytest.mark.skipif(os.name == "nt", reason="for Linux containers")
def test_visdom_in_a_container_is_reached_from_outside_as_localhost():
    from vgg_course.visdom_server import find_assets

    if find_assets() is None:
        pytest.skip("the files of visdom's page are not there")
    inside, outside = free_port(), free_port()
    env = {**os.environ, "VISDOM_PORT": str(inside), "VISDOM_PUBLISHED_PORT": str(outside)}
    process = subprocess.Popen([sys.executable, str(ROOT / "tools" / "container_visdom.py")], cwd=ROOT, env=env)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"http://localhost:{outside}/", timeout=60) as answer:
                    assert b"visdom" in answer.read()
                break
            except OSError:
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.2)
        foreign = urllib.request.Request(f"http://localhost:{outside}/", headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(foreign, timeout=60)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(120)


def lab_command(monkeypatch, *given: str) -> list[str]:
    """The command in whose place tools/lab.py puts itself, or that it calls on Windows."""
    calls = []
    monkeypatch.setattr(subprocess, "call", lambda command: calls.append(command) or 0)  # on Windows
    monkeypatch.setattr(os, "execv", lambda _, command: sys.exit(calls.append(command)))
    monkeypatch.setattr(sys, "argv", ["lab.py", *given])
    spec = importlib.util.spec_from_file_location("lab_script", ROOT / "tools" / "lab.py")
    with pytest.raises(SystemExit):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return calls[0]


@pytest.mark.parametrize("given", [[], ["--ip=0.0.0.0"], ["--ip", "0.0.0.0"]])
def test_lab_takes_another_address(given, monkeypatch):
    command = lab_command(monkeypatch, *given)
    addresses = [word for word in command if word.startswith("--ip")]
    assert len(addresses) == 1 and (given or "localhost" in command)
    # It shows notebooks/, and the glossary beside it, to which their heads lead, is there too.
    assert str(ROOT) in command and "--FileContentsManager.preferred_dir=notebooks" in command
    assert "--ServerApp.answer_yes=True" in command  # Ctrl+C ends it, without a question


@pytest.mark.parametrize("screen", ["", ":0"])
def test_lab_asks_for_what_a_container_needs(screen, monkeypatch):
    """No browser where there is no screen; and root, who is refused otherwise."""
    monkeypatch.setattr(os, "geteuid", lambda: 0, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("DISPLAY", screen)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    command = lab_command(monkeypatch)
    assert ("--no-browser" in command) == (not screen) and "--allow-root" in command


@pytest.mark.skipif(os.name == "nt", reason="Windows puts no program in another's place")
def test_who_ends_lab_ends_jupyterlab(tmp_path):
    """They are one process: a signal, from whomever, leaves no JupyterLab behind."""
    (tmp_path / "jupyterlab.py").write_text("import os\nprint(os.getpid())", encoding="utf-8")
    command = [sys.executable, str(ROOT / "tools" / "lab.py"), "--no-browser"]
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.read().split()[-1] == str(process.pid)
