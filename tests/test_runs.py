"""Named runs: trained from the shell, recorded, kept as weights, and read again."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vgg_course import checkpoint, runs
from vgg_course.data import load_dataset
from vgg_course.evaluation import accuracy, predict
from vgg_course.runs import RUNS, Run, load_record, load_trained, main, save_weights
from vgg_course.training import QUICK

FIELDS = {"dataset", "recipe", "seed", "seconds", "test_accuracy", "machine", "torch", "command", "history"}
COMPARED = {"ablations": "variants", "eight_curves": "curves"}  # written by benchmarks/: where their runs are
TINY = Run(replace(QUICK, epochs=1, batch_size=200), [4, "M", 8, "M"])


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    monkeypatch.setitem(RUNS, "tiny", TINY)
    monkeypatch.setattr(runs, "RECORDS", tmp_path)
    monkeypatch.setattr(runs, "WEIGHTS", tmp_path)
    return tmp_path


def test_train_record_and_weights(tiny, capsys):
    main(["tiny", "--dataset", "digits", "--seed", "3", "--weights", str(tiny / "tiny.pt")])
    record = load_record("tiny")
    assert record.keys() >= FIELDS
    assert (record["dataset"], record["seed"], record["recipe"]["seed"]) == ("digits", 3, 3)
    assert record["command"] == "python -m vgg_course.runs tiny --dataset digits --set seed=3"
    assert len(record["history"]["batch_loss"]) == 7
    assert str(tiny / "tiny.json") in capsys.readouterr().out

    test = load_dataset("digits", verbose=False).test
    model = load_trained("tiny")
    assert not model.training
    assert accuracy(predict(model, test), test.labels) == pytest.approx(record["test_accuracy"], abs=0.02)


def test_any_setting_of_the_recipe_from_the_shell(tiny, capsys):
    main(["tiny", "--dataset", "digits", "--set", "precision=bf16", "--set", "lr=0.1", "--set", "channels_last=False"])
    recipe = load_record("tiny")["recipe"]
    assert (recipe["precision"], recipe["lr"], recipe["channels_last"]) == ("bf16", 0.1, False)
    assert "tiny: epoch 1, train_loss" in capsys.readouterr().out  # the plot of a script: a line for each epoch
    main(load_record("tiny")["command"].split()[3:])  # what the record names can be run again
    assert load_record("tiny")["recipe"] == recipe


def test_weights_are_kept_in_half_precision(tiny):
    model = TINY.build()
    for parameter in model.parameters():
        parameter.data.normal_()
    save_weights(model, TINY, tiny / "tiny.pt")
    saved = torch.load(tiny / "tiny.pt", weights_only=True)["state_dict"]
    assert all(v.dtype == torch.float16 for k, v in saved.items() if "num_batches" not in k)
    loaded = load_trained("tiny").state_dict()
    assert all(torch.equal(v, model.state_dict()[k].half().to(v.dtype)) for k, v in loaded.items())


def test_the_same_seed_builds_the_same_network():
    first, second = (TINY.build().state_dict() for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_identity_filters_when_asked_for():
    plain, identity = TINY.build(), replace(TINY, identity=True).build()
    x = torch.rand(1, 4, 6, 6)
    second = [next(m for m in model.features[1:] if isinstance(m, torch.nn.Conv2d)) for model in (plain, identity)]
    passed = [torch.allclose(layer(x)[:, :4], x + layer.bias[:4, None, None], atol=1e-6) for layer in second]
    assert passed == [False, True]


def test_a_settled_run_learns_from_validation_images_too():
    data = load_dataset("digits", verbose=False)
    split = replace(TINY, validation=7).split(data)
    everything = len(data.train) + len(data.validation)
    assert (len(split.validation), len(split.train)) == (7, everything - 7)
    assert split.test is data.test
    assert TINY.split(data) is data
    assert replace(TINY, validation=100_000).split(data) is data


@pytest.mark.parametrize("record", ["tiny", "second [1].2"])
def test_a_run_that_is_stopped_goes_on_with_the_same_command(record, tiny, monkeypatch, capsys):
    """From its checkpoint, which is beside its record: another run's record is beside another checkpoint."""
    command, fit = ["tiny", "--dataset", "digits", "--weights", str(tiny / "tiny.pt")], runs.fit
    file = tiny / f"{record}.json"
    command += ["--record", str(file)] if record != "tiny" else []

    def press(step, values):
        if step == 3:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as stopped:
        stopped.setattr(runs, "fit", lambda model, data, recipe, _, **more: fit(model, data, recipe, press, **more))
        with pytest.raises(SystemExit) as end:
            main(command)
    assert end.value.code == 1
    assert "the same command goes on" in capsys.readouterr().err
    assert not file.exists() and not (tiny / "tiny.pt").exists()
    assert (tiny / f"{record}.checkpoint").exists() and len(list(tiny.glob("*.checkpoint"))) == 1
    mine = tiny / f"{record}.checkpoint of yesterday"
    mine.touch()
    main(command)
    assert "epoch 1, step 4" in capsys.readouterr().out
    assert {path.name for path in tiny.iterdir()} == {file.name, "tiny.pt", mine.name}
    written = json.loads(file.read_text(encoding="utf-8"))
    assert len(written["history"]["batch_loss"]) == 7 and written["seconds"] > 0


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "tiny.json"
    runs.write_whole(file, b"the old one")

    def half(file, content):
        with open(file, "wb") as stream:
            stream.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="No space left"):
        runs.write_whole(file, b"the new one")
    with pytest.raises(OSError, match="No space left"):
        save_weights(TINY.build(), TINY, file)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.json"] and file.read_bytes() == b"the old one"


