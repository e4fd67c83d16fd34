"""Look less often at images that are easy: does the time that is saved buy accuracy?

    python benchmarks/easy.py                 a quarter of an hour on two cores with bf16; needs CIFAR-10 in data/
    python benchmarks/easy.py best --seed 1   another network, another seed: as long; ``wide``: an hour
    python benchmarks/easy.py long            the network of ``wide`` for 96 %: two hours

Of the easier half of the training images, by their loss when they were last seen, an epoch shows a random quarter, so
that none is left out for good; the harder half it shows whole. The first two epochs and the last have all. The losses
are those of the training itself: they cost nothing. Beside it the same network without this, for as many epochs as
cost about the same. Sources: Qin and others, 2024, "InfoBatch", which leaves out images below the mean loss; Jordan,
2024, whose airbench96 keeps the harder half of each batch. ``long`` also hides a square in each image (``deeper.py``).
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from deeper import cut_out
from loop import shuffled, train
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent.parent))

from vgg_course.data import Dataset, Images, load_dataset
from vgg_course.evaluation import accuracy, predict
from vgg_course.recipes import WIDE
from vgg_course.runs import RUNS, Run, save_weights

ROOT = Path(__file__).parent.parent
KEPT = 0.25  # of the easier half
LONG = {name: getattr(WIDE, name) for name in ("lr", "shift", "weight_decay", "small_part")}  # for fast's network too
# Run: the network, changes of its recipe, epochs with all images (None: recorded in data/runs/) and with fewer easy
# ones, the side of the hidden square in pixels (0: none).
NETWORKS: dict[str, tuple[str, dict[str, float], int | None, int, int]] = {
    "fast": ("fast", LONG, 12, 18, 0),
    "best": ("best", {}, None, 13, 0),
    "wide": ("wide", {}, None, 20, 0),
    "long": ("wide", {"lr": 0.08, "weight_decay": 0.001}, None, 56, 12),
}


def measure(
    run: Run, data: Dataset, kept: float, cut: int = 0, weights: Path | None = None
) -> tuple[list[float], float, float]:
    """Test accuracies with six, two and one view, seconds with six, and how many epochs of all images it was worth."""
    recipe, data = run.recipe, run.split(data)
    count, chance = len(data.train), np.random.default_rng(run.recipe.seed + 1000)
    last = torch.full((count,), torch.inf)  # the loss of each image when it was last seen
    easy, some = count - round(count / 2), round(count / 2 * kept)
    whole = [kept == 1 or epoch in (0, 1, recipe.epochs - 1) for epoch in range(recipe.epochs)]
    counts = [count if all_images else count - easy + some for all_images in whole]

    def choose(epoch: int) -> torch.Tensor:
        if whole[epoch]:
            return shuffled(count, recipe.seed, epoch)
        order = last.argsort().numpy()
        shown = np.concatenate([order[easy:], chance.permutation(order[:easy])[:some]])
        return shuffled(shown, recipe.seed, epoch)

    def loss(_: torch.Tensor, labels: torch.Tensor, positions: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        each = functional.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing, reduction="none")
        last[positions] = each.detach()
        return each

    def change(split: Images, epoch: int) -> Images:
        return cut_out(split, cut, recipe.seed, epoch)

    started = time.perf_counter()
    model, precision = train(run, data, loss, counts, choose, change), recipe.resolve_precision()
    scores, seconds = [], 0.0
    for views in (6, 2, 1):
        scores.append(accuracy(predict(model, data.test, precision=precision, views=views), data.test.labels))
        seconds = seconds or time.perf_counter() - started
    if weights:
        save_weights(model, run, weights)
    return scores, seconds, sum(counts) / count


def main() -> None:
    parser = argparse.ArgumentParser(description="Look less often at images that are easy.")
    parser.add_argument("network", nargs="?", default="fast", choices=list(NETWORKS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", type=Path, help="where to write the last network's weights (default: nowhere)")
    options = parser.parse_args()
    try:
        data = load_dataset("cifar10", ROOT / "data", verbose=False)
    except ConnectionError as error:
        return print(error)  # so that `make bench` goes on
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    network, changes, *epochs, cut = NETWORKS[options.network]
    run = RUNS[network]
    for name, kept, count in zip(("all images", "fewer easy ones"), (1.0, KEPT), epochs, strict=True):
        if count is None:
            continue
        recipe = replace(run.recipe, epochs=count, seed=options.seed, **changes)
        scores, seconds, worth = measure(replace(run, recipe=recipe), data, kept, cut, options.weights)
        told = ", ".join(f"{score:.2%}" for score in scores)
        print(f"{name}: {told} with 6, 2 and 1 views; {worth:.1f} epochs in {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
