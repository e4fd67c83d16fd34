"""Checkpoints that are damaged, malicious or of another run are refused, and kept; other machines, other drives."""

import errno
import hashlib
import inspect
import io
import os
import pickle
import re
import shutil
import stat
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vgg_course import checkpoint
from vgg_course.checkpoint import MAGIC, previous, read, write
from vgg_course.training import fit

sys.path.insert(0, str(Path(__file__).parent))  # for the next line, however pytest was asked to import
from resume_run import RECIPE, build, cut_off, stop


@pytest.fixture
def file(tmp_path):
    return tmp_path / "runs" / "a run.pt"


def test_a_folder_that_may_not_be_looked_into(monkeypatch, tmp_path, capsys):
    """Another user's, on a shared server: the training does without, as in a folder that takes no file."""
    is_dir = Path.is_dir

    def refuse(path):
        if path.name == "a.pt":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", refuse)
    model, data = build()
    fit(model, data, replace(RECIPE, epochs=1), checkpoint=tmp_path / "a.pt", progress=False)
    assert "no checkpoint can be written" in capsys.readouterr().out and not list(tmp_path.iterdir())


class Malice:
    def __reduce__(self):
        return (os.mkdir, ("malice",))


def sealed(content: bytes) -> bytes:
    return MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def saved(content: object) -> bytes:
    memory = io.BytesIO()
    torch.save(content, memory)
    return memory.getvalue()


def malicious() -> bytes:
    return sealed(saved({"model": Malice()}))


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda good: b"", "is empty"),
        (lambda good: good[: len(good) // 2], "is damaged"),
        (lambda good: good[:-1], "is damaged"),
        (lambda good: good[:500] + bytes([good[500] ^ 1]) + good[501:], "is damaged"),
        (lambda good: good[:30] + b"0" + good[31:] if good[30:31] != b"0" else good[:30] + b"1" + good[31:], "damaged"),
        (lambda good: good.replace(b"checkpoint 1", b"checkpoint 2", 1), "is of another version of this course"),
        (lambda good: good[:10], "is no checkpoint"),
        (lambda good: b"PNG" + good, "is no checkpoint"),
        (lambda good: pickle.dumps(Malice()), "is no checkpoint"),
        (lambda good: malicious(), "was not loaded"),
        (lambda good: sealed(pickle.dumps(Malice())), "was not loaded"),
        (lambda good: sealed(b"no archive at all"), "was not loaded"),
        (lambda good: sealed(saved([1, 2])), "something else than the state of a training"),
    ],
    ids=[
        "empty",
        "half",
        "last byte",
        "a bit",
        "hash",
        "another version",
        "magic cut",
        "foreign",
        "pickle",
        "malice",
        "malice 2",
        "noise",
        "a list",
    ],
)
def test_damaged_files_are_refused_and_kept(damage, word, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, data = build()
    fit(model, data, RECIPE, cut_off(24, stop), checkpoint=file, progress=False)
    bad = damage(file.read_bytes())
    file.write_bytes(bad)
    with pytest.raises(ValueError, match=word) as error:
        fit(*build(), RECIPE, checkpoint=file, progress=False)
    assert f"rename {previous(file)} to {file.name}" in str(error.value)
    assert file.read_bytes() == bad and not (tmp_path / "malice").exists()
    os.replace(previous(file), file)  # what it says, done
    assert len(fit(*build(), RECIPE, checkpoint=file, progress=False).train_loss) == 3


@pytest.mark.parametrize("cut_off", [False, True])
def test_a_file_that_was_deleted_is_not_gone_on_from(cut_off, file, capsys):
    """As the message about another run advises; the one before it stays until this run has written two."""
    fit(*build(), RECIPE, checkpoint=file, progress=False)
    if cut_off:  # killed while it wrote the next one
        file.with_name(f"{file.name}.tmp").write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"or delete the file\) to start anew"):
        fit(*build(), replace(RECIPE, lr=0.01), checkpoint=file, progress=False)
    file.unlink()
    capsys.readouterr()
    assert len(fit(*build(), replace(RECIPE, lr=0.01), checkpoint=file, progress=False).train_loss) == 3
    assert capsys.readouterr().out == (
        f"{file} is not there, so this run begins anew (rename {previous(file)} to a run.pt to go on from it)\n"
    )
    assert read(file)["recipe"]["lr"] == 0.01


