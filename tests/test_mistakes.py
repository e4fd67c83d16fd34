"""The mistakes that learners make: each gets one exception of a standard kind that has the value and the next step.

``CASES`` has them by function. What is raised must come from the course's own code, before any time is spent.
"""

import traceback
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from vgg_course import plots, runs, speed, training
from vgg_course.data import Dataset, batches, load_dataset
from vgg_course.evaluation import accuracy, confusion_matrix, mistakes, per_class_accuracy, predict
from vgg_course.tracking import LossTracker
from vgg_course.training import QUICK, Recipe, fit
from vgg_course.vgg import VGG, cfg, make_layers, vgg11

DIGITS = load_dataset("digits", verbose=False)
TRAIN = DIGITS.train.subset(slice(0, 64))
DATA = Dataset(TRAIN, DIGITS.validation.subset(slice(0, 20)), DIGITS.test.subset(slice(0, 20)), "digits")
RECIPE = replace(QUICK, batch_size=32, precision="fp32", device="cpu")
SMALL = replace(RECIPE, small_part=0.5)
LOGITS = torch.zeros(64, 10)
PICTURE = Image.new("RGB", (32, 32))
TINY = replace(TRAIN, images=TRAIN.images[:, :, :4, :4])
OTHER_CLASSES = replace(DATA.validation, classes=tuple(reversed(TRAIN.classes)))
LARGE = replace(DATA, validation=replace(DATA.validation, images=DATA.validation.images.repeat(1, 1, 2, 2)))
DEEP = ["M"] * 5 + [4]  # its batch norm sees a single pixel


def net(num_classes=10, cfg=(4, "M", 8, "M"), **head):
    head = {"global_pool": True, "hidden": ()} | head
    return VGG(make_layers(list(cfg), batch_norm=True), num_classes, **head)


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x):
        return self.net(x), x


def train(model=None, data=DATA, recipe=RECIPE, **more):
    return fit(model or net(), data, recipe, progress=False, **more)


def recipe(**changes):
    return Recipe(**{"epochs": 1, "batch_size": 8, "lr": 0.1} | changes)


def forward(x):
    return net()(x)


def in_short_numbers(x):
    with torch.autocast("cpu", torch.bfloat16):
        return forward(x)


def grid(images, *more, **options):
    return plots.image_grid(images, *more, **options)