def test_a_record_that_cannot_be_written_costs_no_run(tiny, capsys, monkeypatch):
    def full(file, content):
        if file.suffix == ".json":
            raise OSError(28, "No space left on device")
        write(file, content)

    write = runs.write_whole
    command = ["tiny", "--dataset", "digits", "--weights", str(tiny / "tiny.pt")]
    with monkeypatch.context() as disk, pytest.raises(SystemExit) as end:
        disk.setattr(runs, "write_whole", full)
        main(command)
    told = capsys.readouterr().err
    assert end.value.code == 1 and f"the run is kept in {tiny / 'tiny.checkpoint'}" in told
    assert (tiny / "tiny.pt").exists()
    main(command)
    assert "tiny.checkpoint holds the whole run: there is nothing left to learn" in capsys.readouterr().out
    assert sorted(path.name for path in tiny.iterdir()) == ["tiny.json", "tiny.pt"]


def test_where_the_results_go_is_settled_before_the_training(tiny, monkeypatch, capsys):
    (tiny / "file").touch()
    with monkeypatch.context() as untrained:
        untrained.setattr(runs, "train", lambda *_: pytest.fail("it trains"))
        for option in ("--record", "--weights"):
            with pytest.raises(SystemExit) as end:
                main(["tiny", "--dataset", "digits", option, str(tiny / "file" / "x")])
            named = repr(str(tiny / "file"))[1:-1]  # OSError doubles the \\ of Windows
            assert end.value.code == 1 and named in capsys.readouterr().err
            with pytest.raises(SystemExit, match="1"):
                main(["tiny", "--dataset", "digits", option, str(tiny)])
            assert f"{tiny} is a folder: give the name of a file in it" in capsys.readouterr().err
        with pytest.raises(SystemExit, match="1"):
            main(["tiny", "--dataset", "digits", "--record", str(tiny / (300 * "x"))])
        if sys.platform == "linux":  # a folder that is there, and takes no file
            with pytest.raises(SystemExit, match="1"):
                main(["tiny", "--dataset", "digits", "--record", "/proc/x.json"])
    main(["tiny", "--dataset", "digits", "--record", str(tiny / "new" / "x.json")])
    assert json.loads((tiny / "new" / "x.json").read_text(encoding="utf-8")).keys() >= FIELDS


def test_a_loss_that_is_not_finite_is_one_line_in_the_shell(tiny, monkeypatch, capsys):
    def fails(*_, **__):
        raise FloatingPointError("the loss is nan at step 3")

    monkeypatch.setattr(runs, "fit", fails)
    with pytest.raises(SystemExit, match="1"):
        main(["tiny", "--dataset", "digits"])
    assert capsys.readouterr().err == "the loss is nan at step 3\n"


