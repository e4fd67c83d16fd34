"""Folders of one's own images: classes, splits, kinds of files, and what each mistake is answered with."""

import shutil
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from vgg_course.data import load_dataset, load_folder


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

    @pytest.mark.parametrize(
        "names",
        [("train", "validation", "test"), ("Training", "val", "Testing"), ("training_set", "Valid", "test_set")],
    )
    def test_given_splits_are_kept(self, names, tmp_path):
        for split, count, first in zip(names, (3, 1, 2), (0, 10, 20), strict=True):
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

    def test_a_large_photo_is_decoded_at_a_fraction_of_its_size(self, tmp_path, monkeypatch):
        self.write(tmp_path, 5)
        for file in (tmp_path / "cat").iterdir():
            Image.open(file).resize((1600, 1200)).save(file.with_suffix(".jpg"))
            file.unlink()
        decoded, fit = [], ImageOps.fit
        monkeypatch.setattr(ImageOps, "fit", lambda image, size: decoded.append(max(image.size)) or fit(image, size))
        load_folder(tmp_path, verbose=False)
        assert sorted(decoded)[-5:] == [200] * 5  # an eighth, which is still more than the 32 that are kept

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

    def test_an_odd_entry_in_what_the_camera_wrote(self, tmp_path):
        """Pillow reads it, but cannot write it back: the width as a text."""
        self.write(tmp_path, 5)
        width, turned = b"\x00\x01\x02\x00\x04\x00\x00\x00abc\x00", b"\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00"
        exif = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x02\x00" + width + turned + 4 * b"\x00"
        pixels = np.zeros((32, 32, 3), np.uint8)
        pixels[:16] = 255
        Image.fromarray(pixels).save(tmp_path / "one.jpg", exif=exif)
        for file in (tmp_path / "dog").iterdir():
            shutil.copy(tmp_path / "one.jpg", file.with_suffix(".jpg"))
            file.unlink()
        (tmp_path / "one.jpg").unlink()
        pets = load_folder(tmp_path, verbose=False)
        dog = pets.test.images[pets.test.labels == 2][0]
        assert dog[:, :, 18:].min() > 200 and dog[:, :, :14].max() < 50

    @pytest.mark.parametrize("exif", [b"Exif\x00\x00II*\x00", b"Exif\x00\x00nothing"], ids=["cut off", "no header"])
    def test_where_the_camera_wrote_is_damaged_the_image_is_as_it_lies(self, exif, tmp_path):
        whole = load_folder(self.write(tmp_path / "whole", 5), verbose=False).test
        for file in self.write(tmp_path / "damaged", 5).rglob("*.png"):
            with Image.open(file) as image:
                image.copy().save(file, exif=exif)
        assert torch.equal(load_folder(tmp_path / "damaged", verbose=False).test.images, whole.images)

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
            (tmp_path / name).write_text("no image", encoding="utf-8")
        for name in (".ipynb_checkpoints", "__MACOSX"):
            (tmp_path / name).mkdir()
        pets = load_folder(tmp_path, verbose=False)
        assert len(pets.classes) == 3 and sum(map(len, (pets.train, pets.validation, pets.test))) == 15

    def test_what_is_not_read_is_told(self, tmp_path, capsys):
        """Such as the photos of a telephone among others, or a folder that is none of the three splits."""
        folder = tmp_path / "pets"
        self.write(folder / "train")
        (folder / "holdout").mkdir()
        for name in ("train/dog/1.HEIC", "train/dog/2.heic", "train/cat/notes.txt", "train/cat/README", "train/cat/.x"):
            (folder / name).touch()
        (folder / "train" / "cat" / "black").mkdir()
        for name in ("a.png", "b.png", "train/c.png"):
            shutil.copy(folder / "train" / "cat" / "000.png", folder / name)
        load_folder(folder)
        said = "2 .heic files, 1 .txt file, 1 without an ending file, 3 files in no folder of a class"
        said += ", the folder train/cat/black, the folder holdout"
        assert capsys.readouterr().out.splitlines()[1:] == [f"not read: {said}"]
        load_folder(folder, verbose=False)
        assert capsys.readouterr().out == ""

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

    def test_an_image_with_too_many_pixels(self, tmp_path, monkeypatch):
        """Nothing is wrong with it, so it is not to be deleted."""
        self.write(tmp_path, 5)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20 * 30 // 2 - 1)  # twice as many are too many
        with pytest.raises(ValueError, match=r"000\.png has too many pixels: save it smaller \("):
            load_folder(tmp_path)

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
