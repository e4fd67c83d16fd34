"""What notebook 04 writes in view about images is right: Grad-CAM, occlusion, ECE, Wilson, FGSM, out of its cells."""

import ast
import json
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

from vgg_course.vgg import VGG, make_layers

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "04_evaluate.ipynb"
DEFINITIONS = ("grad_cam", "occlusion", "span", "calibration", "wilson", "fgsm")


@pytest.fixture(scope="module")
def taught() -> SimpleNamespace:
    """The functions that the cells with these definitions make, and nothing else of the notebook."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    scope = {"torch": torch, "functional": functional, "product": product, "__name__": "notebook_04"}
    for name in DEFINITIONS:
        (source,) = [text for text in sources if f"def {name}(" in text]
        (function,) = [node for node in ast.parse(source).body if getattr(node, "name", None) == name]
        definition = ast.get_source_segment(source, function)  # without what else the cell does
        exec(compile(definition, f"{NOTEBOOK.name}: {name}", "exec"), scope)
    return SimpleNamespace(**scope)


@pytest.fixture(scope="module", params=[True, "max"], ids=["mean", "max"])
def model(request) -> VGG:
    """A tiny VGG in float64, with batch norm that has seen something."""
    torch.manual_seed(0)
    layers = make_layers([4, "M", 6, 5], batch_norm=True, pool_first=True)
    model = VGG(layers, num_classes=3, global_pool=request.param, hidden=()).double()
    nn.init.normal_(model.classifier[-1].weight)
    for _ in range(20):
        model.train()(torch.randn(8, 3, 12, 12, dtype=torch.float64))
    return model.eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(3, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


CLASSES = torch.tensor([2, 0, 1])


def after_relu(model: VGG) -> list[int]:
    return [i + 1 for i, layer in enumerate(model.features) if isinstance(layer, nn.ReLU)]


def test_grad_cam_is_short():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    (source,) = ["".join(c["source"]) for c in cells if "".join(c["source"]).startswith("def grad_cam(")]
    assert len(source.splitlines()) <= 20


def test_grad_cam_against_finite_differences(taught, model, images):
    """No autograd on this side: move every number of every map a little, and see what the logit does."""
    step = 1e-6
    for layer in after_relu(model)[1:]:
        ours = taught.grad_cam(model, images, CLASSES, layer)
        assert not ours.requires_grad and (ours >= 0).all() and ours.max() > 0
        for image, label, found in zip(images, CLASSES, ours, strict=True):
            with torch.no_grad():
                maps = model.features[:layer](image[None])
                bumps = step * torch.eye(maps.numel(), dtype=torch.float64).view(-1, *maps.shape[1:])
                up, down = (
                    model.classifier(model.avgpool(model.features[layer:](moved)).flatten(1))[:, label]
                    for moved in (maps + bumps, maps - bumps)
                )
                alpha = ((up - down) / (2 * step)).view(maps.shape[1:]).mean((1, 2))  # (C,)
                wanted = torch.einsum("c,chw->hw", alpha, maps[0]).clamp(min=0)
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_grad_cam_against_hooks(taught, model, images):
    """The usual way: let the whole network run, and catch maps and gradients as they pass the layer."""
    for layer in after_relu(model):
        caught = {}

        def keep(module, inputs, output, caught=caught):
            caught["maps"] = output.clone()  # what follows is not in place, but better safe
            output.register_hook(lambda gradient: caught.update(gradient=gradient))

        handle = model.features[layer - 1].register_forward_hook(keep)
        model(images.clone().requires_grad_())[torch.arange(3), CLASSES].sum().backward()
        handle.remove()
        alpha = caught["gradient"].mean((2, 3), keepdim=True)
        wanted = functional.relu((alpha * caught["maps"]).sum(1)).detach()
        torch.testing.assert_close(taught.grad_cam(model, images, CLASSES, layer), wanted)


def test_grad_cam_changes_nothing(taught, model, images):
    model.zero_grad()
    before, first = {k: v.clone() for k, v in model.state_dict().items()}, images.clone()
    taught.grad_cam(model, images, CLASSES, after_relu(model)[-1])
    assert torch.equal(images, first) and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_occlusion_one_place_at_a_time(taught, model, images):
    drop = taught.occlusion(model, images[0], 2, size=4, step=4)
    assert drop.shape == (3, 3)
    for row, column in product(range(3), range(3)):
        covered = images[:1].clone()
        covered[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 0
        with torch.no_grad():
            wanted = model(images[:1])[0, 2] - model(covered)[0, 2]
        torch.testing.assert_close(drop[row, column], wanted)
    assert taught.occlusion(model, images[0], 2, size=5, step=3).shape == (3, 3)


@pytest.mark.parametrize("patch, padding", [(3, 1), (3, 0), (2, 0)])  # as posted; as in "digits" and in "best"
def test_the_cells_lie_where_their_receptive_fields_do(taught, patch, padding):
    """In the middle of the pixels that reach a cell, found with gradients: no pool hides one that takes the mean."""

    def layers(pool: type[nn.Module]) -> nn.Sequential:
        convolutions = [nn.Conv2d(1, 1, patch, padding=padding), *(nn.Conv2d(1, 1, 3, padding=1) for _ in range(2))]
        for convolution in convolutions:
            nn.init.ones_(convolution.weight)
        return nn.Sequential(*convolutions[:2], nn.ReLU(), pool(2, 2), convolutions[2], nn.ReLU(), pool(2, 2))

    pixels = torch.ones(1, 1, 40, 40, requires_grad=True)
    maps = layers(nn.AvgPool2d)(pixels)
    begins, ends = taught.span(layers(nn.MaxPool2d), maps.shape[-1])
    apart = (ends - begins) / maps.shape[-1]
    assert apart == 4
    for cell in (3, 5):
        (gradient,) = torch.autograd.grad(maps[0, 0, cell, cell], pixels, retain_graph=True)
        reach = gradient[0, 0].sum(0).nonzero().flatten()
        assert (reach[0] + reach[-1]) / 2 == begins + (cell + 0.5) * apart


def test_calibration_counts_by_hand(taught):
    """Exercise 4.5's five images, and a bin boundary: 15 bins, so 0.6 lies in bin 8 (0.533 to 0.6)."""
    confidence = torch.tensor([0.9, 0.9, 0.9, 0.59, 0.59])
    logits = torch.stack([confidence, 1 - confidence], 1).log()
    labels = torch.tensor([0, 0, 1, 0, 0])
    count, sure, good, ece = taught.calibration(logits, labels)
    assert count.nonzero().flatten().tolist() == [8, 13] and count.tolist()[8] == 2
    torch.testing.assert_close(sure[[8, 13]], torch.tensor([0.59, 0.9]))
    torch.testing.assert_close(good[[8, 13]], torch.tensor([1, 2 / 3]))
    assert ece == pytest.approx(3 / 5 * (0.9 - 2 / 3) + 2 / 5 * (1 - 0.59), abs=1e-5)