def test_another_seed_builds_another_network():
    first, second = (replace(TINY, recipe=replace(TINY.recipe, seed=s)).build().features[0].weight for s in (0, 1))
    assert not torch.equal(first, second)


def test_a_first_layer_of_patches_is_whitened_for_the_training_images():
    """Of the strongest direction comes variance 1; and the layer is not to learn."""
    train = load_dataset("digits", verbose=False).train
    model = RUNS["quick"].build(train=train)
    first = model.features[0]
    shown = first(train.normalize(train.images[:500]))[:, 0]
    assert shown.square().mean().item() == pytest.approx(1, rel=0.05) and not first.weight.requires_grad
    assert RUNS["quick"].build().features[0].weight.requires_grad


def test_a_run_whitens_its_first_layer_and_is_tested_on_its_views(tiny, monkeypatch):
    monkeypatch.setitem(RUNS, "tiny", replace(RUNS["quick"], cfg=[4, "M", 8, "M"], recipe=TINY.recipe, views=2))
    model, record = runs.train("tiny", "digits")
    assert not model.features[0].weight.requires_grad
    test = load_dataset("digits", verbose=False).test
    precision = record["precision"]
    expected = predict(model, test, precision=precision, views=2)
    assert record["views"] == 2 and record["test_accuracy"] == round(accuracy(expected, test.labels), 4)
    assert not torch.allclose(expected, predict(model, test, precision=precision))


def test_the_seconds_of_a_run_that_was_cut_off_are_those_of_all_its_parts(tiny):
    def ctrl_c(step, values):
        if step == 3:
            signal.raise_signal(signal.SIGINT)

    file = tiny / "cut.pt"
    record = runs.train("tiny", "digits", ctrl_c, file, epochs=2)[1]
    assert record["history"]["interrupted"] and record["test_accuracy"] is None  # the test is for the end
    saved = checkpoint.read(file)
    saved["log"]["spent"] += 1000.0  # the first part took long
    checkpoint.write(file, saved)
    assert runs.train("tiny", "digits", None, file, epochs=2)[1]["seconds"] > 1000


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="a device of POSIX systems")
def test_what_is_no_file_is_written_to_and_not_replaced():
    with open("/dev/null", "rb") as device:
        runs.write_whole(Path("/dev/null"), b"1")
        assert Path("/dev/null").is_char_device() and os.path.samestat(os.fstat(device.fileno()), os.stat("/dev/null"))


def test_the_record_counts_the_images_that_were_learned_from(tiny, monkeypatch):
    for validation, count in ((30, 1257 + 180 - 30), (5000, 1257)):
        monkeypatch.setitem(RUNS, "tiny", replace(TINY, validation=validation))
        assert runs.train("tiny", "digits")[1]["training_images"] == count


def test_of_several_processes_the_first_alone_records(tiny, monkeypatch, capsys):
    monkeypatch.setattr(runs, "is_first", lambda: False)
    main(["tiny", "--dataset", "digits", "--weights", str(tiny / "tiny.pt")])
    assert capsys.readouterr().out == "" and not {"tiny.json", "tiny.pt"} & {path.name for path in tiny.iterdir()}


