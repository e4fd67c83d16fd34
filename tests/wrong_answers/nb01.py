"""Typical wrong answers to the exercises of notebook 01: ``(answer, a part of the hint)``."""

import torch
from torch.nn import functional


def without_bias(image, weight, bias, padding):
    return functional.conv2d(image, weight, padding=padding)


def without_padding(image, weight, bias, padding):
    return functional.conv2d(image, weight, bias)


def turned(image, weight, bias, padding):
    return functional.conv2d(image, weight.flip(2, 3), bias, padding=padding)


def first_channel(image, weight, bias, padding):
    return functional.conv2d(image[:1], weight[:, :1], bias, padding=padding)


def wrong_weights(image, weight, bias, padding):
    return functional.conv2d(image, 2 * weight, bias, padding=padding)


def without_return(image, weight, bias, padding):
    functional.conv2d(image, weight, bias, padding=padding)


WRONG = {
    "1.1": [((8, 16, 64, 64), "stride 1"), ((16, 32, 32), "images of the batch"), ("32", "tuple of four numbers")],
    "1.2": [(294_912, "one number more"), (1153, "one filter"), (7, "has one filter")],
    "1.3": [
        (9, "left out the pools"),
        (11, "twice as far apart"),
        (13, "adds to the side as well"),
        (14, "last pool"),
        (17, "Begin with 1"),
    ],
    "1.4": [
        (torch.ones(1, 1, 2, 2), "4 times"),
        (torch.ones(2, 2), "shape"),
        (torch.eye(2).view(1, 1, 2, 2), "differ"),
    ],
    "1.5": [(2, "ReLU's factor"), (0.25, "undo it"), (3, "should be 1")],
    "1.6": [
        ((5, -4, -3, 4), "What does ReLU do"),
        ((8, 0, 0, 7), "The bias is missing"),
        ([[8, -1], [0, 7]], "Bias and ReLU"),
        ((3, 0, 0, 4), "turned the filter round"),
        ((4, 0, 0, 3), "swapped rows and columns"),
        (torch.ones(2, 2), "one window after the other"),
        (5, "tuple of four numbers"),
    ],
    "1.7": [
        ("a", "That line is the cause"),
        ("C", "does not change a number"),
        ("d", "Nothing is random"),
        ("model.eval()", "none of the choices"),
    ],
    "1.8": [
        (without_bias, "left out the bias"),
        (without_padding, "instead of (2, 6, 7)"),
        (turned, "turned the filter round"),
        (first_channel, "only the first channel"),
        (wrong_weights, "numbers differ"),
        (without_return, "Does it end in return?"),
        (lambda image, weight: image, "your function stops"),
    ],
    "1.9": [
        (torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]), "as strongly"),
        (torch.tensor([[0.0, 1, 2], [1, 1, 1], [-2, -1, 0]]), "answers to a flat area"),
        (torch.tensor([[2.0, -1, -1], [-1, 2, -1], [-1, -1, 2]]), "1.5 times"),
        (torch.zeros(3, 3), "not all 0"),
        (torch.ones(3), "shape (3, 3)"),
    ],
}
