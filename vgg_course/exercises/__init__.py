"""``check("1.2", answer)`` says whether an answer to an exercise is right, and if not, what to think about.

The files beside this one judge the answers, one file for each notebook. They work the right answer out instead of
writing it down, or keep only a fingerprint of it, so that nobody reads it by accident.
"""

import hashlib
import importlib
import importlib.util
import numbers
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch


class Wrong(Exception):
    """A judge raises this for a wrong answer; the words are the hint that the reader sees."""


class Exercise(NamedTuple):
    """How an exercise is judged: ``judge(answer, **given)`` returns why the answer is right, or raises ``Wrong``."""

    judge: Callable[..., str]
    wanted: str  # what an answer is, in words: "a whole number"
    kinds: tuple[type, ...]


NUMBER = (int, float)
EXERCISES: dict[str, Exercise] = {}


def check(name: str, answer: object = None, **given: object) -> None:
    """Print whether ``answer`` to the exercise ``name`` is right and why, or a hint, or that there is no answer yet.

    ``given`` is what the judge needs from the notebook, such as the network that the question is about. Nothing is
    raised for a wrong answer, so that a notebook runs to its end. Raises ``ValueError`` for an unknown exercise.
    """
    exercise = find(name)
    if answer is None or answer is ...:
        print(f"{name} is not answered yet: give {exercise.wanted} and run this cell again.")
        return
    try:
        answer = plain(answer)
        if not isinstance(answer, exercise.kinds) or (isinstance(answer, bool) and bool not in exercise.kinds):
            raise Wrong(f"an answer here is {exercise.wanted}, but yours is {_shown(answer)}.")
        print(f"{name} ✓ Right. {exercise.judge(answer, **given)}")
    except Wrong as hint:
        print(f"{name} ✗ Not yet. {hint}")
    except OverflowError:  # a whole number of hundreds of digits, which no float can hold
        print(f"{name} ✗ Not yet. A number in your answer is far too large.")


def find(name: str) -> Exercise:
    """The exercise with this name. Raises ``ValueError`` with the names there are."""
    number = str(name).partition(".")[0]
    if number.isdecimal():
        module = f"{__name__}.nb{int(number):02}"
        if importlib.util.find_spec(module):
            importlib.import_module(module)
    if not isinstance(name, str):
        raise ValueError(f'the name of an exercise is a text: check("{name}", ...)')
    if name not in EXERCISES:
        known = ", ".join(key for key in EXERCISES if key.startswith(f"{number}.")) or "1.1, for instance"
        raise ValueError(f"there is no exercise {name!r}; there is {known}")
    return EXERCISES[name]


def exercise(name: str, wanted: str, *kinds: Any) -> Callable[[Callable[..., str]], Callable[..., str]]:
    """Make the function below it the judge of exercise ``name``; answers are of one of these ``kinds``."""

    def register(judge: Callable[..., str]) -> Callable[..., str]:
        EXERCISES[name] = Exercise(judge, wanted, kinds or (object,))
        return judge

    return register


def plain(answer: Any) -> Any:
    """A number is a number: from a tensor or an array without dimensions, and 3.0 where 3 is meant."""
    if isinstance(answer, torch.Tensor | np.ndarray | np.generic) and np.ndim(answer) == 0:
        answer = answer.item()
    return int(answer) if isinstance(answer, float) and answer.is_integer() else answer


def compare(
    answer: object, right: object, hints: Mapping[Any, str] | None = None, otherwise: str = "", near: float = 0.0
) -> None:
    """Raise ``Wrong`` unless ``answer`` is ``right``, or within ``near`` (a part of ``right``) of it.

    ``hints`` maps typical wrong answers to what to think about; ``otherwise`` is the hint for all others.
    """

    def close(a: Any, b: Any) -> bool:
        a, b = plain(a), plain(b)
        both_numbers = isinstance(a, numbers.Number) and isinstance(b, numbers.Number)
        try:
            return bool(abs(a - b) <= near * abs(b) if both_numbers else a == b)
        except (RuntimeError, ValueError, TypeError, OverflowError):  # such as a tensor in the place of a number
            return False

    def equal(other: object) -> bool:
        if isinstance(answer, list | tuple) and isinstance(other, list | tuple):
            return len(answer) == len(other) and all(map(close, answer, other))
        return close(answer, other)

    if not equal(right):
        hint = next((words for mistake, words in (hints or {}).items() if equal(mistake)), otherwise)
        raise Wrong(hint or f"{_shown(answer)} is not it. Read the section again, and try a smaller case by hand.")


def choice(name: str, answer: str, right: str, hints: Mapping[str, str]) -> None:
    """Raise ``Wrong`` unless ``answer``, a letter, has the fingerprint ``right``; ``hints`` are by fingerprint too."""
    if (mark := fingerprint(name, answer)) != right:
        raise Wrong(hints.get(mark, f"{answer!r} is none of the choices: give one of the letters, in quotes."))


def fingerprint(name: str, answer: str) -> str:
    """Six characters that follow from an answer, but not the answer from them."""
    return hashlib.sha256(f"{name} {answer.strip().lower()}".encode()).hexdigest()[:6]


def attempt(function: Callable[..., object], *arguments: object) -> Any:
    """Call the reader's function. Raises ``Wrong`` with the cause if it fails, so that the cell does not."""
    try:
        return function(*arguments)
    except Exception as error:
        shown = ", ".join(map(_shown, arguments))
        raise Wrong(f"your function stops for ({shown}) with {type(error).__name__}: {error}") from None


def _shown(value: object) -> str:
    if isinstance(value, torch.Tensor | np.ndarray):
        return f"a {type(value).__name__} of shape {tuple(value.shape)}"
    words = " ".join(repr(value).split())
    return words if len(words) <= 60 else f"{words[:57]}..."
