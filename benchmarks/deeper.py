"""A convolution more, or a hidden square in each image: do they buy accuracy?

    python benchmarks/deeper.py                    fast's network and three larger ones: an hour on two cores with bf16
    python benchmarks/deeper.py wide --cut 8       the network of wide: an hour for one run; needs CIFAR-10 in data/

``--cut`` hides a square of so many pixels, somewhere else in each image and epoch, behind the mean colour: the network
cannot rest on one sign alone. Source: DeVries and Taylor, 2017, "Improved regularization of convolutional neural
networks with cutout"; airbench96 (Jordan, 2024) has one of 12 pixels.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from loop import shuffled, train
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent.parent))

from vgg_course.data import Images, load_dataset
from vgg_course.evaluation import accuracy, predict
from vgg_course.recipes import BEST, WIDE
from vgg_course.runs import RUNS

ROOT = Path(__file__).parent.parent
NETWORKS = {  # name -> its networks, all with the same recipe
    "fast": (replace(BEST, epochs=10), [
        [24, 24, "M", 24, 128, "M", 128, 256, "M", 256],
        [24, 24, "M", 24, 128, "M", 128, 256, "M", 256, 256],
        [24, 24, "M", 24, 128, "M", 128, 256, "M", 512],
        [24, 24, "M", 24, 128, "M", 128, 128, 192, "M", 192, 192],
    ]),
    "wide": (replace(WIDE, epochs=17), [list(RUNS["wide"].cfg)]),
}  # fmt: skip


def cut_out(split: Images, size: int, seed: int, epoch: int) -> Images:
    """``split`` with a square of ``size`` pixels hidden in each image; its middle can be anywhere. 0: none."""
    if not size:
        return split
    count, (height, width) = len(split), split.images.shape[2:]
    chance = np.random.default_rng([seed, epoch, 1])
    top, left = (torch.from_numpy(chance.integers(-(size // 2), side - size // 2, count)) for side in (height, width))
    rows, columns = torch.arange(height) - top[:, None], torch.arange(width) - left[:, None]
    hidden = ((rows >= 0) & (rows < size))[:, :, None] & ((columns >= 0) & (columns < size))[:, None, :]
    pixels = split.images.permute(0, 2, 3, 1).clone()
    pixels[hidden] = torch.tensor([round(255 * mean) for mean in split.mean], dtype=torch.uint8)
    return replace(split, images=pixels.permute(0, 3, 1, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description="Train with a convolution more, or with a hidden square.")
    parser.add_argument("network", nargs="?", default="fast", choices=list(NETWORKS))
    parser.add_argument("--cut", type=int, default=0, help="the side of the hidden square in pixels (default: none)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        data = RUNS["best"].split(load_dataset("cifar10", ROOT / "data", verbose=False))
    except ConnectionError as error:
        return print(error)  # so that `make bench` goes on
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    recipe, networks = NETWORKS[options.network]
    recipe, count = replace(recipe, seed=options.seed), len(data.train)

    def loss(_: torch.Tensor, labels: torch.Tensor, __: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing, reduction="none")

    def change(split: Images, epoch: int) -> Images:
        return cut_out(split, options.cut, recipe.seed, epoch)

    for network in networks:
        run, started = replace(RUNS["best"], cfg=network, recipe=recipe), time.perf_counter()
        counts = [count] * recipe.epochs
        model = train(run, data, loss, counts, lambda epoch: shuffled(count, recipe.seed, epoch), change)
        told = []
        for views in (6, 2, 1):
            logits = predict(model, data.test, precision=recipe.resolve_precision(), views=views)
            told.append(f"{accuracy(logits, data.test.labels):.2%}")
        seconds = time.perf_counter() - started
        print(f"{network}: {', '.join(told)} with 6, 2 and 1 views in {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