IMAGES = torch.zeros(4, 3, 32, 32)
CASES = {
    "make_layers": [
        (lambda: make_layers(None), ValueError, "not None"),
        (lambda: make_layers("D"), ValueError, "did you mean cfg['D']"),
        (lambda: make_layers("d"), ValueError, "did you mean cfg['D']"),
        (lambda: make_layers(64), ValueError, "not 64"),
        (lambda: make_layers(torch.tensor([64])), ValueError, "takes a list"),
        (lambda: make_layers([]), ValueError, "no convolution"),
        (lambda: make_layers(["M"]), ValueError, "no convolution"),
        (lambda: make_layers([8, "X"]), ValueError, "entry 1 is 'X'"),
        (lambda: make_layers([8, "m"]), ValueError, "entry 1 is 'm'"),
        (lambda: make_layers([0]), ValueError, "entry 0 is 0"),
        (lambda: make_layers([8, -3]), ValueError, "entry 1 is -3"),
        (lambda: make_layers([1.5]), ValueError, "entry 0 is 1.5"),
        (lambda: make_layers([True]), ValueError, "entry 0 is True"),
        (lambda: make_layers([float("nan")]), ValueError, "entry 0 is nan"),
        (lambda: make_layers([[8]]), ValueError, "entry 0 is [8]"),
        (lambda: make_layers([None]), ValueError, "entry 0 is None"),
        (lambda: make_layers([10**30]), ValueError, "entry 0 is 1000"),
        (lambda: make_layers([8], patch=0), ValueError, "not 0"),
        (lambda: cfg["vgg16"], KeyError, "no cfg 'vgg16'"),
        (lambda: cfg["a"], KeyError, "did you mean 'A'"),
        (lambda: cfg["cifar"], KeyError, "did you mean 'cifar10'"),
    ],
    "VGG": [
        (lambda: VGG(None), TypeError, "make_layers(cfg)"),
        (lambda: VGG(cfg["A"]), TypeError, "make_layers(cfg)"),
        (lambda: VGG(torch.nn.Identity(), global_pool=True), ValueError, "no convolution"),
        (lambda: VGG(torch.nn.Sequential(torch.nn.ReLU()), input_size=32), ValueError, "no convolution"),
        (lambda: net(0), ValueError, "num_classes is 0"),
        (lambda: net(-3), ValueError, "num_classes is -3"),
        (lambda: net("10"), ValueError, "num_classes is '10'"),
        (lambda: net(2.0), ValueError, "num_classes is 2.0"),
        (lambda: net(hidden=(0,)), ValueError, "hidden is 0"),
        (lambda: net(hidden=("wide",)), ValueError, "hidden is 'wide'"),
        (lambda: net(dropout=2), ValueError, "dropout is 2"),
        (lambda: net(dropout=None), ValueError, "dropout is None"),
        (lambda: net(global_pool="mean"), ValueError, "not 'mean'"),
        (lambda: net(input_size=32), ValueError, "not both"),
        (lambda: net(global_pool=False, input_size=32.0), ValueError, "not 32.0"),
        (lambda: net(global_pool=False, input_size=2), ValueError, "2 pixels allow 1"),
        (lambda: vgg11(pretrained=True, num_classes=10), ValueError, "replace the last layer"),
    ],
    "forward": [
        (lambda: forward(PICTURE), TypeError, "not Image"),
        (lambda: forward(np.zeros((1, 3, 32, 32), np.float32)), TypeError, "not ndarray"),
        (lambda: forward([1, 2]), TypeError, "not list"),
        (lambda: forward(TRAIN.images[:2]), ValueError, "torch.uint8"),
        (lambda: forward(TRAIN.images[0]), ValueError, "unsqueeze"),
        (lambda: forward(TRAIN.images[:2].permute(0, 2, 3, 1)), ValueError, "x.permute(0, 3, 1, 2)"),
        (lambda: forward(IMAGES.double()), ValueError, "x.to(torch.float32)"),
        (lambda: forward(IMAGES.permute(0, 2, 3, 1)), ValueError, "x.permute(0, 3, 1, 2)"),
        (lambda: forward(IMAGES[0]), ValueError, "unsqueeze"),
        (lambda: in_short_numbers(IMAGES.double()), ValueError, "x.to(torch.float32)"),
        (lambda: forward(IMAGES[:, :1]), ValueError, "has 1"),
        (lambda: forward(torch.zeros(1, 3, 2, 2)), ValueError, "2 pixels allow 1"),
        (lambda: forward(IMAGES.to("meta")), ValueError, "x.to('cpu')"),
        (lambda: net(global_pool=False, hidden=(8,))(IMAGES), ValueError, "25088"),
    ],
    "load_dataset": [
        (lambda: load_dataset("CIFAR10"), ValueError, "'CIFAR10'"),
        (lambda: load_dataset("digit"), ValueError, "'digit'"),
        (lambda: load_dataset(5), ValueError, "is 5"),
        (lambda: load_dataset(None), ValueError, "is None"),
        (lambda: load_dataset("cifar10", root=7), TypeError, "not 7"),
        (lambda: load_dataset("cifar10", root=__file__), NotADirectoryError, "is a file"),
    ],
    "Images": [
        (lambda: replace(TRAIN, images=TRAIN.images.float()), ValueError, "torch.float32"),
        (lambda: replace(TRAIN, images=TRAIN.images.permute(0, 2, 3, 1)), ValueError, "permute(0, 3, 1, 2)"),
        (lambda: replace(TRAIN, images=TRAIN.images.numpy()), TypeError, "not ndarray"),
        (lambda: replace(TRAIN, images=[PICTURE]), TypeError, "not list"),
        (lambda: replace(TRAIN, images=TRAIN.images[0]), ValueError, "(3, 32, 32)"),
        (lambda: replace(TRAIN, images=TRAIN.images[:, :1]), ValueError, "(64, 1, 32, 32)"),
        (lambda: replace(TRAIN, labels=TRAIN.labels[:5]), ValueError, "(5,)"),
        (lambda: replace(TRAIN, labels=TRAIN.labels + 1), ValueError, "from 1 to 10"),
        (lambda: replace(TRAIN, labels=TRAIN.labels - 1), ValueError, "from -1 to 8"),
        (lambda: replace(TRAIN, labels=TRAIN.labels.int()), ValueError, "torch.int32"),
        (lambda: replace(TRAIN, labels=TRAIN.labels.float()), ValueError, "torch.float32"),
        (lambda: replace(TRAIN, labels=TRAIN.labels[:, None]), ValueError, "(64, 1)"),
        (lambda: replace(TRAIN, labels=[1] * 64), TypeError, "not list"),
        (lambda: replace(TRAIN, std=(0.0, 0.0, 0.0)), ValueError, "std above 0"),
        (lambda: replace(TRAIN, mean=(0.5,)), ValueError, "3 numbers each"),
        (lambda: replace(TRAIN, mean=TRAIN.images.float().mean((0, 2, 3))), ValueError, "divide those of bytes by 255"),
        (lambda: replace(TRAIN, std=TRAIN.images.float().std((0, 2, 3))), ValueError, "divide those of bytes by 255"),
        (lambda: replace(TRAIN, mean=(float("nan"),) * 3), ValueError, "nan"),
        (lambda: replace(TRAIN, images=TRAIN.images / 255), ValueError, "(255 * images).round()"),
        (lambda: TRAIN.normalize(TRAIN.images[0]), ValueError, "image[None]"),
        (lambda: TRAIN.normalize(TRAIN.images.permute(0, 2, 3, 1)), ValueError, "permute(0, 3, 1, 2)"),
        (lambda: TRAIN.normalize(TRAIN.images[:, :1]), ValueError, "expand(-1, 3, -1, -1)"),
        (lambda: TRAIN.normalize(TRAIN.images.numpy()), ValueError, "not ndarray"),
        (lambda: TRAIN.normalize(TRAIN.images / 255), ValueError, "255 * images"),
    ],
    "batches": [
        (lambda: next(batches(TRAIN.images, 4)), TypeError, "not Tensor"),
        (lambda: next(batches(DATA, 4)), TypeError, "data.train"),
        (lambda: next(batches(TRAIN, 0)), ValueError, "not 0"),
        (lambda: next(batches(TRAIN, 2.5)), ValueError, "not 2.5"),
        (lambda: next(batches(TRAIN, True)), ValueError, "not True"),
        (lambda: next(batches(TRAIN, -4)), ValueError, "not -4"),
        (lambda: next(batches(TRAIN.subset(slice(0, 0)), 4)), ValueError, "no images"),
        (lambda: next(batches(TRAIN, 4, seed=-1)), ValueError, "seed is -1"),
        (lambda: next(batches(TINY, 4, augment=True)), ValueError, "up to 4 pixels, but a side has 4"),
        (lambda: next(batches(TRAIN, 4, epoch="1")), ValueError, "epoch is '1'"),
        (lambda: next(batches(TRAIN, 4, first_step=-1)), ValueError, "first_step is -1"),
    ],
    "Recipe": [
        (lambda: recipe(epochs=0), ValueError, "epochs is 0"),
        (lambda: recipe(epochs="3"), ValueError, "epochs is '3'"),
        (lambda: recipe(batch_size=True), ValueError, "batch_size is True"),
        (lambda: recipe(lr=-1), ValueError, "lr is -1"),
        (lambda: recipe(lr=float("nan")), ValueError, "lr is nan"),
        (lambda: recipe(lr=10**400), ValueError, "lr is 1000"),
        (lambda: recipe(schedule=["linear"]), ValueError, "['linear']"),
        (lambda: recipe(momentum=1), ValueError, "momentum is 1"),
        (lambda: recipe(nesterov=True, momentum=0.0), ValueError, "nesterov is True"),
        (lambda: recipe(weight_decay=None), ValueError, "weight_decay is None"),
        (lambda: recipe(schedule="cosine"), ValueError, "'cosine'"),
        (lambda: recipe(label_smoothing=1), ValueError, "label_smoothing is 1"),
        (lambda: recipe(optimizer="adam"), ValueError, "'adam'"),
        (lambda: recipe(other_lr=0.1), ValueError, "not muon"),
        (lambda: recipe(augmentation="flip"), ValueError, "'flip'"),
        (lambda: recipe(small_part=2), ValueError, "small_part is 2"),
        (lambda: recipe(shift=-1), ValueError, "shift is -1"),
        (lambda: recipe(compile=1), ValueError, "compile is 1"),
        (lambda: recipe(precision="fp8"), ValueError, "'fp8'"),
        (lambda: recipe(channels_last=1), ValueError, "channels_last is 1"),
        (lambda: recipe(seed=-1), ValueError, "seed is -1"),
        (lambda: recipe(seed=2**64), ValueError, "below 2**63"),
        (lambda: recipe(device="meta"), ValueError, "'meta'"),
        (lambda: recipe(device="gpu"), ValueError, "'gpu'"),
        (lambda: recipe(device=None), ValueError, "device is None"),
    ],
    "fit": [
        (lambda: fit(None, DATA, RECIPE), TypeError, "not None"),
        (lambda: fit(VGG, DATA, RECIPE), TypeError, "model must be a Module"),
        (lambda: train(make_layers([4])), ValueError, "(1, 4, 32, 32)"),
        (lambda: train(net(7)), ValueError, "(1, 7)"),
        (lambda: train(net(1000)), ValueError, "num_classes=10"),
        (lambda: train(Pair()), ValueError, "the model gives a tuple"),
        (lambda: train(net().half()), ValueError, "model.float() first"),
        (lambda: train(net(global_pool=False, input_size=32), recipe=SMALL), ValueError, "no images at 3/4 of their"),
        (lambda: train(net().requires_grad_(False)), ValueError, "requires_grad=False"),
        (lambda: train(net(cfg=[4] + ["M"] * 6)), ValueError, "32 pixels allow 5"),
        (lambda: train(net(cfg=DEEP), replace(DATA, train=TRAIN.subset(slice(0, 33)))), ValueError, "has only one"),
        (lambda: train(data=TRAIN), TypeError, "data must be a Dataset"),
        (lambda: train(data=TRAIN.images), TypeError, "data must be a Dataset"),
        (lambda: train(data=replace(DATA, train=TRAIN.subset(slice(0, 0)))), ValueError, "data.train of digits"),
        (lambda: train(data=replace(DATA, validation=TRAIN.subset(slice(0, 0)))), ValueError, "data.validation"),
        (lambda: train(data=replace(DATA, train=TRAIN.images)), TypeError, "data.train must be an Images, not Tensor"),
        (lambda: train(data=replace(DATA, validation=TRAIN.images)), TypeError, "data.validation must be an Images"),
        (lambda: train(data=replace(DATA, validation=OTHER_CLASSES)), ValueError, "other classes than data.train"),
        (lambda: train(model=net(global_pool=False, input_size=32), data=LARGE), ValueError, "give 2048 numbers"),
        (lambda: train(nn.Sequential(nn.Flatten(), nn.Linear(100, 10))), ValueError, "(1, 3, 32, 32): mat1 and mat2"),
        (
            lambda: train(nn.Sequential(nn.Conv2d(1, 10, 32), nn.Flatten())),
            ValueError,
            "Given groups=1",
        ),
        (lambda: train(recipe="quick"), TypeError, "not 'quick'"),
        (lambda: train(recipe={"lr": 0.1}), TypeError, "recipe must be a Recipe"),
        (lambda: train(tracker=5), TypeError, "not 5"),
        (lambda: train(tracker="run"), TypeError, "not 'run'"),
        (lambda: train(checkpoint=5), TypeError, "not 5"),
    ],
    "evaluation": [
        (lambda: predict(None, TRAIN), TypeError, "NoneType"),
        (lambda: predict(net(), TRAIN.images), TypeError, "data.test"),
        (lambda: predict(net(), DATA), TypeError, "Dataset"),
        (lambda: predict(net(), TRAIN, batch_size=0), ValueError, "not 0"),
        (lambda: predict(net(), TRAIN, precision="fp8"), ValueError, "'fp8'"),
        (lambda: predict(net(), TRAIN, views=3), ValueError, "not 3"),
        (lambda: accuracy(TRAIN.labels, LOGITS), ValueError, "(64,) and (64, 10)"),
        (lambda: accuracy([1], [1]), TypeError, "list and list"),
        (lambda: accuracy(LOGITS[:0], TRAIN.labels[:0]), ValueError, "N > 0"),
        (lambda: accuracy(LOGITS, TRAIN.labels + 1), ValueError, "from 1 to 10"),
        (lambda: accuracy(LOGITS * torch.nan, TRAIN.labels), ValueError, "nan: the network has diverged"),
        (lambda: confusion_matrix(LOGITS * torch.nan, TRAIN.labels), ValueError, "nan: the network has diverged"),
        (lambda: mistakes(LOGITS.long(), TRAIN.labels), TypeError, "logits are floats, not torch.int64"),
        (lambda: per_class_accuracy(LOGITS, TRAIN.labels - 1), ValueError, "from -1 to 8"),
        (lambda: mistakes(LOGITS, TRAIN.labels, most=-1), ValueError, "not -1"),
    ],
    "plots": [
        (lambda: grid(PICTURE), ValueError, "(32, 32, 3)"),
        (lambda: grid(IMAGES[0]), ValueError, "image[None]"),
        (lambda: grid(IMAGES.permute(0, 2, 3, 1)), ValueError, "permute(0, 3, 1, 2)"),
        (lambda: grid(IMAGES[:0]), ValueError, "0 images"),
        (lambda: grid(IMAGES, columns=0), ValueError, "0 columns"),
        (lambda: grid(IMAGES - 2), ValueError, "give mean and std"),
        (lambda: grid(IMAGES * torch.nan), ValueError, "nan"),
        (lambda: grid(IMAGES, ["a"], torch.arange(4)), ValueError, "no class 1"),
        (lambda: grid(IMAGES, None, torch.arange(2)), ValueError, "but 2 labels"),
        (lambda: grid(IMAGES, DIGITS.classes, torch.arange(5)), ValueError, "but 5 labels: give those of the same"),
        (lambda: grid(IMAGES, predicted=LOGITS[:4]), ValueError, "logits.argmax(1)"),
        (lambda: grid(TRAIN.images.float()), ValueError, "to(torch.uint8)"),
        (lambda: grid(TRAIN.images.long(), mean=TRAIN.mean, std=TRAIN.std), ValueError, "to(torch.uint8)"),
        (lambda: plots.curves(None), TypeError, "NoneType"),
        (lambda: plots.curves("quick"), TypeError, "str"),
        (lambda: plots.curves({"a": 3}), TypeError, "'a'"),
        (lambda: plots.confusion(np.zeros((3, 3)), DIGITS.classes), ValueError, "(3, 3)"),
        (lambda: plots.filters(torch.zeros(4, 8, 3, 3)), ValueError, "(4, 8, 3, 3)"),
        (lambda: plots.feature_maps(torch.zeros(1, 8, 3, 3)), ValueError, "(1, 8, 3, 3)"),
        (lambda: plots.feature_maps(torch.zeros(0, 3, 3)), ValueError, "(0, 3, 3)"),
        (lambda: plots.feature_maps(torch.zeros(2, 3, 3), columns=0), ValueError, "not 0"),
    ],
    "speed": [
        (lambda: speed.whiten(nn.Linear(2, 2), TRAIN), ValueError, "None"),
        (lambda: speed.whiten(nn.Conv2d(3, 3, 2), TRAIN), ValueError, "it has 3"),
        (lambda: speed.whiten(nn.Conv2d(1, 4, 2), TRAIN), ValueError, "3 channels"),
        (lambda: speed.whiten(nn.Conv2d(3, 4, 2), TRAIN, count=0), ValueError, "count is 0"),
        (lambda: speed.whiten(nn.Conv2d(3, 4, 2), DIGITS), TypeError, "such as data.train, not Dataset"),
        (lambda: speed.Muon([]), ValueError, "frozen"),
        (lambda: speed.smaller(IMAGES, 0), ValueError, "part is 0"),
        (lambda: speed.smaller(IMAGES, -1), ValueError, "part is -1"),
        (lambda: speed.augmented(TRAIN, seed=-1, epoch=0), ValueError, "-1 and 0"),
        (lambda: speed.augmented(TRAIN, seed=0, epoch=0, shift=32), ValueError, "below the images' 32x32, not 32"),
        (lambda: speed.views(IMAGES, 5), ValueError, "not 5"),
    ],
    "runs": [
        (lambda: runs.load_record("fasst"), FileNotFoundError, "fasst.json; there are: "),
        (lambda: runs.load_trained("bst"), FileNotFoundError, "bst.pt; there are: best, fast"),
        (lambda: runs.train("quik"), ValueError, "choose one of"),
        (lambda: runs.train("quick", "digits", lerning_rate=3), ValueError, "lerning_rate"),
        (lambda: runs.train("quick", "imagenet"), ValueError, "'imagenet'"),
    ],
    "LossTracker": [
        (lambda: LossTracker("x", mode="web"), ValueError, "'web'"),
        (lambda: LossTracker("x", mode="log")(0, {"loss": torch.zeros(3)}), ValueError, "(3,)"),
        (lambda: LossTracker("x", mode="log")(0, {"loss": "high"}), ValueError, "'high'"),
        (lambda: LossTracker("x", mode="log")("a", {"loss": 1.0}), ValueError, "'a'"),
        (lambda: LossTracker("x", mode="log")(0, 1.0), TypeError, "not 1.0"),
        (
            lambda: LossTracker("x", mode="log")(None, {"loss": 1.0}),
            ValueError,
            "a whole number, not None",
        ),
        (lambda: LossTracker("x", mode="log")(float("inf"), {"loss": 1.0}), ValueError, "not inf"),
        (lambda: LossTracker("x", mode="log")(np.arange(2), {"loss": 1.0}), ValueError, "not array([0, 1])"),
        (lambda: LossTracker("x", mode="log")(0, {"epoch": float("nan")}), ValueError, "epoch must be a whole number"),
        (lambda: LossTracker("x", mode="off").figure("x", "no figure"), TypeError, "not 'no figure'"),
        (lambda: LossTracker("x", mode="off").overlay("y"), ValueError, "no run 'y'"),
        (lambda: LossTracker("x", mode="off").overlay("y", training.History()), TypeError, "as many values by name"),
        (lambda: LossTracker("x", mode="off").overlay("y", {"loss": [1.0, 2.0, 3.0]}), TypeError, "by name, such as"),
        (lambda: LossTracker("x", mode="off").overlay("y", {"loss": ([0], [1.0, 2.0])}), TypeError, "as many values"),
    ],
}
ROWS = [(name, i, *row) for name, rows in CASES.items() for i, row in enumerate(rows)]


@pytest.mark.parametrize(("name", "number", "mistake", "kind", "words"), ROWS, ids=[f"{r[0]}-{r[1]}" for r in ROWS])
def test_a_mistake_gets_a_clear_answer(name, number, mistake, kind, words):
    with pytest.raises(kind) as error:
        mistake()
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    raised_in = traceback.extract_tb(error.value.__traceback__)[-1].filename.replace("\\", "/")
    assert "/vgg_course/" in raised_in, f"raised in {raised_in}"


def test_a_failed_call_changes_nothing():
    """Neither weights nor mode of a model that fit refuses, nor the random numbers of what comes after."""
    model = net(7).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    with pytest.raises(ValueError):
        train(model)
    assert model.training and torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_number_of_cases():
    assert len(ROWS) > 150
