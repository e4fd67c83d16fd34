"""Each lever against values worked out by hand, or against torch where torch has the same."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from vgg_course.data import Dataset, Images, load_dataset
from vgg_course.evaluation import predict
from vgg_course.speed import (
    Muon,
    augmented,
    orthogonal,
    patch_filters,
    smaller,
    start_as_identity,
    views,
    whiten,
)
from vgg_course.training import Recipe, fit
from vgg_course.vgg import VGG, make_layers

MUON = Recipe(epochs=1, batch_size=50, lr=0.2, optimizer="muon", other_lr=0.02, momentum=0.6, precision="fp32")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", verbose=False)


def split_of(images: torch.Tensor) -> Images:
    return Images(images, torch.zeros(len(images), dtype=torch.int64), ("a", "b"), "made up", (0.5,) * 3, (0.25,) * 3)


def network(cfg=(8, "M", 8, "M"), **options) -> VGG:
    torch.manual_seed(0)
    return VGG(make_layers(cfg, batch_norm=True, **options), num_classes=10, global_pool=True, hidden=())


class TestWhitening:
    @pytest.mark.parametrize(("count", "side", "parts"), [(200, 32, 1), (20, 224, 2)])
    def test_patches_have_unit_covariance_afterwards(self, count, side, parts, monkeypatch):
        """Smooth noise, as neighbouring pixels are alike in images: strongly correlated patches go in."""
        torch.manual_seed(0)
        images, seen, unfold = torch.randn(count, 3, side + 2, side + 2), [], functional.unfold
        monkeypatch.setattr(functional, "unfold", lambda *part: seen.append(len(part[0])) or unfold(*part))
        images = functional.avg_pool2d(images, 3, stride=1)
        outputs = functional.conv2d(images, patch_filters(images, 2, floor=0)).transpose(0, 1).flatten(1)  # (12, P)
        assert outputs.shape == (12, count * (side - 1) ** 2) and len(seen) == parts and sum(seen) == count
        assert torch.allclose(outputs @ outputs.T / outputs.shape[1], torch.eye(12), atol=1e-4)

    def test_the_strongest_direction_comes_first(self):
        """Grey images whose 2x2 patches are constant: one direction holds all there is, all weights alike."""
        torch.manual_seed(0)
        images = torch.randn(50, 1, 1, 1).expand(50, 3, 6, 6)
        first = patch_filters(images, 2)[0]
        assert torch.allclose(first, first[0, 0, 0].expand(3, 2, 2), atol=1e-5)
        assert first[0, 0, 0].abs() == pytest.approx(1 / (12 * (images.square().mean() + 5e-4 / 12)) ** 0.5 / 12**0.5)

    def test_the_first_layer_is_set_and_frozen(self, digits):
        model = network(patch=3)
        others = [p.clone() for p in list(model.parameters())[2:]]
        whiten(model, digits.train, count=300)
        expected = patch_filters(digits.train.normalize(digits.train.images[:300]), 3)[:4]
        assert torch.equal(model.features[0].weight, torch.cat([expected, -expected]))
        assert not model.features[0].bias.any()
        frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
        assert frozen == ["features.0.weight", "features.0.bias"]
        assert all(torch.equal(a, b) for a, b in zip(others, list(model.parameters())[2:], strict=True))

    def test_a_layer_without_bias_will_do(self, digits):
        layer = nn.Conv2d(3, 4, 2, bias=False)
        whiten(layer, digits.train)
        assert torch.equal(layer.weight[2:], -layer.weight[:2]) and not layer.weight.requires_grad

    def test_frozen_means_unchanged_by_training(self, digits):
        model = network(patch=3)
        whiten(model, digits.train)
        before = [p.clone() for p in model.parameters()]
        data = Dataset(digits.train.subset(slice(0, 100)), digits.validation, digits.test, "digits")
        fit(model, data, MUON, progress=False)
        same = [torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
        assert same[:3] == [True, True, False]

    @pytest.mark.parametrize("filters", [7, 56])
    def test_a_first_layer_that_cannot_be_whitened(self, digits, filters):
        with pytest.raises(ValueError, match=f"even number of filters, at most 54 .* has {filters}"):
            whiten(network((filters, "M", 8)), digits.train)


class TestStartAsIdentity:
    def test_channels_pass_and_the_rest_is_random(self):
        model = network((4, "M", 10), patch=2)
        first, random = model.features[0].weight.clone(), model.features[3].weight[4:].clone()
        start_as_identity(model)
        layer = model.features[3]
        x = torch.randn(1, 4, 8, 8)
        assert torch.allclose(layer(x)[:, :4], x + layer.bias[:4, None, None], atol=1e-6)
        assert torch.equal(layer.weight[4:], random) and random.std() > 0
        assert torch.equal(model.features[0].weight, first)

    def test_fewer_channels_out_than_in(self):
        model = network((8, 4))
        start_as_identity(model)
        x = torch.randn(1, 8, 6, 6)
        assert torch.allclose(model.features[3](x) - model.features[3].bias[:, None, None], x[:, :4], atol=1e-6)


class TestMuon:
    @pytest.mark.parametrize("shape", [(16, 144), (64, 32), (32, 32)])
    def test_singular_values_come_near_1(self, shape):
        torch.manual_seed(0)
        u, _, vh = torch.linalg.svd(torch.randn(shape), full_matrices=False)
        values = torch.linspace(0.2, 1, min(shape))
        result = orthogonal(7 * u @ values.diag() @ vh, steps=5)
        after = torch.linalg.svdvals(result)
        assert after.min() > 0.65 and after.max() < 1.25
        assert torch.allclose(result, u @ (u.T @ result @ vh.T).diag().diag() @ vh, atol=1e-4)  # the same directions

    def test_one_step_is_the_polynomial(self):
        matrix = torch.diag(torch.tensor([3.0, 4.0]))  # of norm 5: singular values 0.6 and 0.8
        expected = [3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5 for s in (0.6, 0.8)]
        assert torch.allclose(orthogonal(matrix, steps=1), torch.diag(torch.tensor(expected)), atol=1e-5)

    def test_bfloat16_is_close(self):
        torch.manual_seed(0)
        matrix = torch.randn(16, 72)
        low = orthogonal(matrix.bfloat16())
        assert low.dtype == torch.bfloat16
        assert torch.allclose(low.float(), orthogonal(matrix), atol=0.02)

    def test_all_but_filters_take_the_steps_of_sgd(self):
        torch.manual_seed(0)
        layer = nn.Linear(5, 3)
        same = nn.Linear(5, 3)
        same.load_state_dict(layer.state_dict())
        ours = Muon(layer.parameters(), lr=9, other_lr=0.1, momentum=0.7, weight_decay=0.01)
        sgd = torch.optim.SGD(same.parameters(), lr=0.1, momentum=0.7, weight_decay=0.01, nesterov=True)
        for _ in range(4):
            x = torch.randn(8, 5)
            for model, optimizer in ((layer, ours), (same, sgd)):
                optimizer.zero_grad()
                model(x).square().sum().backward()
                optimizer.step()
        assert torch.allclose(layer.weight, same.weight, atol=1e-6)
        assert torch.allclose(layer.bias, same.bias, atol=1e-6)

    def test_two_steps_of_a_filter_by_hand(self):
        torch.manual_seed(0)
        filters = nn.Parameter(torch.randn(4, 2, 3, 3))
        optimizer = Muon([filters], lr=0.5, momentum=0.6)
        by_hand, velocity = filters.detach().clone(), torch.zeros(4, 18)
        for _ in range(2):
            gradient = torch.randn(4, 2, 3, 3)
            filters.grad = gradient.clone()
            optimizer.step()
            velocity = 0.6 * velocity + gradient.view(4, 18)
            by_hand = by_hand * 2 / by_hand.norm()  # four filters of mean square norm 1
            by_hand = by_hand - 0.5 * orthogonal(gradient.view(4, 18) + 0.6 * velocity).view(4, 2, 3, 3)
        assert torch.allclose(filters, by_hand, atol=1e-5)

    def test_biases_with_a_rate_of_their_own(self):
        """Plain Nesterov steps with bias_lr, and no weight decay, which would be huge with such a rate."""
        bias, other = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
        optimizer = Muon([bias, other], other_lr=0.1, momentum=0.5, weight_decay=0.2, biases=[bias], bias_lr=20.0)
        bias.grad, other.grad = torch.full((3,), 0.01), torch.full((3,), 0.01)
        optimizer.step()
        assert torch.allclose(bias, torch.full((3,), 1 - 20 * 1.5 * 0.01))
        assert torch.allclose(other, torch.full((3,), 1 - 0.1 * 1.5 * (0.01 + 0.2)))

    def test_frozen_and_unused_parameters_stay(self):
        frozen, unused = nn.Parameter(torch.ones(3), requires_grad=False), nn.Parameter(torch.ones(3))
        used = nn.Parameter(torch.ones(3))
        used.grad = torch.ones(3)
        Muon([frozen, unused, used]).step()
        assert torch.equal(frozen, torch.ones(3)) and torch.equal(unused, torch.ones(3))
        assert not torch.equal(used, torch.ones(3))

    def test_the_state_can_be_saved(self):
        filters = nn.Parameter(torch.ones(2, 1, 3, 3))
        filters.grad = torch.ones_like(filters)
        first, second = Muon([filters]), Muon([filters])
        first.step()
        second.load_state_dict(first.state_dict())
        assert torch.equal(second.state[filters]["velocity"], torch.ones_like(filters))

    def test_the_recipe_makes_it(self, digits):
        optimizer = MUON.make_optimizer(network())
        assert [(g["lr"], g["filters"], len(g["params"])) for g in optimizer.param_groups] == [
            (0.2, True, 2),
            (0.02, False, 8),
        ]
        model = network()
        *_, norms = replace(MUON, bias_lr=9.0).make_optimizer(model).param_groups
        assert (norms["lr"], norms["weight_decay"]) == (9.0, 0.0)
        assert {id(p) for p in norms["params"]} == {id(model.features[i].bias) for i in (1, 5)}
        data = Dataset(digits.train.subset(slice(0, 400)), digits.validation, digits.test, "digits")
        history = fit(network(), data, replace(MUON, schedule="linear"), progress=False)
        assert history.batch_loss[-1] < history.batch_loss[0]
        assert history.batch_learning_rate == pytest.approx([0.2 * (1 - (step + 0.5) / 8) for step in range(8)])

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"optimizer": "adam"}, "optimizer is 'adam'"),
            ({"other_lr": 0}, "other_lr is 0"),
            ({"optimizer": "sgd"}, "other_lr is 0.02"),
            ({"bias_lr": -1}, "bias_lr is -1"),
            ({"optimizer": "sgd", "other_lr": None, "bias_lr": 9.0}, "bias_lr is 9.0"),
            ({"small_part": 1.5}, "small_part is 1.5"),
            ({"augmentation": "mirror"}, "augmentation is 'mirror'"),
            ({"shift": 1.5}, "shift is 1.5"),
            ({"compile": "yes"}, "compile is 'yes'"),
        ],
    )
    def test_recipes_that_make_no_sense(self, change, words):
        with pytest.raises(ValueError, match=words):
            replace(MUON, **change)


class TestAugmentation:
    images = torch.arange(40 * 3 * 6 * 6).remainder(251).to(torch.uint8).view(40, 3, 6, 6)

    def test_every_image_is_flipped_in_every_other_epoch(self):
        split = split_of(self.images)
        flipped = []
        for epoch in range(4):
            shown = augmented(split, seed=1, epoch=epoch, shift=0).images
            same = (shown == self.images).flatten(1).all(1)
            mirrored = (shown == self.images.flip(3)).flatten(1).all(1)
            assert torch.equal(same, ~mirrored)
            flipped.append(mirrored)
        assert torch.equal(flipped[0], ~flipped[1])
        assert torch.equal(flipped[0], flipped[2]) and torch.equal(flipped[1], flipped[3])
        assert 10 < flipped[0].sum() < 30

    def test_every_image_is_a_window_of_its_padded_self(self):
        padded = functional.pad(self.images.float(), (2, 2, 2, 2), mode="reflect").to(torch.uint8)
        places = set()
        for image, source in zip(augmented(split_of(self.images), seed=0, epoch=3).images, padded, strict=True):
            fits = [
                (down, right, mirror)
                for down in range(5)
                for right in range(5)
                for mirror in (False, True)
                for window in [source[:, down : down + 6, right : right + 6]]
                if torch.equal(image, window.flip(2) if mirror else window)
            ]
            assert len(fits) == 1
            places.add(fits[0])
        assert len(places) > 20  # of 50

    def test_the_rest_stays(self):
        split = split_of(self.images)
        before = self.images.clone()
        shown = augmented(split, seed=0, epoch=0)
        assert torch.equal(split.images, before)
        assert torch.equal(shown.labels, split.labels) and shown.images.dtype == torch.uint8
        assert shown.images.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(shown.images, augmented(split, seed=0, epoch=0).images)
        assert not torch.equal(shown.images, augmented(split, seed=0, epoch=2).images)
        assert not torch.equal(shown.images, augmented(split, seed=1, epoch=0).images)

    def test_fit_shows_them(self, digits, monkeypatch):
        epochs = []

        def spy(split, *, seed, epoch, shift):
            epochs.append((seed, epoch, shift))
            return augmented(split, seed=seed, epoch=epoch, shift=shift)

        monkeypatch.setattr("vgg_course.training.augmented", spy)
        data = Dataset(digits.train.subset(slice(0, 60)), digits.validation, digits.test, "digits")
        fit(network(), data, replace(MUON, epochs=2, seed=5, augmentation="alternating", shift=4), progress=False)
        assert epochs == [(5, 0, 4), (5, 1, 4)]


class TestSmaller:
    def test_a_ramp_stays_a_ramp(self):
        ramp = torch.arange(8.0).expand(1, 1, 8, 8)
        assert torch.allclose(smaller(ramp)[0, 0], (torch.arange(6.0) + 0.5) * 8 / 6 - 0.5)

    def test_fit_begins_with_small_images(self, digits):
        sides = []
        model = network()
        model.features.register_forward_pre_hook(lambda module, x: sides.append(x[0].shape[2]))
        data = Dataset(digits.train.subset(slice(0, 100)), digits.validation.subset(slice(0, 5)), digits.test, "digits")
        fit(model, data, replace(MUON, epochs=2, small_part=0.75), progress=False)
        assert sides == [32, 24, *(24, 24, 32), *(24, 32, 32)]  # two trials; twice two steps, a validation


class TestCompiled:
    @pytest.fixture(autouse=True)
    def folder_of_the_compiler(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # it would leave one behind

    @pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0")
    def test_fit_learns_the_same(self, digits, monkeypatch):
        """Traced for real, at both sizes of image; run by PyTorch itself, as not every machine has a compiler."""
        traced = []

        def backend(graph, inputs):
            traced.append(graph)
            return graph.forward

        compile_with = torch.compile
        monkeypatch.setattr(torch, "compile", lambda model: compile_with(model, backend=backend))
        data = Dataset(digits.train.subset(slice(0, 200)), digits.validation, digits.test, "digits")
        plain = replace(MUON, small_part=0.5)
        histories = [fit(network(), data, replace(plain, compile=c), progress=False) for c in (False, True)]
        assert histories[1].batch_loss == pytest.approx(histories[0].batch_loss, rel=1e-4)
        assert len(traced) > 1

    def test_without_a_compiler_it_says_what_to_do(self, digits, monkeypatch):
        inductor = pytest.importorskip("torch._inductor.config")
        monkeypatch.setattr(inductor.cpp, "cxx", (None, "no-such-compiler"))
        torch.compiler.reset()
        model = network()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(ValueError, match=r"compile is True, .* does not work here \(.*no-such-compiler"):
            fit(model, digits, replace(MUON, compile=True), progress=False)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class TestViews:
    def test_what_is_seen(self):
        image = torch.arange(9.0).view(1, 1, 3, 3)
        shown = [view.flatten().tolist() for view in views(image, 6)]
        assert shown == [
            [0, 1, 2, 3, 4, 5, 6, 7, 8],
            [4, 3, 4, 1, 0, 1, 4, 3, 4],  # row 1 and column 1 are the reflections of what lies outside
            [4, 5, 4, 7, 8, 7, 4, 5, 4],
            [2, 1, 0, 5, 4, 3, 8, 7, 6],
            [4, 3, 4, 1, 0, 1, 4, 3, 4],
            [4, 5, 4, 7, 8, 7, 4, 5, 4],
        ]
        assert [view.tolist() for view in views(image, 2)] == [image.tolist(), image.flip(3).tolist()]

    @pytest.mark.parametrize("count", [2, 6])
    def test_predict_takes_the_mean(self, digits, count):
        model, split = network().eval(), digits.test.subset(slice(0, 20))
        with torch.no_grad():
            by_hand = [model(view) for view in views(split.normalize(split.images), count)]
        assert len(by_hand) == count
        assert torch.allclose(predict(model, split, views=count), torch.stack(by_hand).mean(0), atol=1e-6)

    def test_other_numbers_are_refused(self, digits):
        with pytest.raises(ValueError, match=r"1, 2 .* or 6 .* not 3"):
            predict(network(), digits.test, views=3)
