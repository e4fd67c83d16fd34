"""Typical wrong answers to the exercises of notebook 05: ``(answer, a part of the hint)``."""

WRONG = {
    "5.1": [
        (2_097_152, "factor of nine"),
        (73_728, "number of weights"),
        (37_748_736, "counts once"),
        (5, "weights × pixels"),
    ],
    "5.2": [(4, "do the pixels"), (0.25, "do the channels"), (0.5, "quarter of the pixels"), (8, "and count")],
    "5.3": [
        ((600, 1200), "other limit"),
        ((500, 500), "doubled in bf16"),
        ((500, 600), "Half the bytes"),
        ((20, 50), "lower of two"),
    ],
    "5.4": [(232.762, "one copy"), (465.524, "own need not"), (349_143_036, "in bytes"), (300, "gradients.")],
    "5.5": [
        (5, "a function"),
        (lambda part, factor: 1 - part + part / factor, "time that is left"),
        (lambda part, factor: 1 - part + part * factor, "mean of speeds"),
        (lambda part, factor: part / 0, "ZeroDivisionError"),
        (lambda part, factor: "fast", "not a number"),
        (lambda part, factor: 10**400, "too large"),
        (lambda part, factor: factor, "you give 2, which is not it"),
    ],
    "5.6": [
        ((0.8, 200), "do not count"),
        ((80, 100), "from 0 to 1"),
        ((0.1, 100), "guessing"),
        ((10**400, 100), "too large"),
        ((0.8,), "two numbers"),
    ],
}
