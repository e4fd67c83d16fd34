"""The lecture's own loops against ours, on the lecture's network: a training step, the test, memory, and the import.

    python benchmarks/lecture.py              4 to 8 minutes on two cores

Both loops run in turn in one process, and the medians are compared, so that a slow moment of the machine hits both.
The lecture's loops are written as it has them: a DataLoader with 4 workers that turns pictures into normalised tensors
one by one, fp32, test batches of 4. The test has autograd on, as in the target that is measured here; the post itself
has ``no_grad`` around its accuracy loop, and only its call for four images goes without. Needs CIFAR-10 in data/, or
takes the digits.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).parent.parent))

from vgg_course.data import Images, load_dataset
from vgg_course.evaluation import predict
from vgg_course.runs import RUNS
from vgg_course.training import fit

ROOT = Path(__file__).parent.parent
STEP, ROUNDS = 512, 3


class Pictures(Dataset):
    """What torchvision's CIFAR10 is: pictures, each one turned into a normalised tensor when it is asked for."""

    def __init__(self, split: Images) -> None:
        self.pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in split.images]
        self.labels = split.labels.tolist()
        half = (0.5, 0.5, 0.5)
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(half, half)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.pictures[i]), self.labels[i]


def in_turn(ways: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Median seconds of each way; a first round warms up and does not count."""
    seconds = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def training(train: Images, data) -> None:
    """Two steps of 512 images: the lecture's loop against fit with bf16 (where there is) and channels_last."""
    part = train.subset(slice(0, 2 * STEP))
    loader = DataLoader(Pictures(part), batch_size=STEP, shuffle=True, num_workers=4)
    posted, ours = RUNS["lecture"].build(), RUNS["lecture"].build()
    criterion, optimizer = nn.CrossEntropyLoss(), torch.optim.SGD(posted.parameters(), lr=0.005, momentum=0.9)
    small = replace(data, train=part, validation=data.validation.subset(slice(0, 1)))
    recipe = replace(RUNS["lecture"].recipe, epochs=1, precision="auto", channels_last=True)

    def lecture() -> None:
        for inputs, labels in loader:
            optimizer.zero_grad()
            loss = criterion(posted(inputs), labels)
            loss.backward()
            optimizer.step()
            loss.item()

    took = in_turn({"lecture": lecture, "fit": lambda: fit(ours, small, recipe, progress=False)})
    ratio = took["lecture"] / took["fit"]
    print(f"step of {STEP}, data included: lecture {took['lecture'] / 2:.2f} s, fit {took['fit'] / 2:.2f} s")
    print(f"  ratio {ratio:.1f} (target 3.3): {'met' if ratio >= 3.3 else 'missed'}", flush=True)


def testing(test: Images) -> None:
    """The first images of the test split, as many as make a batch of ours: per image, the rest is the same again."""
    part = test.subset(slice(0, 1000))
    few = part.subset(slice(0, 100))
    network = RUNS["lecture"].build()
    loader = DataLoader(Pictures(few), batch_size=4, shuffle=False, num_workers=4)
    precision = RUNS["quick"].recipe.resolve_precision()
    fast = RUNS["lecture"].build().to(memory_format=torch.channels_last)

    def lecture() -> None:
        for images, _ in loader:
            network(images).max(1)  # autograd on, as in the target (the post's accuracy loop has no_grad); no eval()

    took = in_turn({"lecture": lecture, "predict": lambda: predict(fast, part, precision=precision)})
    ratio = (took["lecture"] / len(few)) / (took["predict"] / len(part))
    print(f"test, an image: lecture {10 * took['lecture']:.2f} ms, predict {took['predict']:.2f} ms")
    print(f"  ratio {ratio:.1f} (target 20): {'met' if ratio >= 20 else 'missed'}", flush=True)


def importing() -> None:
    """What ``import vgg_course.vgg`` adds to ``import torch``: median of five processes each, in turn."""

    def seconds(code: str) -> float:
        command = [
            sys.executable,
            "-c",
            f"import time; s = time.perf_counter(); {code}; print(time.perf_counter() - s)",
        ]
        return float(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)

    pairs = [(seconds("import torch"), seconds("import torch, vgg_course.vgg")) for _ in range(5)]
    more = statistics.median(b for _, b in pairs) - statistics.median(a for a, _ in pairs)
    print(f"import vgg_course.vgg: {more:+.3f} s more than torch (target 0.1): {'met' if more <= 0.1 else 'missed'}")


def memory(name: str) -> None:
    """The largest resident memory of a process that loads the data and trains ``quick``."""
    code = (
        "import resource; from vgg_course.data import load_dataset; from vgg_course.runs import RUNS;"
        f"from vgg_course.training import fit; data = load_dataset({name!r}, verbose=False); run = RUNS['quick'];"
        "history = fit(run.build(train=data.train), data, run.recipe, progress=False);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"  # in kB, on a Mac in bytes
    )
    if sys.platform == "win32":
        return print("memory: Windows does not tell it this way")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    used = float(done.stdout.split()[-1]) / (2**30 if sys.platform == "darwin" else 2**20)
    print(
        f"memory of a run of quick on {name}: {used:.2f} GB (target 2): {'met' if used <= 2 else 'missed'}", flush=True
    )


def main() -> None:
    data = load_dataset("auto", ROOT / "data")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    importing()
    memory(data.name)
    training(data.train, data)
    testing(data.test)


if __name__ == "__main__":
    main()