def test_calibration_against_a_loop(taught):
    generator = torch.Generator().manual_seed(0)
    logits, labels = 3 * torch.randn(2000, 10, generator=generator), torch.randint(10, (2000,), generator=generator)
    confidence, predicted = logits.softmax(1).max(1)
    wanted = 0.0
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        if inside.any():
            gap = (predicted[inside] == labels[inside]).float().mean() - confidence[inside].mean()
            wanted += inside.float().mean().item() * gap.abs().item()
    assert taught.calibration(logits, labels)[3] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("right, count", [(9310, 10_000), (5, 10), (20, 20), (0, 7)])
def test_wilson_solves_its_equation(taught, right, count):
    """Its ends are the p from which the sample is exactly 1.96 standard deviations away."""
    for end in taught.wilson(right, count):
        assert -1e-12 <= end <= 1 + 1e-12
        assert abs(right / count - end) == pytest.approx(1.96 * (end * (1 - end) / count) ** 0.5, abs=1e-9)


def test_fgsm_takes_the_worst_corner(taught):
    """For a linear network no change within epsilon is worse than the sign of the gradient."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    taught.fgsm.__globals__["ask"] = network
    pixels, labels, epsilon = 0.2 + 0.6 * torch.rand(5, 3, 2, 2), torch.tensor([0, 1, 0, 1, 1]), 0.05
    attacked = taught.fgsm(pixels, labels, epsilon)
    torch.testing.assert_close((attacked - pixels).abs(), torch.full_like(pixels, epsilon))
    worst = functional.cross_entropy(network(attacked), labels, reduction="none")
    for _ in range(200):
        other = pixels + epsilon * torch.randn_like(pixels).sign()
        assert (functional.cross_entropy(network(other), labels, reduction="none") <= worst + 1e-6).all()
    assert taught.fgsm(pixels, labels, 5.0).min() >= 0 and taught.fgsm(pixels, labels, 5.0).max() <= 1
