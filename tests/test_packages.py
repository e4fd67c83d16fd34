"""The wheel and the sdist, used away from the checkout; and what needs nothing but torch."""

import importlib.metadata
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Runs where nothing of the checkout is in reach: -I leaves out PYTHONPATH and the current folder.
TRY_IT = """
import sys
sys.path.insert(0, sys.argv[1])
import vgg_course.vgg
from vgg_course.exercises import check
from vgg_course.runs import load_record, load_trained
import torch
for name in (m.__file__ for n, m in sys.modules.items() if n.split(".")[0] == "vgg_course"):
    assert name.startswith(sys.argv[1]), name
assert load_trained("fast")(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
assert load_record("fast")["test_accuracy"] > 0.85
check("1.1", None)
"""

# Everything that is installed cannot be imported, but for torch and what torch itself requires.
ONLY_TORCH = """
import sys
import warnings

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[2].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
sys.path.insert(0, sys.argv[1])
warnings.simplefilter("ignore")  # torch says that there is no numpy
import torch
import vgg_course.vgg as vgg
model = vgg.VGG(vgg.make_layers(vgg.cfg["custom"]), num_classes=10, input_size=32)
assert model.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
try:
    import numpy
except ModuleNotFoundError:
    print("only torch")
"""


def build(source: Path, target: Path) -> tuple[Path, Path]:
    """A wheel and an sdist of the project in ``source``, built without a network."""
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(target)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(target.glob("*.whl")), next(target.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    pytest.importorskip("hatchling")
    return build(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--target", str(target), str(built[0])], check=True, capture_output=True)
    return target


def run_away(code: str, *arguments: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-I", "-c", code, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_away_from_the_checkout(installed, tmp_path):
    assert "1.1 is not answered yet" in run_away(TRY_IT, str(installed), folder=tmp_path)


def test_the_network_needs_torch_only(installed, tmp_path):
    needed, todo = set(), ["torch"]
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name not in needed:
            needed.add(name)
            try:
                lines = importlib.metadata.requires(name) or []
                todo += [re.match(r"[\w.-]+", line)[0] for line in lines if "extra ==" not in line]
            except importlib.metadata.PackageNotFoundError:  # for another system
                continue
    missing = []
    for module, owners in importlib.metadata.packages_distributions().items():
        if not needed & {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners}:
            missing.append(module)
    assert {"numpy", "torchvision", "matplotlib", "sklearn", "visdom"} <= set(missing)
    said = run_away(ONLY_TORCH, str(installed), ",".join({*missing} - {"vgg_course"}), folder=tmp_path)
    assert said.strip() == "only torch"


def test_training_on_the_digits_does_without_torchvision():
    """Whose import takes as long as torch's."""
    code = "import sys, vgg_course.runs as runs; runs.load_dataset('digits'); assert 'torchvision' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_wheel_from_the_sdist_is_the_same(built, tmp_path):
    with tarfile.open(built[1]) as archive:
        names = archive.getnames()
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    assert not [name for name in names if "/data/" in name and "/data/runs" not in name and "README" not in name]
    assert f"{source.name}/notebooks/01_layers.ipynb" in names
    again, _ = build(source, tmp_path / "dist")
    assert again.read_bytes() == built[0].read_bytes()


def test_packages_are_small(built):
    assert built[0].stat().st_size < 10e6 and built[1].stat().st_size < 20e6