def test_a_folder_that_is_not_there_is_told(file, capsys):
    """On Colab, perhaps, a Drive that was not mounted: the run begins anew, and its checkpoint is on no Drive."""
    fit(*build(), RECIPE, cut_off(24, stop), checkpoint=file, progress=False)
    told = f"a new folder for the checkpoint, so this run begins anew: {file.parent.resolve()}\n"
    assert capsys.readouterr().out.startswith(told)
    fit(*build(), RECIPE, checkpoint=file, progress=False)
    assert "new folder" not in capsys.readouterr().out


@pytest.mark.skipif(os.name != "posix", reason="Windows deletes no folder in which a file is open")
def test_a_folder_that_is_deleted_meanwhile_is_made_again(file, capsys):
    fit(*build(), RECIPE, cut_off(14, lambda: shutil.rmtree(file.parent)), checkpoint=file, progress=False)
    assert read(file)["epoch"] == RECIPE.epochs
    assert (
        f"the folder of the checkpoint was gone and is made again: {file.parent.resolve()}" in capsys.readouterr().out
    )


def test_a_checkpoint_of_another_run_is_refused_with_all_that_differs(file):
    model, data = build()
    fit(model, data, RECIPE, cut_off(14, stop), checkpoint=file, progress=False)
    good = file.read_bytes()
    other_data = replace(data, train=data.train.subset(slice(0, 299)))
    flipped = replace(data, train=replace(data.train, images=data.train.images.flip(3)))
    other_labels = replace(data, train=replace(data.train, labels=data.train.labels.flip(0)))
    other_validation = replace(data, validation=data.validation.subset(slice(0, 5)))
    brighter = replace(data, train=replace(data.train, mean=(0.5, 0.5, 0.5)))
    tanh, frozen = build()[0], build()[0]
    tanh.features[2] = nn.Tanh()
    frozen.features[0].weight.requires_grad_(False)
    wider = build()[0]
    wider.classifier[0], wider.classifier[3] = nn.Linear(16, 9), nn.Linear(9, 10)
    cases = [
        ((model, data, replace(RECIPE, lr=0.1, seed=4)), "lr was 0.12 and is 0.1; seed was 0 and is 4"),
        ((model, data, replace(RECIPE, epochs=2)), "epochs was 3 and is 2"),
        ((model, other_data, RECIPE), "data was 'digits, 300 images"),
        ((model, flipped, RECIPE), "data was 'digits, 300 images"),
        ((model, other_labels, RECIPE), "data was 'digits, 300 images"),
        ((model, other_validation, RECIPE), "data was 'digits, 300 images"),
        ((model, brighter, RECIPE), "mean of the images was"),
        ((tanh, data, RECIPE), "line 5 of the network was '(2): ReLU(inplace=True)' and is '(2): Tanh()'"),
        ((frozen, data, RECIPE), "features.0.weight was 'learning' and is 'frozen'"),
        ((wider, data, RECIPE), "classifier.0.weight was (8, 16) and is (9, 16)"),
        (
            (nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(192, 10)), data, RECIPE),
            "more layers differ",
        ),
    ]
    for (network, images, recipe), words in cases:
        with pytest.raises(ValueError, match=re.escape(words)) as error:
            fit(network, images, recipe, checkpoint=file, progress=False)
        assert "to start anew" in str(error.value)
    assert file.read_bytes() == good


def test_what_a_network_prints_of_the_memory_is_no_difference(file):
    class Printed(nn.Flatten):
        def extra_repr(self):
            return f"made by {object()}"

    for _ in range(2):
        network = nn.Sequential(Printed(), nn.Linear(3072, 10))
        history = fit(network, build()[1], replace(RECIPE, epochs=1, small_part=0.0), checkpoint=file, progress=False)
    assert len(history.train_loss) == 1


@pytest.mark.parametrize("words", ["affine=True, track", "affine=True, bias=True, track"])
def test_what_another_pytorch_prints_of_a_norm_is_no_difference(file, words):
    """Since 2026 it prints that a norm has a bias. A checkpoint may come from an older one, or from a newer one."""
    fit(*build(), RECIPE, cut_off(14, stop), checkpoint=file, progress=False)
    state = read(file)
    lines = {n: re.sub("affine=True,.* track", words, line) for n, line in state["network"]["prints"].items()}
    assert any(words in line for line in lines.values())
    write(file, state | {"network": state["network"] | {"prints": lines}})
    assert len(fit(*build(), RECIPE, checkpoint=file, progress=False).train_loss) == 3


