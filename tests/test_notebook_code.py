"""Cells of notebooks, run alone: 02 writes in view what the package has, ``make_layers`` and ``VGG``.

And 05 makes no step in bf16 on a processor that has to convert each number: one alone would take half a minute.
"""

import json
import re
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import vgg_course.vgg as vgg

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "02_vgg_from_cfg.ipynb"
DEFINITIONS = ("def make_layers(", "class VGG(", "def _initialize_weights(")
STANDARD_WIDTH = 512 * 7 * 7

networks = pytest.mark.parametrize("batch_norm", [False, True], ids=["plain", "batch_norm"])
configurations = pytest.mark.parametrize("name", list(vgg.cfg))


def sources_of(notebook: Path) -> list[str]:
    """The code cells of a notebook."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.fixture(scope="module")
def taught() -> SimpleNamespace:
    """The names that the cells with these definitions make, and nothing else of the notebook."""
    sources = sources_of(NOTEBOOK)
    scope = {"torch": torch, "nn": nn, "__name__": "notebook_02"}
    for start in DEFINITIONS:
        (source,) = [text for text in sources if text.startswith(start)]
        exec(compile(source, f"{NOTEBOOK.name}: {start}", "exec"), scope)
    return SimpleNamespace(**scope)


def on_meta(module, name: str, batch_norm: bool) -> nn.Module:
    """The network without memory: names and shapes only."""
    with torch.device("meta"):
        return module.VGG(module.make_layers(vgg.cfg[name], batch_norm=batch_norm), num_classes=10).eval()


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    """Random weights of the standard classifier for ten classes, drawn once."""
    generator, sizes = torch.Generator().manual_seed(0), [STANDARD_WIDTH, 4096, 4096, 10]
    drawn = {}
    for number, (inputs, outputs) in zip((0, 3, 6), pairwise(sizes), strict=True):
        drawn[f"classifier.{number}.weight"] = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
        drawn[f"classifier.{number}.bias"] = torch.randn(outputs, generator=generator)
    return drawn


@networks
@configurations
def test_the_same_keys_and_shapes(taught, name, batch_norm):
    ours, theirs = (on_meta(module, name, batch_norm).state_dict() for module in (taught, vgg))
    assert [(key, value.shape) for key, value in ours.items()] == [(key, value.shape) for key, value in theirs.items()]


@networks
@configurations
def test_the_same_print_out(taught, name, batch_norm):
    entries = vgg.cfg[name]
    with torch.device("meta"):
        assert str(taught.make_layers(entries, batch_norm)) == str(vgg.make_layers(entries, batch_norm))
    assert str(on_meta(taught, name, batch_norm)) == str(on_meta(vgg, name, batch_norm))


@networks
@configurations
def test_the_same_logits_with_the_same_weights(taught, weights, name, batch_norm):
    torch.manual_seed(1)
    features = vgg.make_layers(vgg.cfg[name], batch_norm=batch_norm).state_dict()
    state = {f"features.{key}": value for key, value in features.items()} | weights
    x = torch.randn(2, 3, 32, 32)
    channels = [entry for entry in vgg.cfg[name] if entry != "M"][-1]
    results = []
    for module in (taught, vgg):
        network = on_meta(module, name, batch_norm)
        network.load_state_dict(state, assign=True)
        with torch.inference_mode():
            if channels * 7 * 7 == STANDARD_WIDTH:
                results.append(network(x))
            else:  # its features don't fit the standard classifier: both refuse, each in its own words
                with pytest.raises((RuntimeError, ValueError), match=str(channels * 7 * 7)):
                    network(x)
                results.append(network.avgpool(network.features(x)))
    assert torch.equal(*results)
    assert results[0].isfinite().all() and results[0].std() > 0


@networks
@configurations
def test_the_same_seed_gives_the_same_first_weights(taught, name, batch_norm):
    """The three rules of ``_initialize_weights``, with a small classifier in place of the one with 120 million."""
    states = []
    for module in (taught, vgg):
        torch.manual_seed(777)
        with torch.device("meta"):
            network = module.VGG(nn.Sequential(), num_classes=10, init_weights=False)
        network.features = module.make_layers(vgg.cfg[name], batch_norm=batch_norm)
        network.classifier = nn.Sequential(nn.Linear(8, 8), nn.ReLU(True), nn.Dropout(), nn.Linear(8, 10))
        network._initialize_weights()
        states.append(network.state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_the_same_seed_gives_the_same_logits(taught):
    """Once in full: ``init_weights`` is on by default and draws in the same order, up to the last layer."""
    results = []
    for module in (taught, vgg):
        torch.manual_seed(777)
        network = module.VGG(module.make_layers(vgg.cfg["A"], batch_norm=True), num_classes=10).eval()
        torch.manual_seed(0)
        with torch.inference_mode():
            results.append(network(torch.randn(2, 3, 64, 64)))
        del network
    assert torch.equal(*results)


@pytest.mark.parametrize("wanted", [True, False])
def test_init_weights_is_obeyed(taught, monkeypatch, wanted):
    calls = []
    monkeypatch.setattr(taught.VGG, "_initialize_weights", lambda self: calls.append(self))
    with torch.device("meta"):
        taught.VGG(nn.Sequential(), num_classes=2, init_weights=wanted)
    assert len(calls) == wanted


def test_the_picture_of_the_batch_shows_the_true_shapes():
    with torch.device("meta"):
        x, model = torch.zeros(4, 3, 224, 224), vgg.VGG(vgg.make_layers(vgg.cfg["D"])).eval()
        shapes = [x.shape]
        for layer in [*model.features, nn.Flatten(), *model.classifier]:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d | nn.Flatten | nn.Linear):
                shapes.append(x.shape)
    picture = (NOTEBOOK.parent / "figures" / "batch_flow.svg").read_text(encoding="utf-8")
    shown = " ".join(re.findall(r">([^<]+)</text>", picture))
    for dimension in range(4):
        assert " ".join(f"{shape[dimension]:,}" for shape in shapes if len(shape) > dimension) in shown


@pytest.mark.parametrize(("speed", "measured"), [(0.1, 2), (2.0, 4)], ids=["converts", "made for bf16"])
def test_05_leaves_bf16_out_where_it_would_take_minutes(speed, measured):
    (source,) = [text for text in sources_of(NOTEBOOK.with_name("05_make_it_fast.ipynb")) if "contestants |=" in text]
    scope = {
        "RUNS": {"lecture": SimpleNamespace(build=nn.Identity)},
        "images": torch.zeros(1, 3, 2, 2),
        "peak": {"fp32": 1.0, "bf16": speed},
        "race": lambda contestants, rounds: dict.fromkeys(contestants, 1.0),
        "torch": torch,
    }
    exec(source, scope)
    assert len(scope["took"]) == measured
