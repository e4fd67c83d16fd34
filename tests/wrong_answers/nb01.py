"""Typical wrong answers to the exercises of notebook 01: ``(answer, a part of the hint)``."""

import torch

WRONG = {
    "1.1": [((8, 16, 64, 64), "stride 1"), ((16, 32, 32), "images of the batch"), ("32", "tuple of four numbers")],
    "1.2": [(294_912, "one number more"), (1153, "one filter"), (7, "has one filter")],
    "1.4": [
        (torch.ones(1, 1, 2, 2), "4 times"),
        (torch.ones(2, 2), "shape"),
        (torch.eye(2).view(1, 1, 2, 2), "differ"),
    ],
    "1.5": [(2, "ReLU's factor"), (0.25, "undo it"), (3, "should be 1")],
}
