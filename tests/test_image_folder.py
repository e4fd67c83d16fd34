"""CIFAR-10 as class folders of small images: what is read, the cache, and every way in which files can be wrong."""

import errno
import os
import shutil
import stat
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10

from vgg_course import sources
from vgg_course.data import CIFAR10_CLASSES, load_dataset


def test_classes_have_the_same_order_on_windows():
    """Where paths are compared without regard to case."""
    folder = SimpleNamespace(iterdir=lambda: [PureWindowsPath("photos") / n for n in ("bee", "Cat", "ant", ".x")])
    assert [path.name for path in sources._visible(folder)] == ["Cat", "ant", "bee"]


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory):
    """A tiny CIFAR-10 as class folders: 600 training images, 10 for testing."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for split, count in (("train", 60), ("test", 1)):
        for label, name in enumerate(CIFAR10_CLASSES):
            (root / "cifar10" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                pixels[0, 0] = label, i, 0
                Image.fromarray(pixels).save(root / "cifar10" / split / name / f"{10 * i + label:05d}.png")
    return root


@pytest.fixture
def folder(image_folder, tmp_path, images_for_validation):
    images_for_validation(100)
    shutil.copytree(image_folder / "cifar10", tmp_path / "cifar10")
    return tmp_path


class TestImageFolder:
    def test_pixels_labels_and_order(self, folder):
        dataset = load_dataset("cifar10", folder, verbose=False)
        assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == [500, 100, 10]
        assert dataset.validation.labels.bincount().tolist() == 10 * [10]
        assert dataset.test.labels.tolist() == list(range(10))  # by the number in the file name
        for split in (dataset.train, dataset.validation):
            assert torch.equal(split.images[:, 0, 0, 0].long(), split.labels)
            position = 10 * split.images[:, 1, 0, 0].long() + split.labels
            assert torch.equal(position, position.sort()[0])

    def test_not_all_of_it_is_unpacked(self, folder, image_folder, capsys, monkeypatch):
        load_dataset("cifar10", folder)
        assert "not all of CIFAR-10 is there: 600 and 10 images in place of 50,000" in capsys.readouterr().out
        monkeypatch.undo()
        with pytest.raises(ValueError, match="cifar10 has 600 training images, too few to take 5,000 for validation"):
            load_dataset("cifar10", image_folder, verbose=False)

    def test_the_cache_is_used_and_renewed(self, folder, monkeypatch, capsys):
        first = load_dataset("cifar10", folder)
        assert f"reading 610 images from {folder / 'cifar10'}, once" in capsys.readouterr().out
        decode = sources._decode
        monkeypatch.setattr(sources, "_decode", lambda path: pytest.fail("decoded again"))
        assert torch.equal(load_dataset("cifar10", folder, verbose=False).train.images, first.train.images)
        monkeypatch.setattr(sources, "_decode", decode)
        file = next((folder / "cifar10" / "test" / "frog").iterdir())
        Image.new("RGB", (32, 32)).save(file)
        assert not load_dataset("cifar10", folder, verbose=False).test.images[6].any()
        assert len(list((folder / "cache").iterdir())) == 1  # the old one is gone

    def test_a_damaged_cache_is_replaced(self, folder, capsys):
        first = load_dataset("cifar10", folder, verbose=False)
        file = next((folder / "cache").iterdir())
        for damage in (file.read_bytes()[:5000], b"", b"text"):
            file.write_bytes(damage)
            assert torch.equal(load_dataset("cifar10", folder, verbose=False).test.images, first.test.images)

    def test_a_cache_that_cannot_be_written(self, folder, capsys):
        (folder / "cache").touch()  # a file where the folder should be
        load_dataset("cifar10", folder, verbose=False)
        assert "could not be kept" in capsys.readouterr().out
        assert not list(folder.glob("**/*.tmp"))

    def test_what_a_mac_leaves_beside_each_image_is_none(self, folder):
        (folder / "cifar10" / "train" / "cat" / "._00003.png").write_bytes(b"\x00\x05\x16\x07")
        assert len(load_dataset("cifar10", folder, verbose=False).train) == 500

    def test_a_missing_class(self, folder):
        shutil.rmtree(folder / "cifar10" / "train" / "frog")
        with pytest.raises(FileNotFoundError, match=r"train.frog is missing"):
            load_dataset("cifar10", folder)

    def test_a_class_without_images(self, folder):
        for file in (folder / "cifar10" / "test" / "dog").iterdir():
            file.rename(file.with_suffix(".txt"))
        with pytest.raises(FileNotFoundError, match=r"test.dog holds no images"):
            load_dataset("cifar10", folder)

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_a_folder_without_images(self, tmp_path, split):
        (tmp_path / "cifar10" / split).mkdir(parents=True)
        with pytest.raises(FileNotFoundError, match=r"train.airplane is missing"):
            load_dataset("cifar10", tmp_path)

    def test_an_empty_folder_is_no_cifar10(self, tmp_path, monkeypatch, capsys):
        """Made by hand, before an archive is unpacked to it: as if it was not there."""
        (tmp_path / "cifar10").mkdir()
        monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/nobody-is-there")
        with pytest.raises(ConnectionError, match="cannot be had"):
            load_dataset("cifar10", tmp_path)
        monkeypatch.delenv("VGG_COURSE_DATASET", raising=False)
        assert load_dataset("auto", tmp_path).name == "digits"
        assert "no CIFAR-10: http://127.0.0.1:9/nobody-is-there cannot be had" in capsys.readouterr().out

    def test_a_data_folder_of_another_user(self, tmp_path, monkeypatch):
        """That of a teacher, on a shared server: nothing is damaged, and nothing is to be deleted."""
        is_dir = Path.is_dir

        def refuse(path):
            if path.name == sources.BATCHES_FOLDER:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return is_dir(path)

        monkeypatch.setattr(Path, "is_dir", refuse)
        with pytest.raises(PermissionError, match=r"cifar-10-batches-py may not be read: ask its owner \(chmod"):
            load_dataset("cifar10", tmp_path)

    @pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n", "half"])
    def test_a_broken_image(self, folder, content):
        file = folder / "cifar10" / "train" / "cat" / "00003.png"
        file.write_bytes(file.read_bytes()[:1000] if content == "half" else content)
        with pytest.raises(ValueError, match=r"00003.png is no readable image: delete it") as error:
            load_dataset("cifar10", folder, verbose=False)
        assert "\n" not in str(error.value)

    def test_a_broken_jpeg(self, folder):
        file = folder / "cifar10" / "train" / "cat" / "00003.jpg"
        Image.new("RGB", (32, 32)).save(file)
        file.write_bytes(file.read_bytes()[:200])
        with pytest.raises(ValueError, match=r"00003.jpg is no readable image"):
            load_dataset("cifar10", folder, verbose=False)

    def test_an_image_of_another_size(self, folder):
        Image.new("RGB", (40, 32)).save(folder / "cifar10" / "train" / "cat" / "00003.png")
        with pytest.raises(ValueError, match="has 40x32 pixels"):
            load_dataset("cifar10", folder, verbose=False)

    @pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root and Windows may read everything")
    def test_an_image_that_may_not_be_read(self, folder):
        file = folder / "cifar10" / "train" / "cat" / "00003.png"
        file.chmod(stat.S_IWUSR)
        with pytest.raises(PermissionError, match="may not be read"):
            load_dataset("cifar10", folder, verbose=False)

    def test_a_system_that_refuses_an_image(self, folder, monkeypatch):
        """As above, also where this user may read everything."""

        def refuse(path):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(sources.Image, "open", refuse)
        with pytest.raises(PermissionError, match=r"\.png may not be read: change its permissions"):
            load_dataset("cifar10", folder, verbose=False)

    def test_grey_images_become_coloured(self, folder):
        Image.new("L", (32, 32), 7).save(folder / "cifar10" / "test" / "cat" / "00003.png")
        assert (load_dataset("cifar10", folder, verbose=False).test.images[3] == 7).all()

    def test_auto_takes_the_image_folder(self, monkeypatch, folder):
        monkeypatch.delenv("VGG_COURSE_DATASET")
        assert load_dataset("auto", folder, verbose=False).name == "cifar10"

    def test_root_one_level_up(self, folder, monkeypatch):
        (folder / "notebooks").mkdir()
        monkeypatch.chdir(folder / "notebooks")
        shutil.move(folder / "cifar10", folder / "data" / "cifar10")
        assert load_dataset("cifar10", verbose=False).name == "cifar10"
