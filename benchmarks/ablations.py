"""What batch norm, augmentation and weight decay bring: small runs with each choice of the three, three seeds each.

    python benchmarks/ablations.py                                     CIFAR-10: ten minutes on one thread
    python benchmarks/ablations.py --record data/runs/ablations.json   the same, and keep it for notebook 03
    python benchmarks/ablations.py --quick                             the digits sample, one epoch: some seconds

Few images and many epochs, so that a network can learn its images by heart. All runs share network, learning rate and
schedule; nothing was tuned for one of them, and none was chosen by its test accuracy.
"""

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from vgg_course.data import Dataset, load_dataset
from vgg_course.evaluation import accuracy, predict
from vgg_course.runs import _processor
from vgg_course.training import Recipe, fit
from vgg_course.vgg import VGG, make_layers

DATA = Path(__file__).parent.parent / "data"
CFG = [16, "M", 32, "M", 64, "M", 128, "M"]
RECIPE = Recipe(
    epochs=30, batch_size=100, lr=0.05, weight_decay=5e-3, schedule="one_cycle", augmentation=True
)  # fmt: skip
IMAGES, SEEDS, SPLITS = 2_000, (0, 1, 2), ("train", "validation", "test")
VARIANTS = {  # name -> (batch norm, what else the recipe changes)
    "all three": (True, {}),
    "no batch norm": (False, {}),
    "no augmentation": (True, {"augmentation": False}),
    "no weight decay": (True, {"weight_decay": 0.0}),
    "only batch norm": (True, {"augmentation": False, "weight_decay": 0.0}),
    "only augmentation": (False, {"weight_decay": 0.0}),
    "only weight decay": (False, {"augmentation": False}),
    "none of the three": (False, {"augmentation": False, "weight_decay": 0.0}),
}


def measure(batch_norm: bool, recipe: Recipe, data: Dataset) -> dict[str, float | list[float]]:
    """One run: losses and validation accuracy of each epoch, and at its end the accuracies (0 to 1) on all splits."""
    torch.manual_seed(recipe.seed)
    model = VGG(make_layers(CFG, batch_norm=batch_norm), len(data.classes), global_pool=True, hidden=())
    history = fit(model, data, recipe, progress=False)
    scores = {split: accuracy(predict(model, getattr(data, split)), getattr(data, split).labels) for split in SPLITS}
    curves = {"validation_accuracy_by_epoch": history.validation_accuracy}
    curves |= {name: getattr(history, name) for name in ("train_loss", "validation_loss")}
    ends = {f"{split}_accuracy": round(score, 4) for split, score in scores.items()}
    return ends | {name: [round(value, 4) for value in values] for name, values in curves.items()}


def main() -> None:
    """Print a line for each run, then mean and standard deviation of each variant; record them if asked to."""
    parser = argparse.ArgumentParser(description="Measure what batch norm, augmentation and weight decay bring.")
    parser.add_argument("--quick", action="store_true", help="the digits only, one epoch: to see that it works")
    parser.add_argument("--record", type=Path, help="a JSON file to write")
    options = parser.parse_args()
    recipe = replace(RECIPE, epochs=1) if options.quick else RECIPE
    if not options.quick and not any(
        (DATA / name).is_dir() for name in ("cifar10", "cifar10-images", "cifar-10-batches-py")
    ):
        print(f"CIFAR-10 is not in {DATA}: nothing is measured (--quick takes the digits)")
        return
    data = load_dataset("digits" if options.quick else "cifar10", DATA, verbose=False)
    few = replace(data, train=data.train.subset(slice(0, IMAGES)), validation=data.validation.subset(slice(0, 2_000)))
    started, found = time.perf_counter(), {}
    for name, (batch_norm, changes) in VARIANTS.items():
        found[name] = []
        for seed in SEEDS:
            found[name].append(measure(batch_norm, replace(recipe, seed=seed, **changes), few))
            last = found[name][-1]
            print(
                f"{name:18} seed {seed}: train {last['train_accuracy']:.1%}, test {last['test_accuracy']:.1%}",
                flush=True,
            )
    print("\nmean of seeds ± standard deviation (%), images of the training and of the test")
    for name, runs in found.items():
        words = []
        for split in ("train", "test"):
            scores = [100 * run[f"{split}_accuracy"] for run in runs]
            words.append(f"{split} {statistics.mean(scores):5.1f} ± {statistics.stdev(scores):3.1f}")
        print(f"{name:18} {'   '.join(words)}")
    if options.record:
        command = f"python benchmarks/ablations.py --record data/runs/{options.record.name}"
        record = {
            "name": options.record.stem,
            "dataset": data.name,
            "images": len(few.train),
            "cfg": CFG,
            "recipe": asdict(recipe),
            "precision": recipe.resolve_precision(),
            "seeds": list(SEEDS),
            "seconds": round(time.perf_counter() - started, 1),
            "machine": f"{_processor()}, {torch.get_num_threads()} threads, {recipe.resolve_device().type}",
            "torch": torch.__version__,
            "command": command,
            "variants": found,
        }
        options.record.write_text(json.dumps(record) + "\n", encoding="utf-8")
        print(f"record: {options.record}")


if __name__ == "__main__":
    main()
