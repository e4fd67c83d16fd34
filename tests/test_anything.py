"""Whatever there may come, made up by hypothesis: it is taken, or refused in one line, and nothing else happens."""

import hashlib
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from vgg_course import checkpoint
from vgg_course.curves import Curve
from vgg_course.data import load_dataset
from vgg_course.tracking import LossTracker
from vgg_course.vgg import make_layers

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=3) | st.just("M"),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=6,
)
QUICKLY = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICKLY
@given(st.lists(ANYTHING, max_size=5) | ANYTHING, st.none() | st.integers(-2, 4))
def test_make_layers_takes_it_or_says_why(entries, patch):
    try:
        layers = make_layers(entries, patch=patch)
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert sum(isinstance(layer, nn.Conv2d) for layer in layers) == sum(entry != "M" for entry in entries)


@QUICKLY
@given(st.binary(max_size=300), st.integers(0, 3))
def test_a_checkpoint_of_any_bytes_is_refused(content, kind):
    sealed = checkpoint.MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n" + content
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.pt"
        file.write_bytes((content, checkpoint.MAGIC + content, sealed, sealed[:-1])[kind])
        with pytest.raises(ValueError, match="the checkpoint"):
            checkpoint.read(file)
        assert [path.name for path in Path(folder).iterdir()] == ["a.pt"]


@QUICKLY
@given(
    st.dictionaries(
        st.sampled_from(["train", "test", "train/frog", "train/cat/0.png", "test/ship/a b.jpg", "x", "../out", "dog"]),
        st.binary(max_size=60),
        max_size=5,
    ),
    st.sampled_from(["cifar10", "cifar10-images", "cifar-10-batches-py"]),
)
def test_folders_of_anything_are_refused_in_one_line(files, name):
    with tempfile.TemporaryDirectory() as outer:
        root = Path(outer) / "inside" / "data"
        (root / name).mkdir(parents=True)
        for path, content in files.items():
            file = root / name / path
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            except OSError:  # a file where another one wants a folder
                continue
        before = sorted(Path(outer).rglob("*"))
        with pytest.raises((ValueError, OSError)) as error:
            load_dataset("cifar10", root, verbose=False)
        assert "\n" not in str(error.value)
        assert sorted(Path(outer).rglob("*")) == before


@QUICKLY
@given(
    st.lists(
        st.tuples(
            st.integers(-(10**9), 10**9),
            st.floats() | st.integers() | st.booleans() | st.floats().map(torch.tensor),
        ),
        max_size=60,
    ),
    st.text(max_size=20).filter(lambda name: name != "epoch"),  # the one name that wants whole numbers
)
def test_the_tracker_takes_every_number_and_every_name(capsys, points, name):
    tracker = LossTracker(name, mode="log")
    for step, value in points:
        tracker(step, {"loss": value, name: value})
    tracker.close()
    LossTracker._live.clear()
    assert "has stopped" not in capsys.readouterr().out  # the thread that draws is well


@QUICKLY
@given(st.lists(st.tuples(st.integers(-100, 100), st.floats()), min_size=1, max_size=80))
def test_a_curve_keeps_order_and_extremes(points):
    curve = Curve()
    for step, value in points:
        curve.add(step, value)
    steps, values = curve.points()
    last = dict(points)
    assert steps == sorted(set(steps)) == sorted(last)
    finite = [value for value in last.values() if np.isfinite(value)]
    assert [value for value in values if value is not None] == [last[s] for s in steps if np.isfinite(last[s])]
    assert len(finite) == len([value for value in values if value is not None])
