"""The README's ten messages are those that one sees: each is provoked, and compared with its row."""

import importlib.util
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ports import free_port
from torch import nn

from vgg_course import live_page, visdom_server
from vgg_course.data import load_dataset
from vgg_course.tracking import LossTracker
from vgg_course.training import Recipe, fit
from vgg_course.vgg import VGG, make_layers

ROOT = Path(__file__).parents[1]


def python(*arguments: str) -> str:
    """What a command of Python says last."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=300, cwd=ROOT.parent)
    assert done.returncode
    return (done.stdout + done.stderr).strip().splitlines()[-1]


def raised(function, *arguments, **named) -> str:
    """What stands below the traceback, as in a notebook."""
    with pytest.raises((Exception, SystemExit)) as error:
        function(*arguments, **named)
    return f"{error.type.__name__}: {error.value}"


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """tools/environment.py as a module, for a copy of the project without an environment."""
    spec = importlib.util.spec_from_file_location("environment", ROOT / "tools" / "environment.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "VENV", tmp_path)
    monkeypatch.setattr(script, "LOG", tmp_path / "install.log")
    monkeypatch.setattr(sys, "argv", ["environment.py", "lab"])
    return script


def no_course() -> str:
    return python("-I", "-S", "-c", "import vgg_course")


def no_cell_before() -> str:
    return raised(eval, "fit(model, data, recipe)", {})


def old_python(environment, monkeypatch) -> str:
    with monkeypatch.context() as old:
        old.setattr(sys, "version_info", (3, 10, 12))
        old.setattr(sys, "version", "3.10.12 (main, Aug 15 2025, 14:32:43)")
        return raised(environment.main).removeprefix("SystemExit: ")


def no_venv(environment, monkeypatch, tmp_path) -> str:
    failed = subprocess.CompletedProcess([], 1, "", "... because ensurepip is not available")
    monkeypatch.setattr(environment, "PYTHON", tmp_path / "none")
    with monkeypatch.context() as bare:
        bare.setattr(environment.subprocess, "run", lambda *_, **__: failed)
        return raised(environment.make_venv).removeprefix("SystemExit: ")


def no_index(environment, monkeypatch, tmp_path) -> str:
    (tmp_path / "pip.py").write_text(
        "raise SystemExit('ERROR: Failed to establish a new connection: refused')", encoding="utf-8"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(environment, "PYTHON", Path(sys.executable))
    return raised(environment.pip, "install").removeprefix("SystemExit: ")


def no_cifar10(monkeypatch, tmp_path) -> str:
    def urlopen(*_, **__):
        raise urllib.error.URLError(socket.gaierror(-2, "Name or service not known"))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return raised(load_dataset, "cifar10")


def no_page(monkeypatch, capsys) -> str:
    for name in ("VISDOM_SERVER", "VGG_COURSE_PLOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VISDOM_PORT", str(free_port()))
    monkeypatch.setattr(visdom_server, "find_assets", lambda: None)
    monkeypatch.setattr(live_page, "notebook", lambda: SimpleNamespace(get_parent=dict))
    LossTracker("my run").close()
    return capsys.readouterr().out.strip()


def taken_port(monkeypatch) -> str:
    if visdom_server.find_assets() is None:
        pytest.skip("the files of visdom's page are not there")
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setenv("VISDOM_PORT", str(other.getsockname()[1]))
        return python("-m", "vgg_course.visdom_server")


def other_head() -> str:
    model = VGG(make_layers([8, "M", 8, "M", 8, "M", 8, "M", 256, "M"]), num_classes=10, init_weights=False)
    return raised(model, torch.zeros(1, 3, 224, 224))


def other_run(monkeypatch, tmp_path) -> str:
    monkeypatch.chdir(tmp_path)
    data, model = load_dataset("digits", verbose=False), nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))

    def run(lr: float) -> None:
        fit(model, data, Recipe(epochs=1, lr=lr, batch_size=256), checkpoint="mine.pt", progress=False)

    run(0.24)
    return raised(run, 0.1)


MESSAGES = [
    *(no_course, no_cell_before, old_python, no_venv, no_index),
    *(no_cifar10, no_page, taken_port, other_head, other_run),
]


def readme_messages() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `(.+?)`[^|]* \| .+ \|$", text.partition("## Ten messages")[2], flags=re.M)[:10]


def mask(message: str) -> str:
    """Without what differs from one machine to another: numbers, and where the log is."""
    message = message.replace("\\", "/")  # of Windows
    return re.sub(r"\d+(\.\d+)*", "N", re.sub(r"\S+install\.log", ".../install.log", message))


@pytest.mark.parametrize("provoke", MESSAGES, ids=lambda provoke: provoke.__name__)
def test_the_readme_shows_what_one_sees(provoke, request):
    names = provoke.__code__.co_varnames[: provoke.__code__.co_argcount]
    seen = provoke(**{name: request.getfixturevalue(name) for name in names})
    assert mask(seen) == mask(readme_messages()[MESSAGES.index(provoke)])
