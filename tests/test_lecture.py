"""Someone who has the lecture open can follow along: its code runs against the package, with a real visdom server.

Only sizes are made smaller (120 images, 30 batches of 4, one epoch, no worker processes), and the data and the
server's port are those of the test.
"""

import contextlib
import functools
import io
import json
import warnings

import lecture_code
import matplotlib.pyplot as plt
import pytest
import torch
import torchvision
import visdom
from PIL import Image

from vgg_course import own_server
from vgg_course.data import load_dataset
from vgg_course.vgg import VGG, cfg, make_layers

SMALLER = {"batch_size=512": "batch_size=4", "epochs = 50": "epochs = 1", "num_workers=4": "num_workers=0"}


class Digits(torch.utils.data.Dataset):
    """The digits in the place of ``torchvision.datasets.CIFAR10``, with the arguments that the lecture gives."""

    def __init__(self, root, train, download, transform):
        digits = load_dataset("digits", verbose=False)
        self.split = digits.train.subset(slice(0, 120)) if train else digits.test.subset(slice(0, 20))
        self.transform = transform

    def __len__(self):
        return len(self.split)

    def __getitem__(self, i):
        image = Image.fromarray(self.split.images[i].permute(1, 2, 0).numpy())
        return self.transform(image), int(self.split.labels[i])


@pytest.fixture(scope="module")
def lecture():
    """The lecture's code, run from top to bottom: its variables, and what it printed."""
    server = own_server.OwnServer("", False)
    server.wait_until_ready()
    printed, variables, patch = io.StringIO(), {}, pytest.MonkeyPatch()
    patch.setattr(visdom, "Visdom", functools.partial(visdom.Visdom, port=server.port, use_incoming_socket=False))
    patch.setattr(torchvision.datasets, "CIFAR10", Digits)
    patch.setattr(plt, "show", plt.close)
    try:
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.Tensor(1, 3, 32, 32) is uninitialised memory: anything may happen
            for part in ("SETUP", "NETWORK", "TRAINING", "EVALUATION"):
                text = getattr(lecture_code, part)
                for large, small in SMALLER.items():
                    text = text.replace(large, small)
                exec(compile(text, part, "exec"), variables)
        yield variables, printed.getvalue()
    finally:
        patch.undo()
        server.stop()


def test_it_prints_what_the_lecture_prints(lecture):
    lines = lecture[1].splitlines()
    assert "30" in lines  # batches
    assert any(line.startswith("[1,    30] loss: 2.") for line in lines)
    assert "Finished Training" in lines
    assert any(line.startswith("GroundTruth: ") for line in lines)
    assert any(line.startswith("Predicted: ") for line in lines)
    assert lines[-1].startswith("Accuracy of the network on the 10000 test images: ")


def test_its_loss_window_has_the_point(lecture):
    variables, _ = lecture
    window = json.loads(variables["vis"].get_window_data(variables["loss_plt"]))
    assert window["title"] == "loss_tracker"
    (trace,) = window["content"]["data"]
    assert trace["x"] == [0, 29]  # the made-up first point (0, 0), then the thirtieth batch
    assert trace["y"][0] == 0
    assert 2 < trace["y"][1] < 3


def test_its_network_is_ours_with_the_head_sized_to_the_input(lecture):
    theirs = lecture[0]["vgg16"]
    ours = VGG(make_layers(cfg["cifar10"]), num_classes=10, input_size=32)
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(ours.eval()(images), theirs.eval()(images))


def test_only_what_is_marked_is_mended():
    marked = [line for part in vars(lecture_code).values() if isinstance(part, str) for line in part.splitlines()]
    marked = [line for line in marked if "# MENDED" in line]
    assert marked == 2 * ["images, labels = next(dataiter)  # MENDED: dataiter.next()"]