def test_the_processor_has_a_name_on_every_system(monkeypatch, tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(runs, "Path", lambda name: cpuinfo)  # which is not there yet
    named = runs.platform.processor() or runs.platform.machine()
    assert named and runs._processor() == named
    cpuinfo.write_text("flags : fpu\nmodel name\t: A Fast One @ 2 GHz\n", encoding="utf-8")
    assert runs._processor() == "A Fast One @ 2 GHz"
    cpuinfo.write_text("Hardware : of another kind\n", encoding="utf-8")
    assert runs._processor() == named


def test_it_is_a_command():
    done = subprocess.run([sys.executable, "-m", "vgg_course.runs", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "python -m vgg_course.runs" in done.stdout and "quick" in done.stdout


def test_mistakes_on_the_command_line(tiny, capsys):
    with pytest.raises(SystemExit) as end:
        main(["tiny", "--dataset", "digits", "--epochs", "0"])
    assert end.value.code == 1
    assert "epochs is 0" in capsys.readouterr().err
    for wrong in ("epochs", "speed=3"):
        with pytest.raises(SystemExit):
            main(["tiny", "--dataset", "digits", "--set", wrong])
        assert f"--set {wrong}: give a setting" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no run 'fst': choose one of lecture"):
        runs.train("fst")


def test_names_that_are_not_there(tiny):
    (tiny / "one.json").write_text("{}", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=r"no record two.json; there are: one"):
        load_record("two")
    with pytest.raises(FileNotFoundError, match=r"no weights two.pt"):
        load_trained("two")


@pytest.mark.parametrize("file", sorted(runs.CHECKOUT_RECORDS.glob("*.json")), ids=lambda f: f.stem)
def test_every_record_is_complete(file):
    record = json.loads(file.read_text(encoding="utf-8"))
    if file.stem in COMPARED:  # several runs in one file
        assert record.keys() >= {"dataset", "recipe", "machine", "torch", "command", COMPARED[file.stem]}
        assert f"data/runs/{file.name}" in record["command"]
        return
    assert record.keys() >= FIELDS
    history = record["history"]
    assert len(history["train_loss"]) == record["recipe"]["epochs"]
    assert len(history["batch_loss"]) % len(history["train_loss"]) == 0
    assert file.name in ("README.md", f"{record['name']}.json") or record["name"] in file.name


def test_the_comparisons_for_notebook_03():
    """Each variant with each seed, to the end; eight curves, the healthy one between those that fail."""
    record = load_record("ablations")
    assert len(record["variants"]) == 2**3  # each of three with and without
    for variant in record["variants"].values():
        assert len(variant) == len(record["seeds"]) == 3
        for run in variant:
            by_epoch = (run[name] for name in ("train_loss", "validation_loss", "validation_accuracy_by_epoch"))
            assert {len(values) for values in by_epoch} == {record["recipe"]["epochs"]}
            assert 0.1 < run["test_accuracy"] < run["train_accuracy"] <= 1
    record = load_record("eight_curves")
    assert list(record["curves"]) == list("abcdefgh")
    for curve in record["curves"].values():
        steps = record["recipe"]["steps"]
        assert len(curve["batch_loss"]) == steps == record["recipe"]["look_every"] * len(curve["validation_loss"])


@pytest.mark.parametrize("file", sorted(runs.WEIGHTS.glob("*.pt")), ids=lambda f: f.stem)
def test_shipped_weights(file):
    """They load and give finite logits; on CIFAR-10, where it is there, the accuracy of their record."""
    model = load_trained(file.stem)
    assert model(torch.zeros(1, 3, 32, 32)).isfinite().all()
    root = runs.PACKAGE.parent / "data"
    if not any((root / name).is_dir() for name in ("cifar10", "cifar10-images", "cifar-10-batches-py")):
        pytest.skip("CIFAR-10 is not in data/")
    test = load_dataset("cifar10", root, verbose=False).test
    record = load_record(file.stem)
    score = accuracy(predict(model, test, precision=QUICK.resolve_precision(), views=record["views"]), test.labels)
    assert score == pytest.approx(record["test_accuracy"], abs=0.003)


@pytest.mark.parametrize("name", sorted(file.stem for file in runs.WEIGHTS.glob("*.pt")))
def test_the_model_card_says_what_was_recorded(name):
    rows = [
        line.split("|")[1:-1]
        for line in (runs.WEIGHTS / "README.md").read_text(encoding="utf-8").splitlines()
        if "|" in line
    ]
    column = [cell.strip() for cell in rows[0]].index(f"`{name}.pt`")
    card, record = " ".join(row[column] for row in rows), load_record(name)
    views = {1: "one view", 2: "two views", 6: "six views"}[record["views"]]
    assert f"{record['test_accuracy']:.2%}".replace("%", " %") in card and views in card
    assert f"seed {record['seed']}" in card
    assert f"{record['training_images']:,} of its training images" in (runs.WEIGHTS / "README.md").read_text(
        encoding="utf-8"
    )


def test_shipped_weights_are_small():
    assert sum(file.stat().st_size for file in runs.WEIGHTS.glob("*.pt")) < 6e6
