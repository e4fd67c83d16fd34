"""Put the course into one archive that is installed without a network: `python tools/class_kit.py` (`make class-kit`).

It holds wheels of all packages, in the versions of the .venv that makes it; the executed notebooks; the data, if it
is there; and install.py. The wheels fit the system and the version of Python that made the kit: make one on a computer
like those of the class. `--no-data` and `--no-wheels` leave these out.
"""

import argparse
import platform
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from environment import ROOT

DATA = ("cifar-10-batches-py", "cifar10", "cifar10-images", "cifar-10-python.tar.gz")  # any one of them is CIFAR-10
INSTALLER = Path(__file__).with_name("class_kit_install.py")
# The README and what it leads to, so that no link is dead without a network:
TEXTS = (
    *("LICENSE", "GLOSSARY.md", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff"),
    *("data/README.md", "docs/in_class.md", "docs/live_plot.gif"),
)
# The last: a teacher's own pictures, and what the lecture's code downloads beside the notebooks.
LEFT_OUT = ("__pycache__", ".ipynb_checkpoints", "runs", "data", "photos", "cifar10")
INSTALL = """\
vgg_course without a network
============================

You need Python {python} on {system}, with its venv module. Nothing is downloaded or installed outside of this folder.

1. Unpack the archive, and go to its folder.
2. python3 install.py (Windows: py -{python} install.py)
3. Start with the command that install.py prints. It opens the notebooks.

The notebooks take {data}.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Put the course into one archive for a class without a network.")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="the folder of the archive (default: dist)")
    parser.add_argument("--no-wheels", action="store_true", help="without the packages")
    parser.add_argument("--no-data", action="store_true", help="without CIFAR-10")
    options = parser.parse_args()
    system = f"{platform.system()} {platform.machine()}"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    archive = options.output / f"vgg_course-kit-{system.lower().replace(' ', '-')}-python{python}.zip"
    name = f"vgg-python{python}"  # short: Windows takes paths of 260 characters, and unpacks into a folder of its own
    data = None if options.no_data else next((place for d in DATA if holds(place := ROOT / "data" / d)), None)
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.output) as folder:  # on the disk that has to hold it anyway
        wheels = Path(folder) / "wheels"
        if not options.no_wheels:
            collect_wheels(wheels)
        unfinished = Path(folder) / "kit.zip"
        with zipfile.ZipFile(unfinished, "w", strict_timestamps=False) as kit:  # a file from before 1980 is no reason
            what = "CIFAR-10, which is in data" if data else "the digits that come with scikit-learn"
            kit.writestr(f"{name}/INSTALL.txt", INSTALL.format(python=python, system=system, data=what))
            kit.write(INSTALLER, f"{name}/install.py")
            kit.write(ROOT / "tools" / "lab.py", f"{name}/tools/lab.py")
            for text in TEXTS:
                kit.write(ROOT / text, f"{name}/{text}")
            add_folder(kit, ROOT / "data" / "runs", f"{name}/data/runs")
            add_folder(kit, ROOT / "notebooks", f"{name}/notebooks")
            add_folder(kit, wheels, f"{name}/wheels")
            add_folder(kit, Path(sys.prefix) / "share" / "vgg_course", f"{name}/visdom_page")
            if data and data.is_file():
                kit.write(data, f"{name}/data/{data.name}")
            elif data:
                add_folder(kit, data, f"{name}/data/{data.name}")
        unfinished.replace(archive)
    print(f"{archive}: {archive.stat().st_size / 1e6:,.0f} MB, {'with' if data else 'without'} CIFAR-10")


def holds(place: Path) -> bool:
    """Whether there is data in it: an empty folder is none."""
    return place.is_file() or (place.is_dir() and any(place.iterdir()))


def collect_wheels(folder: Path) -> None:
    """Wheels of the course and of all that `lab` needs, in the versions that are installed here."""
    print("collecting the packages (some minutes)", flush=True)
    folder.mkdir()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    frozen = subprocess.run([*pip, "freeze", "--exclude-editable"], capture_output=True, text=True, check=True).stdout
    versions = folder.parent / "versions.txt"
    versions.write_text("".join(f"{line}\n" for line in frozen.splitlines() if "==" in line), encoding="utf-8")
    into = ["wheel", "--quiet", "--wheel-dir", str(folder), "--find-links", str(folder), "--constraint", str(versions)]
    torch = next((line for line in frozen.splitlines() if line.startswith("torch==")), "")
    if "+" in torch:  # a build from one of PyTorch's own indexes, which carries the index in its name: 2.14.1+cpu
        index = f"https://download.pytorch.org/whl/{torch.partition('+')[2]}"
        vision = [line for line in frozen.splitlines() if line.startswith("torchvision==")]
        run([*pip, *into, "--no-deps", "--index-url", index, torch, *vision])
    if sys.version_info < (3, 12):  # see tools/environment.py
        run([*pip, *into, "--no-deps", "--no-build-isolation", "visdom>=0.2.4"])
    run([*pip, *into, f"{ROOT}[lab]"])


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise SystemExit(f"class_kit: {errors[-1] if errors else done.stderr.strip()[-300:]}")


def add_folder(kit: zipfile.ZipFile, folder: Path, name: str) -> None:
    for file in sorted(folder.rglob("*")):
        inner = file.relative_to(folder)
        if file.is_file() and ".checkpoint" not in file.name and not set(LEFT_OUT) & set(inner.parts):
            kit.write(file, f"{name}/{inner.as_posix()}")


if __name__ == "__main__":
    if sys.prefix == sys.base_prefix and "--no-wheels" not in sys.argv:
        raise SystemExit("class_kit: run me with the Python of .venv, whose packages go into the kit (make class-kit)")
    main()
