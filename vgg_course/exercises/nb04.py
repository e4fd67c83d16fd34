"""The judges of notebook 04."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from vgg_course.data import Images
from vgg_course.evaluation import accuracy, predict
from vgg_course.exercises import NUMBER, Wrong, attempt, choice, compare, exercise, plain


@exercise("4.1", "two numbers from 0 to 1 (all images, cats)", tuple, list)
def always_cat(answer: Any) -> str:
    labels = torch.arange(100) % 10
    said_cat = torch.full((100,), 3)
    right = ((said_cat == labels).float().mean(), (said_cat == labels)[labels == 3].float().mean())
    hints = {
        (right[1], right[0]): "The other way round: first all images, then the cats alone.",
        (0.1, 0.1): "Take the cats alone: how many of them does it call a cat?",
        (10, 100): "Give parts of 1, not per cent.",
    }
    compare(answer, right, hints, "CIFAR-10 has as many images of each class. How many are cats?", near=1e-3)
    return "One class in ten is always right, all others never."


@exercise("4.2", "a number from 0 to 1", *NUMBER)
def top_three(answer: Any, logits: torch.Tensor, labels: torch.Tensor) -> str:
    hit = logits.topk(3, dim=1).indices == labels[:, None]
    right = hit.any(1).float().mean().item()
    hints = {
        accuracy(logits, labels): "That is the ordinary accuracy: the largest alone.",
        hit.float().mean().item(): "That is the mean over all three columns, of which one at most is a hit: any(1).",
        1 - right: "That is how often it is not among them.",
        100 * right: "Give a part of 1, not per cent.",
        hit.sum().item(): "That is a number of images. Divide by how many there are.",
    }
    compare(answer, right, hints, "logits.topk(3, dim=1).indices has the shape (N, 3). Is the label in the row?", 1e-3)
    return f"{right:.1%}, against {accuracy(logits, labels):.1%} for the largest alone."


@exercise("4.3", "two numbers from 0 to 1 (right answers, wrong ones)", tuple, list)
def sure_for_good_reason(answer: Any, logits: torch.Tensor, labels: torch.Tensor) -> str:
    def means(values: torch.Tensor) -> tuple[float, float]:
        return values[good].mean().item(), values[~good].mean().item()

    good = logits.argmax(1) == labels
    confidence = logits.softmax(1).max(1).values
    right = means(confidence)
    hints = {
        right[::-1]: "The other way round: first the right answers.",
        means(logits.max(1).values): "These are logits. A confidence is a probability: softmax first.",
        means(logits.softmax(0).max(1).values): "softmax(1) goes over the classes of an image; yours over the images.",
        (100 * right[0], 100 * right[1]): "Give parts of 1, not per cent.",
    }
    compare(answer, right, hints, "confidence, predicted = logits.softmax(1).max(1); then the mean of two parts.", 1e-3)
    return f"{right[0]:.0%} against {right[1]:.0%}: it is less sure where it is wrong."


@exercise("4.4", "a tensor of logits, a row for each image", torch.Tensor)
def mirrored(answer: Any, model: nn.Module, split: Images) -> str:
    plain, flipped, upside_down = (
        predict(model, replace(split, images=images))
        for images in (split.images, split.images.flip(3), split.images.flip(2))
    )
    if answer.shape != plain.shape:
        raise Wrong(f"logits of these images have the shape {tuple(plain.shape)}, not {tuple(answer.shape)}.")
    hints = [
        (plain, "These are the logits without mirrored images."),
        (flipped, "These are the logits of the mirrored images alone."),
        (plain + flipped, "That is the sum. A mean is half of it."),
        ((plain + upside_down) / 2, "flip(2) turns the images upside down; the columns are dimension 3."),
        ((plain.softmax(1) + flipped.softmax(1)) / 2, "These are probabilities. Take the mean of the logits."),
    ]
    if not torch.allclose(answer.float().cpu(), right := (plain + flipped) / 2, atol=1e-2):
        near = [hint for mistake, hint in hints if torch.allclose(answer.float().cpu(), mistake, atol=1e-2)]
        raise Wrong(near[0] if near else "predict(model, ...) twice, the second time with images.flip(3); add, halve.")
    before, after = accuracy(plain, split.labels), accuracy(right, split.labels)
    verdict = "It helps" if after > before else "It does harm" if after < before else "It changes nothing"
    return f"{verdict}: {before:.1%} with one view, {after:.1%} with both."


@exercise("4.5", "a number from 0 to 1", *NUMBER)
def ece_by_hand(answer: Any) -> str:
    confidence, good = torch.tensor([0.9, 0.9, 0.9, 0.6, 0.6]).double(), torch.tensor([1, 1, 0, 1, 1]).double()
    gaps = torch.stack([(good - confidence)[part].mean() for part in (confidence > 0.75, confidence <= 0.75)])
    share = torch.tensor([3, 2]).double() / 5
    right = (share * gaps.abs()).sum().item()
    hints = {
        gaps.abs().mean().item(): "Both gaps count alike in yours. Weigh each by the images of its bin.",
        (share * gaps)
        .sum()
        .item(): "A gap to one side and a gap to the other must not cancel: take each without sign.",
        gaps.abs().sum().item(): "That is the sum of both gaps. Weigh each by its part of the images.",
        gaps.abs().max().item(): "That is the larger gap. The ECE is a mean over all images.",
        100 * right: "Give a part of 1, not per cent.",
    }
    compare(answer, right, hints, "What are confidence and accuracy of each bin? Then weigh the two gaps.", near=0.01)
    return "Gaps of 0.23 and 0.40, weighed with three and two images of five."


@exercise("4.6", "a number of images", *NUMBER)
def images_needed(answer: Any) -> str:
    p, half = 0.931, 0.001
    right = 1.96**2 * p * (1 - p) / half**2
    now = 1.96 * math.sqrt(p * (1 - p) / 10_000)
    hints = {
        right / 1.96**2: "That is for one standard deviation. The interval has 1.96 of them on each side.",
        4 * right: "That makes the whole interval 0.1 points wide. It may be 0.1 to each side.",
        right / 1e4: "0.1 percentage points are 0.001.",
        10_000 * now / half: "The width falls with the root of n: for half the width, four times the images.",
        now: "That is the half width for 10,000 images. The question is for n.",
    }
    compare(answer, right, hints, "Solve the formula for n, with half width 0.001.", near=0.01)
    return f"About {round(right, -3):,.0f}. With 10,000 images, the half width is {100 * now:.1f} points."


@exercise("4.7", "a letter in quotes", str)
def forgotten(answer: Any) -> str:
    hints = {
        "c05702": "inference_mode() saves memory and time. It changes no number.",
        "4492e7": "There is no dropout here. With it, each run would give other numbers.",
        "54a87c": "A temperature changes how sure it is, but never which logit is the largest.",
    }
    choice("4.7", answer, "4106c3", hints)
    return "In train() an answer depends on the company: alone, an image is its own mean."


@exercise("4.8", "a list of positions and some words", tuple, list)
def common(answer: Any, logits: torch.Tensor, labels: torch.Tensor) -> str:
    if len(answer) != 2 or not isinstance(answer[1], str):
        raise Wrong("give two things: ([positions], 'what they have in common').")
    places = answer[0].tolist() if isinstance(answer[0], torch.Tensor | np.ndarray) else answer[0]
    places = [plain(place) for place in places] if isinstance(places, list | tuple) else places
    if not isinstance(places, list | tuple) or not places or not all(type(i) is int for i in places):
        raise Wrong("the positions are a list of whole numbers, such as [24, 58].")
    if len(set(places)) < len(places) or not all(0 <= i < len(labels) for i in places):
        raise Wrong(f"each position counts once and goes from 0 to {len(labels) - 1}.")
    true, guess = labels[places], logits[places].argmax(1)
    if (good := true == guess).any():
        raise Wrong(f"image {places[int(good.nonzero()[0])]} is no mistake: take those that were taken for another.")
    if len({*true.tolist()}) > 1 or len({*guess.tolist()}) > 1:
        raise Wrong("your images come from more than one pair. Take one true class and one predicted class.")
    if len(answer[1].split()) < 3:
        raise Wrong("say in three words or more what they have in common.")
    whole = int(((labels == true[0]) & (logits.argmax(1) == guess[0])).sum())
    return f"You chose {len(places)} of the {whole} mistakes of this pair. Is that trait rarer in right answers?"


@exercise("4.9", "a function (ask, pixels, labels, epsilon) -> pixels")
def attack(answer: Any, ask: Callable[[torch.Tensor], torch.Tensor], pixels: torch.Tensor, labels: torch.Tensor) -> str:
    if not callable(answer):
        raise Wrong("an answer here is a function: def answer(ask, pixels, labels, epsilon): ...")
    epsilon = 2 / 255
    yours = attempt(answer, ask, pixels.clone(), labels, epsilon)
    if not isinstance(yours, torch.Tensor) or yours.shape != pixels.shape:
        raise Wrong(f"the function returns pixels of the shape {tuple(pixels.shape)}.")
    yours = yours.detach().to(pixels)  # in their type of number, which the network takes
    if not (yours - pixels).abs().max() <= epsilon + 1e-5:
        raise Wrong("a pixel moved by more than ε: clamp to pixels - epsilon and pixels + epsilon.")
    if not (yours.min() >= 0 and yours.max() <= 1):
        raise Wrong("some pixels are below 0 or above 1: no picture has such. clamp(0, 1)")
    start = pixels.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(functional.cross_entropy(ask(start), labels), start)
    with torch.no_grad():
        fgsm = (pixels + epsilon * gradient.sign()).clamp(0, 1)
        clean, one_step, left = (accuracy(ask(x), labels) for x in (pixels, fgsm, yours))
    if left > one_step:
        raise Wrong(f"{left:.0%} are still right after yours, after FGSM {one_step:.0%}. Take several smaller steps.")
    return f"Right before: {clean:.0%}, after FGSM {one_step:.0%}, after yours {left:.0%}."
