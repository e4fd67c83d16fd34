"""The archive for a class without a network: what is in it, and that its installer asks nobody for anything."""

import importlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for the next line, however pytest was asked to import
from test_links import links

ROOT = Path(__file__).parent.parent
OWN = ("notebooks/runs/1.pt", "notebooks/photos/me.jpg", "notebooks/cifar10/1.bin")  # what belongs to the teacher


@pytest.fixture(scope="module")
def kit(tmp_path_factory) -> Path:
    """A kit without packages, made from a copy of the project with one image as its data, and unpacked."""
    folder = tmp_path_factory.mktemp("project")
    left_out = shutil.ignore_patterns("runs", "data", "photos", "cifar10", ".ipynb_checkpoints")
    for name in ("tools", "notebooks", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=left_out)
    for name in ("LICENSE", "GLOSSARY.md", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "data" / "runs", folder / "data" / "runs")
    shutil.copy(ROOT / "data" / "README.md", folder / "data")
    for name in ("data/cifar10/train/cat/1.png", "data/other/1.bin", *OWN):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(b"1")
    command = [sys.executable, "tools/class_kit.py", "--no-wheels", "--output", str(folder / "out")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (archive,) = (folder / "out").iterdir()
    assert str(archive) in done.stdout and "with CIFAR-10" in done.stdout
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder / "the class")  # a path with a blank
    (unpacked,) = (folder / "the class").iterdir()
    # Windows' own Extract All makes a folder of the archive's name around it, and takes no path above 260 characters.
    assert unpacked.name.startswith("vgg-python3.") and len(archive.stem + unpacked.name) < 60
    return unpacked


