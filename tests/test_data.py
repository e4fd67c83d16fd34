"""Splits, batches and augmentation against values worked out by hand; every way in which files can be wrong."""

import hashlib
import io
import os
import pickle
import shutil
import socket
import stat
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets import CIFAR10

from vgg_course import data, sources
from vgg_course.data import CIFAR10_CLASSES, Images, batches, load_dataset, load_folder


def sample(count: int = 10, side: int = 32) -> Images:
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    return Images(images, torch.arange(count) % 3, ("a", "b", "c"), "sample", (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory):
    """A tiny CIFAR-10 as class folders: 1,000 training images (for 5,000 the split would need more), 10 for testing."""
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
def folder(image_folder, tmp_path, monkeypatch):
    split = data._split
    monkeypatch.setattr(data, "_split", lambda *a: split(*a[:3], 100, *a[4:]))  # validation: 100 images, not 5,000
    shutil.copytree(image_folder / "cifar10", tmp_path / "cifar10")
    return tmp_path


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

    def test_auto_takes_the_image_folder(self, monkeypatch, folder):
        monkeypatch.delenv("VGG_COURSE_DATASET")
        assert load_dataset("auto", folder, verbose=False).name == "cifar10"

    def test_unknown_names(self, monkeypatch):
        with pytest.raises(ValueError, match="'mnist'.*'auto', 'cifar10' or 'digits'"):
            load_dataset("mnist")
        with pytest.raises(ValueError, match="did you mean 'cifar10'"):
            load_dataset("CIFAR-10")
        monkeypatch.setenv("VGG_COURSE_DATASET", "CIFAR")
        with pytest.raises(ValueError, match="VGG_COURSE_DATASET is 'CIFAR'"):
            load_dataset("auto")

    def test_root_one_level_up(self, folder, monkeypatch):
        (folder / "notebooks").mkdir()
        monkeypatch.chdir(folder / "notebooks")
        shutil.move(folder / "cifar10", folder / "data" / "cifar10")
        assert load_dataset("cifar10", verbose=False).name == "cifar10"

    def test_root_is_a_file(self, tmp_path):
        (tmp_path / "data").touch()
        with pytest.raises(NotADirectoryError, match="is a file"):
            load_dataset("cifar10", tmp_path / "data")

    def test_a_server_that_says_nothing(self, tmp_path, monkeypatch):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{silent.getsockname()[1]}/x")
            timeout = sources._socket_timeout
            monkeypatch.setattr(sources, "_socket_timeout", lambda seconds: timeout(0.2))
            with pytest.raises(ConnectionError, match="timed out"):
                load_dataset("cifar10", tmp_path)
        assert socket.getdefaulttimeout() is None

    def test_a_proxy_that_answers_html(self, tmp_path, monkeypatch):
        class LogInFirst(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(b"<html>Log in first</html>")

            do_HEAD = do_GET
            log_message = staticmethod(lambda *_: None)

        with HTTPServer(("127.0.0.1", 0), LogInFirst) as proxy:
            threading.Thread(target=proxy.serve_forever, daemon=True).start()
            monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{proxy.server_port}/x.tar.gz")
            with pytest.raises(ConnectionError, match=r"cannot be had \(File not found or corrupted"):
                load_dataset("cifar10", tmp_path, verbose=False)
            proxy.shutdown()

    def test_a_folder_that_may_not_be_written(self, tmp_path, monkeypatch):
        (tmp_path / "file").touch()
        monkeypatch.setattr(sources.urllib.request, "urlopen", lambda url: io.BytesIO())
        with pytest.raises(OSError, match="cannot write to the data folder .*file/data"):
            sources._download_cifar10(tmp_path / "file" / "data", verbose=False)


class TestTorchvisionFolder:
    @pytest.fixture
    def batches_py(self, tmp_path, monkeypatch):
        """torchvision's own format with 20 images a file, and the hashes that torchvision checks."""
        folder = tmp_path / CIFAR10.base_folder
        folder.mkdir()

        def write(name: str, content: dict) -> list:
            (folder / name).write_bytes(pickle.dumps(content))
            return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

        rng = np.random.default_rng(0)
        names = [[name for name, _ in files] for files in (CIFAR10.train_list, CIFAR10.test_list)]
        lists = [
            [
                write(n, {"data": rng.integers(0, 256, (40, 3072), dtype=np.uint8), "labels": 4 * list(range(10))})
                for n in ns
            ]
            for ns in names
        ]
        meta = write("batches.meta", {"label_names": list(CIFAR10_CLASSES)})
        monkeypatch.setattr(CIFAR10, "train_list", lists[0])
        monkeypatch.setattr(CIFAR10, "test_list", lists[1])
        monkeypatch.setattr(CIFAR10, "meta", {"filename": meta[0], "key": "label_names", "md5": meta[1]})
        split = data._split
        monkeypatch.setattr(data, "_split", lambda *a: split(*a[:3], 50, *a[4:]))
        return tmp_path

    def test_it_is_read(self, batches_py):
        dataset = load_dataset("cifar10", batches_py, verbose=False)
        assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == [150, 50, 40]
        image, label = CIFAR10(batches_py, train=False)[7]
        assert torch.equal(dataset.test.images[7], torch.from_numpy(np.array(image)).permute(2, 0, 1))
        assert dataset.test.labels[7] == label

    def test_a_wrong_hash_is_refused(self, batches_py):
        file = batches_py / CIFAR10.base_folder / "data_batch_3"
        file.write_bytes(file.read_bytes() + b"x")
        with pytest.raises(OSError, match="cifar-10-batches-py is damaged: delete it"):
            load_dataset("cifar10", batches_py)


class TestDownload(TestTorchvisionFolder):
    """The real way of torchvision's download, from a server on this machine that misbehaves first."""

    test_it_is_read = test_a_wrong_hash_is_refused = None

    @pytest.fixture
    def server(self, batches_py, tmp_path_factory, monkeypatch):
        good = tmp_path_factory.mktemp("archive") / CIFAR10.filename
        with tarfile.open(good, "w:gz") as archive:
            archive.add(batches_py / CIFAR10.base_folder, CIFAR10.base_folder)
        monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(good.read_bytes()).hexdigest())
        evil = io.BytesIO()
        with tarfile.open(fileobj=evil, mode="w:gz") as archive:
            for name in ("../outside", "/tmp/vgg_course_outside", f"{CIFAR10.base_folder}/../../outside"):
                archive.addfile(tarfile.TarInfo(name), io.BytesIO())
        bodies = {"good": good.read_bytes(), "evil": evil.getvalue(), "html": b"<html>Log in first</html>"}

        class Answer(BaseHTTPRequestHandler):
            mode = "good"
            bodies: ClassVar[dict] = {}

            def do_GET(self):
                body = (bodies | self.bodies)["good" if self.mode == "half" else self.mode]
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body[: len(body) // 2] if self.mode == "half" else body)

            do_HEAD = do_GET
            log_message = staticmethod(lambda *_: None)

        with HTTPServer(("127.0.0.1", 0), Answer) as running:
            threading.Thread(target=running.serve_forever, daemon=True).start()
            monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{running.server_port}/{CIFAR10.filename}")
            yield Answer
            running.shutdown()

    @pytest.mark.parametrize("mode", ["half", "evil", "html"])
    def test_a_bad_download_is_refused_and_the_next_one_heals_it(self, mode, server, tmp_path):
        server.mode, root = mode, tmp_path / "inside" / "data"
        with pytest.raises(ConnectionError) as error:
            load_dataset("cifar10", root, verbose=False)
        assert "\n" not in str(error.value) and "cannot be had" in str(error.value)
        assert not (root / CIFAR10.base_folder).exists()
        assert not list(tmp_path.rglob("outside")) and not os.path.exists("/tmp/vgg_course_outside")
        server.mode = "good"
        assert len(load_dataset("cifar10", root, verbose=False).test) == 40

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.binary(max_size=200)
        | st.lists(
            st.tuples(
                st.sampled_from(
                    ["../outside", "/tmp/vgg_course_outside", "cifar-10-batches-py/data_batch_1", "a/../../b"]
                ),
                st.sampled_from([tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE]),
            ),
            max_size=4,
        )
    )
    def test_archives_of_anything(self, server, tmp_path, content):
        if not isinstance(content, bytes):
            memory = io.BytesIO()
            with tarfile.open(fileobj=memory, mode="w:gz") as archive:
                for name, kind in content:
                    member = tarfile.TarInfo(name)
                    member.type, member.linkname = kind, "../../outside"
                    archive.addfile(member, io.BytesIO())
            content = memory.getvalue()
        server.mode, server.bodies["any"], root = "any", content, tmp_path / "inside" / "data"
        with pytest.raises(ConnectionError, match="cannot be had") as error:
            load_dataset("cifar10", root, verbose=False)
        assert "\n" not in str(error.value)
        assert [path.name for path in root.rglob("*")] in ([], [CIFAR10.filename])
        assert [path.name for path in root.parent.iterdir()] == ["data"]
        assert not os.path.exists("/tmp/vgg_course_outside")

    def test_a_full_disk_in_the_middle(self, server, tmp_path, monkeypatch):
        def full(*_, **__):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as small_disk:
            small_disk.setattr(shutil, "copyfileobj", full)  # extracting
            small_disk.setattr("torchvision.datasets.utils.extract_archive", full)
            small_disk.setattr("torchvision.datasets.cifar.download_and_extract_archive", full)
            with pytest.raises(OSError, match="the disk is full: CIFAR-10 needs 350 MB"):
                load_dataset("cifar10", tmp_path / "data", verbose=False)
        assert len(load_dataset("cifar10", tmp_path / "data", verbose=False).test) == 40


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

    def test_the_cache_is_used_and_renewed(self, folder, monkeypatch):
        first = load_dataset("cifar10", folder, verbose=False)
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

    def test_a_missing_class(self, folder):
        shutil.rmtree(folder / "cifar10" / "train" / "frog")
        with pytest.raises(FileNotFoundError, match=r"train.frog is missing"):
            load_dataset("cifar10", folder)

    def test_a_class_without_images(self, folder):
        for file in (folder / "cifar10" / "test" / "dog").iterdir():
            file.rename(file.with_suffix(".txt"))
        with pytest.raises(FileNotFoundError, match=r"test.dog holds no images"):
            load_dataset("cifar10", folder)

    def test_a_folder_without_images(self, tmp_path):
        (tmp_path / "cifar10").mkdir()
        with pytest.raises(FileNotFoundError, match=r"train.airplane is missing"):
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

    def test_grey_images_become_coloured(self, folder):
        Image.new("L", (32, 32), 7).save(folder / "cifar10" / "test" / "cat" / "00003.png")
        assert (load_dataset("cifar10", folder, verbose=False).test.images[3] == 7).all()


class TestOwnFolder:
    """Real files of many kinds in class folders: red cats, green dogs, and blue birds that vary in brightness."""

    COLOURS: ClassVar[dict] = {"cat": (1, 0, 0), "dog": (0, 1, 0), "Bird": (0, 0, 1)}

    def write(self, folder, count=10, classes=("cat", "dog", "Bird"), first=0):
        for name in classes:
            (folder / name).mkdir(parents=True)
            for i in range(first, first + count):
                pixels = np.full((20, 30, 3), 200 - i) * np.array(self.COLOURS[name])
                Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i:03d}.png")
        return folder

    def brightness(self, split):
        return sorted(200 - int(image.max()) for image in split.images)

    def test_one_folder_is_split_by_itself(self, tmp_path, capsys):
        pets = load_dataset(str(self.write(tmp_path / "pets")))
        assert capsys.readouterr().out == "pets: 18 training, 6 validation, 6 test images of 3 classes, 32x32 pixels\n"
        assert pets.classes == ("Bird", "cat", "dog") and pets.name == "pets"
        for split, count in ((pets.train, 6), (pets.validation, 2), (pets.test, 2)):
            assert split.labels.bincount().tolist() == 3 * [count]
            assert split.images.shape[1:] == (3, 32, 32) and split.images.dtype == torch.uint8
            brightest = split.images[:, :, 16, 16].argmax(1)
            assert [self.COLOURS[pets.classes[label]].index(1) for label in split.labels] == brightest.tolist()
        everything = [b for split in (pets.train, pets.validation, pets.test) for b in self.brightness(split)]
        assert sorted(everything) == sorted(3 * list(range(10)))  # each image once
        again = load_dataset(tmp_path / "pets", verbose=False)
        assert torch.equal(pets.test.images, again.test.images)

    @pytest.mark.parametrize("name", ["validation", "val", "Valid"])
    def test_given_splits_are_kept(self, name, tmp_path):
        for split, count, first in (("train", 3, 0), (name, 1, 10), ("test", 2, 20)):
            self.write(tmp_path / "pets" / split, count, first=first)
        pets = load_folder(tmp_path / "pets", verbose=False)
        assert self.brightness(pets.train) == sorted(3 * [0, 1, 2])
        assert self.brightness(pets.validation) == 3 * [10] and self.brightness(pets.test) == 3 * [20] + 3 * [21]

    def test_what_is_missing_is_taken_from_training(self, tmp_path):
        self.write(tmp_path / "train", 10)
        self.write(tmp_path / "test", 2, first=50)
        pets = load_folder(tmp_path, verbose=False)
        assert [len(split) for split in (pets.train, pets.validation, pets.test)] == [24, 6, 6]
        assert not set(self.brightness(pets.train)[:6]) & {50, 51} and set(self.brightness(pets.test)) == {50, 51}

    def test_mean_and_std_are_those_of_training_alone(self, tmp_path):
        self.write(tmp_path / "train")
        for split in ("validation", "test"):
            self.write(tmp_path / split, 2, first=150)
        pets = load_folder(tmp_path, verbose=False)
        normal = pets.test.normalize(pets.train.images).transpose(0, 1).flatten(1).double()
        assert normal.mean(1).abs().max() < 1e-4 and (normal.std(1) - 1).abs().max() < 1e-3

    @pytest.mark.parametrize("side", [8, 48])
    def test_the_middle_square_resized(self, side, tmp_path):
        self.write(tmp_path, 5)
        pixels = np.zeros((64, 256, 3), np.uint8)
        pixels[:, 96:160] = 0, 255, 0  # the middle is green, the sides are black
        Image.fromarray(pixels).save(tmp_path / "dog" / "000.png")
        pets = load_folder(tmp_path, side=side, verbose=False)
        images = torch.cat([split.images for split in (pets.train, pets.validation, pets.test)])
        assert images.shape[1:] == (3, side, side)
        inner = images[:, :, :, 2:-2]  # at the edge of the cut, resizing blends in a little of what lay beyond
        assert sum((image == torch.tensor([0, 255, 0])[:, None, None]).all().item() for image in inner) == 1

    @pytest.mark.parametrize("ending", ["jpg", "JPEG", "webp", "tif", "bmp", "gif"])
    def test_kinds_of_files(self, ending, tmp_path):
        self.write(tmp_path, 5)
        for file in (tmp_path / "cat").iterdir():
            Image.open(file).resize((1200, 900)).save(file.with_suffix(f".{ending}"))
            file.unlink()
        pets = load_folder(tmp_path, verbose=False)
        cats = pets.train.images[pets.train.labels == 1].float().mean((0, 2, 3))
        assert cats[0] > 190 and cats[1:].max() < 5

    def test_upright_as_the_camera_held_it(self, tmp_path):
        self.write(tmp_path, 5)
        pixels = np.zeros((32, 32, 3), np.uint8)
        pixels[:16] = 255  # the upper half is white
        exif = Image.Exif()
        exif[0x0112] = 6  # "turn it clockwise by 90 degrees to see it upright"
        for file in (tmp_path / "dog").iterdir():
            Image.fromarray(pixels).save(file.with_suffix(".jpg"), exif=exif)
            file.unlink()
        pets = load_folder(tmp_path, verbose=False)
        dog = pets.test.images[pets.test.labels == 2][0]
        assert dog[:, :, 18:].min() > 200 and dog[:, :, :14].max() < 50  # now it is the right one

    def test_grey_palette_and_transparent_images(self, tmp_path):
        self.write(tmp_path, 5)
        for i in range(5):
            Image.new("L", (9, 9), 77).save(tmp_path / "cat" / f"{i:03d}.png")
            Image.new("RGBA", (9, 9), (0, 0, 0, 0)).save(tmp_path / "dog" / f"{i:03d}.png")
            Image.new("RGB", (9, 9), (10, 20, 30)).convert("P").save(tmp_path / "Bird" / f"{i:03d}.png")
        test = load_folder(tmp_path, verbose=False).test
        assert (test.images[test.labels == 1] == 77).all() and (test.images[test.labels == 2] == 255).all()
        assert (test.images[test.labels == 0].float().mean((0, 2, 3)) - torch.tensor([10, 20, 30])).abs().max() < 30

    def test_hidden_and_other_files_are_left_out(self, tmp_path):
        self.write(tmp_path, 5)
        for name in (".DS_Store", "cat/.hidden.png", "cat/notes.txt", "cat/._000.png", "readme.md"):
            (tmp_path / name).write_text("no image")
        for name in (".ipynb_checkpoints", "__MACOSX"):
            (tmp_path / name).mkdir()
        pets = load_folder(tmp_path, verbose=False)
        assert len(pets.classes) == 3 and sum(map(len, (pets.train, pets.validation, pets.test))) == 15

    def test_a_class_may_be_called_train(self, tmp_path):
        self.write(tmp_path, 5)
        (tmp_path / "cat").rename(tmp_path / "train")
        assert load_folder(tmp_path, verbose=False).classes == ("Bird", "dog", "train")

    def test_one_level_up(self, tmp_path, monkeypatch):
        self.write(tmp_path / "pets", 5)
        (tmp_path / "notebooks").mkdir()
        monkeypatch.chdir(tmp_path / "notebooks")
        assert load_dataset("pets", verbose=False).name == load_folder("../pets/", verbose=False).name == "pets"

    def test_a_name_of_ours_is_no_folder_but_a_path_is(self, tmp_path, monkeypatch):
        self.write(tmp_path / "digits", 5)
        monkeypatch.chdir(tmp_path)
        assert len(load_dataset("digits", verbose=False).classes) == 10
        assert len(load_dataset("./digits", verbose=False).classes) == 3

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("petz", "there is no folder .*petz; did you mean .*pets"),
            ("nothing/here", "there is no folder .*here"),
            ("pets/cat/000.png", "000.png is a file: give the folder"),
        ],
    )
    def test_a_folder_that_is_not_there(self, name, message, tmp_path):
        self.write(tmp_path / "pets", 5)
        with pytest.raises((FileNotFoundError, NotADirectoryError), match=message):
            load_dataset(f"{tmp_path}/{name}")

    @pytest.mark.parametrize(
        ("classes", "message"),
        [
            ((), "holds no folders of classes: make one folder for each class"),
            (("cat",), "holds a single class, 'cat'"),
        ],
    )
    def test_too_few_classes(self, classes, message, tmp_path):
        with pytest.raises(ValueError, match=message):
            load_folder(self.write(tmp_path, 5, classes))

    def test_images_without_a_class(self, tmp_path):
        self.write(tmp_path, 5, ["cat"])
        with pytest.raises(ValueError, match="cat holds 5 images, but they lie in no folder of a class"):
            load_folder(tmp_path / "cat")

    def test_the_folder_around(self, tmp_path):
        self.write(tmp_path / "pets", 5)
        with pytest.raises(ValueError, match="single class, 'pets'.*give .*pets, which holds 3 folders"):
            load_folder(tmp_path)

    def test_too_few_images_of_a_class(self, tmp_path):
        self.write(tmp_path, 5)
        (tmp_path / "dog" / "000.png").unlink()
        with pytest.raises(ValueError, match=r"'dog' has 4 images .* needs at least 5 \(three splits: .*add 1 or"):
            load_folder(tmp_path)

    def test_photos_of_a_telephone_that_are_not_read(self, tmp_path):
        self.write(tmp_path, 5)
        for file in (tmp_path / "dog").iterdir():
            file.rename(file.with_suffix(".HEIC"))
        with pytest.raises(ValueError, match=r"'dog' has 0 images .*read are .png .jpg .*, not .heic"):
            load_folder(tmp_path)

    def test_splits_that_do_not_fit(self, tmp_path):
        self.write(tmp_path / "train", 5)
        self.write(tmp_path / "test", 1, ["cat", "dog"])
        with pytest.raises(FileNotFoundError, match=r"test.Bird is missing: each split needs all classes"):
            load_folder(tmp_path)
        (tmp_path / "test" / "fox").mkdir()
        with pytest.raises(ValueError, match=r"test.fox is no class that there is for training"):
            load_folder(tmp_path)
        shutil.rmtree(tmp_path / "train")
        with pytest.raises(FileNotFoundError, match="has test, but no train"):
            load_folder(tmp_path)

    @pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n", "half", "16 bits"])
    def test_an_image_that_cannot_be_read(self, content, tmp_path):
        file = self.write(tmp_path, 5) / "cat" / "003.png"
        if content == "16 bits":
            Image.fromarray(np.full((9, 9), 40000, np.uint16)).save(file)
        else:
            file.write_bytes(file.read_bytes()[:60] if content == "half" else content)
        with pytest.raises(ValueError, match=r"003.png is no readable image: delete it") as error:
            load_dataset(tmp_path)
        assert "\n" not in str(error.value) and ("8 bits" in str(error.value)) == (content == "16 bits")

    def test_images_of_one_colour(self, tmp_path):
        self.write(tmp_path, 5, ["cat", "dog"])
        with pytest.raises(ValueError, match="a colour channel has the same value in all training images"):
            load_folder(tmp_path)

    @pytest.mark.parametrize("side", [0, 7, 32.0, "32", True])
    def test_a_bad_side(self, side, tmp_path):
        with pytest.raises(ValueError, match="side is the width and height of the images in pixels, 8 or more"):
            load_folder(tmp_path, side=side)

    @pytest.mark.parametrize("folder", [None, 5])
    def test_what_is_no_folder(self, folder):
        with pytest.raises(TypeError, match="folder is the folder of your images"):
            load_folder(folder)
        with pytest.raises(ValueError, match="the name of the data set is"):
            load_dataset(folder)


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
        assert len(shifts) > 30

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
    """On the real CIFAR-10, where it is there; elsewhere the constants' shape at least."""
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

    @pytest.mark.parametrize("count", [0, 181, -1, 1.5, True])
    def test_a_count_that_is_not_there(self, count):
        with pytest.raises(ValueError, match="images to keep, 1 to 180"):
            load_dataset("digits", verbose=False).keep_for_validation(count)
