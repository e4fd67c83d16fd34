"""A small training, and what has to be true of it whatever the plot does."""

import time

import torch
from servers import Visdom, eventually
from torch import nn

from vgg_course.data import Dataset, Images
from vgg_course.tracking import LossTracker
from vgg_course.training import Recipe, fit

EPOCHS, STEPS = 3, 20  # of 60 steps in all


def train(tracker=None, at=None, pause: float = 0.0):
    """Train a small network; ``at`` does things before a step. Returns the history and the weights."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (STEPS * 16, 3, 8, 8), dtype=torch.uint8, generator=generator)
    labels = pixels.float().mean((1, 2, 3)).gt(127.5).long()
    images = Images(pixels, labels, ("dark", "bright"), "random", (0.5,) * 3, (0.29,) * 3)
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 2))

    def track(step, values):
        if at and "epoch" not in values and step in at:
            at[step]()
        time.sleep(pause)
        if tracker:
            tracker(step, values)

    recipe = Recipe(epochs=EPOCHS, batch_size=16, lr=0.05, precision="fp32", device="cpu", channels_last=False)
    history = fit(model, Dataset(images, images, images, "random"), recipe, track, progress=False)
    return history, model.state_dict()


def check_same(run, alone) -> None:
    (history, weights), (wanted, wanted_weights) = run, alone
    assert len(history.batch_loss) == EPOCHS * STEPS
    for name in ("batch_loss", "train_loss", "validation_loss", "validation_accuracy"):
        assert getattr(history, name) == getattr(wanted, name)
    assert all(torch.equal(weights[name], wanted_weights[name]) for name in wanted_weights)


def check_drawn(server: Visdom, tracker: LossTracker, history) -> None:
    """The page shows every point of the run once, in order."""
    env, token = tracker._page.env, tracker._token
    ends, epochs = [STEPS * epoch - 1 for epoch in range(1, EPOCHS + 1)], list(range(1, EPOCHS + 1))
    wanted = {
        "loss": {
            "training, each step": (list(range(EPOCHS * STEPS)), history.batch_loss),
            "training, mean of the epoch": (ends, history.train_loss),
            "validation": (ends, history.validation_loss),
        },
        "accuracy": {"validation": (epochs, history.validation_accuracy)},
        "learning rate": {"learning rate": (list(range(EPOCHS * STEPS)), history.batch_learning_rate)},
    }
    eventually(lambda: {window: server.lines(f"{window} {token}", env) for window in wanted} == wanted)