def test_what_is_in_it(kit):
    files = {path.relative_to(kit).as_posix() for path in kit.rglob("*") if path.is_file()}
    assert {
        "INSTALL.txt",
        "install.py",
        "LICENSE",
        "GLOSSARY.md",
        "README.md",
        "tools/lab.py",
        "data/cifar10/train/cat/1.png",
    } <= files
    notebooks = {path.relative_to(ROOT).as_posix() for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert notebooks <= files and "notebooks/figures/conv_window.svg" in files
    page = (Path(sys.prefix) / "share" / "vgg_course").is_dir()  # the live page's files, where they are here
    assert any(name.startswith("visdom_page/") for name in files) == page
    assert not [name for name in files if name.startswith(("data/other", *OWN))]
    for text in ("README.md", "docs/in_class.md"):
        paths = [link.partition("#")[0] for link in links(kit / text) if "://" not in link]
        assert [path for path in paths if not (kit / text).parent.joinpath(path).exists()] == []
    text = (kit / "INSTALL.txt").read_text(encoding="utf-8")
    assert "python3 install.py (Windows: py -3." in text and "CIFAR-10, which is in data" in text


def test_the_wheels_are_those_of_the_notebooks_in_the_versions_that_are_here(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    tool, commands = importlib.import_module("class_kit"), []
    monkeypatch.setattr(tool, "run", commands.append)
    tool.collect_wheels(tmp_path / "wheels")
    assert commands[-1][-1] == f"{ROOT}[lab]"
    constraints = Path(commands[-1][commands[-1].index("--constraint") + 1]).read_text(encoding="utf-8")
    assert f"torch=={importlib.metadata.version('torch')}\n" in constraints


def test_the_wheels_of_pytorchs_own_index_come_from_there(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    tool, commands = importlib.import_module("class_kit"), []
    frozen = subprocess.CompletedProcess([], 0, "torch==2.9.0+cpu\ntorchvision==0.24.0+cpu\n", "")
    monkeypatch.setattr(tool.subprocess, "run", lambda *_, **__: frozen)
    monkeypatch.setattr(tool, "run", commands.append)
    tool.collect_wheels(tmp_path / "wheels")
    index = ["--index-url", "https://download.pytorch.org/whl/cpu"]
    assert commands[0][-4:] == [*index, "torch==2.9.0+cpu", "torchvision==0.24.0+cpu"]
    assert all(c[c.index("--find-links") + 1] == str(tmp_path / "wheels") for c in commands)


def test_without_data(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    tool = importlib.import_module("class_kit")
    for name in ("data/cifar10/1.png", "tools/lab.py", *tool.TEXTS):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["class_kit.py", "--no-wheels", "--no-data", "--output", str(tmp_path / "out")])
    tool.main()
    (kit,) = (tmp_path / "out").iterdir()
    names = [name.partition("/data/")[2] for name in zipfile.ZipFile(kit).namelist() if "/data/" in name]
    assert names == ["README.md"]


def no_network() -> list[str]:
    """What stands before a command that is to run without any network; nothing where the system does not allow it."""
    alone = ["unshare", "--map-root-user", "--net"]
    allowed = shutil.which("unshare") and subprocess.run([*alone, "true"], capture_output=True).returncode == 0
    return alone if allowed else []


def test_the_installer_uses_nothing_but_the_kit(kit):
    """With a wheel of nothing in the place of the course."""
    info = "vgg_course-0.1.0.dist-info"
    (kit / "wheels").mkdir()
    with zipfile.ZipFile(kit / "wheels" / "vgg_course-0.1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("vgg_course/__init__.py", "")
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: vgg_course\nVersion: 0.1.0\nProvides-Extra: lab\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    (kit / "visdom_page" / "visdom-1").mkdir(parents=True)
    (kit / "visdom_page" / "visdom-1" / "index.html").write_text("page", encoding="utf-8")
    log = kit.parent / "pip.log"
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0", "PIP_LOG": str(log)}
    command = [*no_network(), sys.executable, str(kit / "install.py")]
    done = subprocess.run(command, env={**os.environ, **nowhere}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = log.read_text(encoding="utf-8")
    assert "Successfully installed vgg_course" in said and "http://127.0.0.1:9/vgg-course/" not in said
    lines = done.stdout.splitlines()
    go_there, start = [line.strip() for line in lines[lines.index("done. Start with:") + 1 :]]
    assert go_there.startswith("cd ") and not set("'\" ") & set(start.split()[0])
    started = subprocess.run(f"{go_there} && {start}", shell=True, capture_output=True, text=True)
    assert "No module named jupyterlab" in started.stderr  # so lab.py runs, with the Python of the kit
    python = kit / ".venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    where = subprocess.run(
        [python, "-I", "-c", "import vgg_course as v; print(v.__file__)"], capture_output=True, text=True
    )
    assert where.stdout.startswith(str(kit / ".venv"))
    assert (kit / ".venv" / "share" / "vgg_course" / "visdom-1" / "index.html").exists()


def installer(monkeypatch, folder: str):
    monkeypatch.syspath_prepend(ROOT / "tools")
    tool = importlib.import_module("class_kit_install")
    monkeypatch.setattr(tool, "KIT", Path(folder))
    return tool


def test_a_folder_that_is_too_deep_for_windows(monkeypatch):
    tool = installer(monkeypatch, f"/Users/{90 * 'x'}/vgg-python{sys.version_info.major}.{sys.version_info.minor}")
    refused = pytest.raises(SystemExit, match=r"Windows takes no path as long as those in .*: move it to C:\\vgg, say")
    with refused, monkeypatch.context() as on_windows:
        on_windows.setattr(os, "name", "nt")
        tool.main()


def test_pips_hint_is_shown(monkeypatch):
    """That Windows knows long paths, for one: pip's error alone says that a file is not there."""
    tool = installer(monkeypatch, "/kit")
    said = (
        "ERROR: Could not install packages due to an OSError\nHINT: Windows Long Path support\n\n[notice] a new pip\n"
    )
    answers = [subprocess.CompletedProcess([], 0, "", ""), subprocess.CompletedProcess([], 1, "", said)]
    monkeypatch.setattr(tool.subprocess, "run", lambda *_, **__: answers.pop(0))
    with pytest.raises(SystemExit, match=r"install: ERROR: Could .*\nHINT: Windows Long Path support$"):
        tool.main()


def test_an_empty_folder_is_no_data(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    tool = importlib.import_module("class_kit")
    (tmp_path / "cifar10").mkdir()
    assert not tool.holds(tmp_path / "cifar10") and not tool.holds(tmp_path / "none")
    (tmp_path / "cifar10" / "cifar-10-python.tar.gz").touch()
    assert tool.holds(tmp_path / "cifar10") and tool.holds(tmp_path / "cifar10" / "cifar-10-python.tar.gz")


@pytest.mark.parametrize("again", ["", " 2"])  # macOS unpacks a second time beside the first
def test_another_python_is_refused(kit, again):
    other = kit.with_name(f"{kit.name.rpartition('python')[0]}python3.99{again}")
    other.mkdir()
    shutil.copy(kit / "install.py", other)
    done = subprocess.run([sys.executable, str(other / "install.py")], capture_output=True, text=True)
    assert done.returncode == 1 and "this kit is for Python 3.99, but this is Python 3." in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (other / ".venv").exists()