def test_numbers_of_numpy_go_on_too(file):
    data = build()[1]
    data = replace(data, train=replace(data.train, mean=np.array([0.5, 0.5, 0.5]), std=np.array([0.2, 0.2, 0.2])))
    recipe = replace(RECIPE, lr=np.float64(0.1), weight_decay=np.float64(0.01), schedule=np.array(["linear"])[0])
    fit(build()[0], data, recipe, cut_off(14, stop), checkpoint=file, progress=False)
    assert len(fit(build()[0], data, recipe, checkpoint=file, progress=False).train_loss) == 3


def test_the_scale_of_fp16_goes_on(file):
    recipe = replace(RECIPE, precision="fp16")
    for at in (14, 16):
        model, data = build()
        fit(model, data, recipe, cut_off(at, stop), checkpoint=file, checkpoint_minutes=0, progress=False)
        state = read(file)
        if at == 14:
            write(file, state | {"scaler": state["scaler"] | {"scale": 8.0}})
    assert state["scaler"]["scale"] == 8.0


def test_every_second_image_is_a_run_too(file):
    data = build()[1]
    data = replace(data, train=data.train.subset(slice(None, None, 2)))
    assert len(fit(build()[0], data, RECIPE, checkpoint=file, progress=False).train_loss) == 3


def test_it_is_written_every_few_minutes(file, monkeypatch):
    """By a clock on which a step takes half a minute."""
    now, written = [0.0], []
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(checkpoint, "write", lambda file, state: written.append((state["epoch"], state["step"])))

    def half_a_minute(step, values):
        now[0] += 30 if "loss" in values else 0

    model, data = build()
    fit(model, data, RECIPE, half_a_minute, checkpoint=file, checkpoint_minutes=2, progress=False)
    assert written == [place for epoch in range(3) for place in ((epoch, 4), (epoch, 8), (epoch + 1, 0))]


def test_a_place_in_the_home_folder(tmp_path, monkeypatch):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    model, data = build()
    fit(model, data, RECIPE, cut_off(2, stop), checkpoint="~/runs/x.pt", checkpoint_minutes=0, progress=False)
    assert (tmp_path / "runs" / "x.pt").exists()


@pytest.mark.skipif(os.name != "posix", reason="folders are not written to the disk there")
def test_a_drive_that_takes_no_name_back(file, monkeypatch):
    """The good one is kept beside its place, and the new one tells the next run that nobody has deleted it."""
    file.parent.mkdir()
    write(file, {"number": 1})
    replace_ = os.replace

    def refuse(source, target):
        if Path(target) == file:
            raise OSError("no")
        replace_(source, target)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no"):
        patch.setattr(os, "replace", refuse)
        write(file, {"number": 2})
    assert read(previous(file)) == {"number": 1} and read(file.with_name(f"{file.name}.tmp")) == {"number": 2}


def test_a_drive_that_keeps_folders_to_itself(tmp_path, monkeypatch):
    real, folders = os.fsync, []

    def no_folders(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            folders.append(descriptor)
            raise OSError(errno.EINVAL, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", no_folders)
    for number in (1, 2):
        write(tmp_path / "a.pt", {"number": number})
    assert read(tmp_path / "a.pt") == {"number": 2} and read(previous(tmp_path / "a.pt")) == {"number": 1}
    for descriptor in folders:
        with pytest.raises(OSError):  # it was closed
            os.fstat(descriptor)
    assert len(folders) == 2


def test_the_generator_of_a_mac_is_kept(file, monkeypatch):
    """Its GPU is not here: stand-ins."""
    brought_back: list[int] = []
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: torch.tensor(7))
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda state: brought_back.append(int(state)))
    for at in (14, 16):
        model, data = build()
        fit(model, data, RECIPE, cut_off(at, stop), checkpoint=file, checkpoint_minutes=0, progress=False)
    assert brought_back == [7]
    state = read(file)
    del state["mps_rng"]  # a checkpoint of before
    write(file, state)
    assert len(fit(*build(), RECIPE, checkpoint=file, progress=False).train_loss) == 3 and brought_back == [7]


def test_without_a_word_it_is_written_every_five_minutes():
    assert inspect.signature(fit).parameters["checkpoint_minutes"].default == 5.0
