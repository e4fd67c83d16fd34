"""Typical wrong answers to the exercises of notebook 06: ``(answer, a part of the hint)``."""

import torch

LABELS = {"labels": torch.arange(120) % 10, "bar": 0.5}
RIGHT = torch.nn.functional.one_hot(LABELS["labels"], 10).float()

WRONG = {
    "6.1": [((32, 8), "three splits"), ((32, 4, 4), "a tenth"), ((8, 8, 24), "order"), ((30, 5, 5), "a fifth of all")],
    "6.2": [(6144, "one number more"), (8192, "not for each feature"), (2048, "one class"), (7, "frozen")],
    "6.3": [("a", "too small"), ("c", "loss would not fall"), ("d", "none of the choices")],
    "6.4": [
        (lambda w, h: (0, 0, min(w, h), min(w, h)), "corner"),
        (lambda w, h: ((w - min(w, h)) // 2, (h - min(w, h)) // 2, min(w, h), min(w, h)), "bottom edge"),
        (lambda w: w, "stops for"),
        (lambda w, h: None, "a side of 30"),
        (5, "a function"),
    ],
    "6.5": [(0.0064, "square root"), (8, "percent"), (0.4, "one image"), (0.5, "p is the part")],
    "6.6": [
        (torch.zeros(120, 10), "the best cut reached", LABELS),
        (torch.zeros(10), "a row for each", LABELS),
        (torch.full((120, 10), float("nan")), "not finite", LABELS),
        (RIGHT, "seen the test images", LABELS),
    ],
}
