"""What is recorded is what would run again: recipes, networks, weights, and who validates."""

from dataclasses import asdict

import numpy as np
import pytest
import torch

from vgg_course import data, runs
from vgg_course.runs import RUNS, load_record
from vgg_course.training import Recipe


@pytest.mark.parametrize("name", ["quick", "fast", "best", "wide", "lecture_cured"])
def test_the_run_of_this_name_is_the_one_that_was_recorded(name):
    record, run = load_record(name), RUNS[name]
    since = asdict(Recipe(epochs=1, batch_size=1, lr=1.0))  # settings that came after the record, with their defaults
    assert since | record["recipe"] == asdict(run.recipe)
    assert (record["cfg"], record["views"]) == (list(run.cfg), run.views)
    if "training_images" in record:
        assert record["training_images"] == 50_000 - (run.validation or 5_000)
    assert run.identity == (name in ("fast", "best", "wide"))  # of the start, which no record and no weights show


@pytest.mark.parametrize("name", sorted(file.stem for file in runs.WEIGHTS.glob("*.pt")))
def test_the_weights_are_those_of_the_network_of_this_name(name):
    saved, run = torch.load(runs.WEIGHTS / f"{name}.pt", weights_only=True), RUNS[name]
    assert [saved[part] for part in ("cfg", "batch_norm", "layers", "head")] == [
        list(run.cfg), run.batch_norm, run.layers, run.head,
    ]  # fmt: skip


def test_the_same_validation_images_for_everybody():
    """With others, images that the shipped networks have learned from would judge them."""
    labels = np.arange(200) % 10
    pixels = np.broadcast_to(np.arange(200, dtype=np.uint8)[:, None, None, None], (200, 2, 2, 3))
    split = data._split("x", (pixels, labels), (pixels, labels), 20, data.CIFAR10_CLASSES)
    assert split.validation.images[:, 0, 0, 0].tolist() == [
        4, 9, 35, 37, 43, 53, 61, 71, 88, 120, 136, 138, 142, 144, 149, 150, 155, 166, 177, 192,
    ]  # fmt: skip
