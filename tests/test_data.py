"""Names, splits, batches and augmentation against values worked out by hand."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from vgg_course import data
from vgg_course.data import Images, batches, load_dataset


def sample(count: int = 10, side: int = 32) -> Images:
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    return Images(images, torch.arange(count) % 3, ("a", "b", "c"), "sample", (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")


class TestDigits:
    def test_splits(self):
        digits = load_dataset("digits", verbose=False)
        assert [len(s) for s in (digits.train, digits.validation, digits.test)] == [1257, 180, 360]
        assert digits.train.images.dtype == torch.uint8
        assert digits.train.images.shape[1:] == (3, 32, 32)
        assert digits.train.labels.dtype == torch.int64
        assert digits.validation.labels.bincount().tolist() == 10 * [18]
        assert digits.classes[3] == "three"

    def test_the_same_each_time(self):
        one, two = (load_dataset("digits", verbose=False) for _ in range(2))
        assert torch.equal(one.validation.images, two.validation.images)

    def test_normalised_with_its_own_statistics(self):
        digits = load_dataset("digits", verbose=False)
        everything = torch.cat([digits.train.images, digits.validation.images])
        normal = digits.train.normalize(everything).transpose(0, 1).flatten(1).double()
        assert normal.mean(1).abs().max() < 1e-4
        assert (normal.std(1) - 1).abs().max() < 1e-4

    def test_statistics_are_those_of_all_pixels_and_need_little_memory(self):
        images = np.random.default_rng(0).integers(0, 256, (200, 32, 32, 3), dtype=np.uint8)
        tracemalloc.start()
        mean, std = data._statistics(images)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < images.nbytes
        pixels = images.reshape(-1, 3) / 255
        assert (mean, std) == (pytest.approx(pixels.mean(0), rel=1e-12), pytest.approx(pixels.std(0), rel=1e-12))
        assert data._statistics(np.full_like(images, 77))[1] == (0, 0, 0)


class TestChoice:
    def test_one_line_says_which(self, capsys):
        load_dataset("digits")
        assert capsys.readouterr().out.splitlines() == [
            "digits: 1,257 training, 180 validation, 360 test images (for CIFAR-10: load_dataset('cifar10'))"
        ]

    def test_auto_takes_the_variable(self, monkeypatch):
        monkeypatch.setenv("VGG_COURSE_DATASET", "digits")
        assert load_dataset("auto", verbose=False).name == "digits"

    def test_auto_falls_back_in_one_line(self, monkeypatch, capsys, tmp_path, no_network):
        monkeypatch.delenv("VGG_COURSE_DATASET")
        assert load_dataset("auto", tmp_path / "new").name == "digits"
        assert "no CIFAR-10: http://127.0.0.1:9/" in capsys.readouterr().out
        assert not (tmp_path / "new").exists()

    def test_by_name_never_falls_back(self, monkeypatch, tmp_path, no_network):
        with pytest.raises(ConnectionError, match="cannot be had.*cifar10/train/<class>") as error:
            load_dataset("cifar10", tmp_path / "new")
        assert "\n" not in str(error.value)
        monkeypatch.setenv("VGG_COURSE_DATASET", "cifar10")
        with pytest.raises(ConnectionError):
            load_dataset("auto", tmp_path / "new")

    def test_unknown_names(self, monkeypatch):
        with pytest.raises(ValueError, match="'mnist'.*'auto', 'cifar10' or 'digits'"):
            load_dataset("mnist")
        with pytest.raises(ValueError, match="did you mean 'cifar10'"):
            load_dataset("CIFAR-10")
        monkeypatch.setenv("VGG_COURSE_DATASET", "CIFAR")
        with pytest.raises(ValueError, match="VGG_COURSE_DATASET is 'CIFAR'"):
            load_dataset("auto")

    def test_root_is_a_file(self, tmp_path):
        (tmp_path / "data").touch()
        with pytest.raises(NotADirectoryError, match="is a file"):
            load_dataset("cifar10", tmp_path / "data")


class TestBatches:
    def test_in_order(self):
        split = sample(10)
        chunks = list(batches(split, 4))
        assert [len(labels) for _, labels in chunks] == [4, 4, 2]
        images = torch.cat([images for images, _ in chunks])
        expected = (split.images.float() / 255 - torch.tensor(split.mean)[:, None, None]) / torch.tensor(split.std)[
            :, None, None
        ]
        assert torch.allclose(images, expected, atol=1e-5)
        assert torch.equal(torch.cat([labels for _, labels in chunks]), split.labels)
        assert images.dtype == torch.float32

    @pytest.mark.parametrize("augment", [False, True])
    def test_channels_last(self, augment):
        images, _ = next(batches(sample(), 8, shuffle=True, augment=augment))
        assert images.is_contiguous(memory_format=torch.channels_last)

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
    def test_normalize_leaves_the_images_alone(self, dtype):
        split = sample(4)
        images = split.images.to(dtype)
        once, twice = split.normalize(images), split.normalize(images)
        assert torch.equal(images, split.images.to(dtype)) and torch.equal(once, twice)
        assert torch.equal(once, split.normalize(split.images))

    @pytest.mark.parametrize("kind", [np.array, torch.tensor, list])
    def test_mean_and_std_are_plain_numbers(self, kind):
        split = sample(4)
        images = Images(split.images, split.labels, split.classes, "x", kind([0.5, 0.4, 0.3]), kind([0.2, 0.2, 0.2]))
        assert {type(number) for number in (*images.mean, *images.std)} == {float}
        assert images.normalize(images.images).dtype == torch.float32

    def test_the_order_in_memory_on_a_mac(self, monkeypatch):
        """Its GPU is not here: the batches ask what is right for their device."""
        assert data.memory_format(torch.device("mps")) == torch.contiguous_format
        assert (
            data.memory_format(torch.device("cpu")) == data.memory_format(torch.device("cuda")) == torch.channels_last
        )
        monkeypatch.setattr(data, "memory_format", lambda device: torch.contiguous_format)
        assert next(batches(sample(), 8))[0].is_contiguous()

    def test_every_image_once(self):
        split = sample(10)
        seen = torch.cat([images for images, _ in batches(split, 3, shuffle=True, seed=5)])
        everything = split.normalize(split.images)
        assert sorted(seen.flatten(1).sum(1).tolist()) == pytest.approx(sorted(everything.flatten(1).sum(1).tolist()))

    def test_a_batch_follows_from_seed_epoch_and_step(self):
        def run(**changes):
            settings = {"shuffle": True, "augment": True, "seed": 3, "epoch": 2, **changes}
            return list(batches(sample(10), 3, **settings))

        whole, rest = run(), run(first_step=2)
        assert len(rest) == 2
        assert all(torch.equal(a, b) and torch.equal(la, lb) for (a, la), (b, lb) in zip(whole[2:], rest, strict=True))
        for other in (run(seed=4), run(epoch=3)):
            assert not torch.equal(whole[0][0], other[0][0])
        torch.manual_seed(1)  # the global generator has no say
        assert torch.equal(run()[0][0], whole[0][0])

    def test_augmentation_is_a_shift_with_reflection_and_perhaps_a_flip(self):
        split = sample(64)
        out = data._flip_and_shift(split.images, torch.arange(64), np.random.default_rng(0))
        padded = torch.nn.functional.pad(split.images.float(), (4, 4, 4, 4), mode="reflect")
        flips, shifts = 0, set()
        for image, wide in zip(out, padded, strict=True):
            windows = {(y, x): wide[:, y : y + 32, x : x + 32] for y in range(9) for x in range(9)}
            found = [(False, *at) for at, window in windows.items() if torch.equal(image.float(), window)]
            found += [(True, *at) for at, window in windows.items() if torch.equal(image.float(), window.flip(2))]
            assert len(found) == 1
            flips += found[0][0]
            shifts.add(found[0][1:])
        assert 16 < flips < 48
        assert {y for y, _ in shifts} == {x for _, x in shifts} == set(range(9))

    @pytest.mark.parametrize("size", [0, -1, 2.5, "8"])
    def test_a_bad_batch_size(self, size):
        with pytest.raises(ValueError, match="batch_size is the number of images"):
            next(batches(sample(), size))

    def test_an_empty_split(self):
        with pytest.raises(ValueError, match="sample holds no images"):
            next(batches(sample().subset(slice(0, 0)), 2))

    def test_to_a_device(self):
        assert sample().to("meta").images.device.type == "meta"


def test_cited_constants_are_those_of_the_images():
    """On the real CIFAR-10, where it is there; elsewhere that they are those which were compared with it."""
    assert (data.CIFAR10_MEAN, data.CIFAR10_STD) == ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    root = data.Path(__file__).parent.parent / "data"
    if not any((root / name).is_dir() for name in (CIFAR10.base_folder, "cifar10", "cifar10-images")):
        pytest.skip("CIFAR-10 is not in data/")
    dataset = load_dataset("cifar10", root, verbose=False)
    pixels = torch.cat([dataset.train.images, dataset.validation.images]).transpose(0, 1).flatten(1).double() / 255
    assert pixels.mean(1).tolist() == pytest.approx(data.CIFAR10_MEAN, abs=5e-5)
    assert pixels.std(1).tolist() == pytest.approx(data.CIFAR10_STD, abs=5e-5)
    assert dataset.validation.labels.bincount().tolist() == 10 * [500]


class TestKeepForValidation:
    def test_the_others_join_the_training_images(self):
        data = load_dataset("digits", verbose=False)
        more = data.keep_for_validation(30)
        assert (len(more.train), len(more.validation)) == (len(data.train) + len(data.validation) - 30, 30)
        assert torch.equal(more.train.images[: len(data.train)], data.train.images)
        assert torch.equal(more.train.images[len(data.train) :], data.validation.images[30:])
        assert torch.equal(more.train.labels[len(data.train) :], data.validation.labels[30:])
        assert torch.equal(more.validation.images, data.validation.images[:30])
        assert more.train.images.is_contiguous(memory_format=torch.channels_last)
        assert more.test is data.test and len(data.validation) == 180

    def test_of_a_folder_some_of_each_class_stay(self):
        data = load_dataset("digits", verbose=False)
        order = data.validation.labels.argsort(stable=True)
        by_class = replace(data, validation=data.validation.subset(order))  # as load_folder gives them
        more = by_class.keep_for_validation(100)
        assert more.validation.labels.bincount(minlength=10).tolist() == 10 * [10]
        assert by_class.keep_for_validation(15).validation.labels.bincount(minlength=10).min() == 1
        kept = torch.cat([more.validation.images, more.train.images[len(data.train) :]]).flatten(1)
        assert torch.equal(kept.unique(dim=0), data.validation.images.flatten(1).unique(dim=0))

    @pytest.mark.parametrize("count", [0, 181, -1, 1.5, True])
    def test_a_count_that_is_not_there(self, count):
        with pytest.raises(ValueError, match="images to keep, 1 to 180"):
            load_dataset("digits", verbose=False).keep_for_validation(count)
