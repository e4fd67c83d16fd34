"""Recipes that make no sense are refused; schedules against torch's; what "auto" stands for."""

import math
import sys
from dataclasses import FrozenInstanceError, asdict, replace

import numpy as np
import pytest
import torch
from torch import nn

from vgg_course import recipes
from vgg_course.training import LECTURE, SCHEDULES, Recipe
from vgg_course.vgg import VGG, cfg, make_layers

PLAIN = Recipe(epochs=2, batch_size=64, lr=0.05, precision="fp32", device="cpu")


class TestRecipe:
    def test_lecture_is_the_lectures(self):
        expected = {
            "epochs": 50,
            "batch_size": 512,
            "lr": 0.005,
            "momentum": 0.9,
            "nesterov": False,
            "weight_decay": 0.0,
        }
        rest = {"label_smoothing": 0.0, "augmentation": False, "seed": 777, "schedule": "step", "precision": "fp32"}
        assert {k: v for k, v in asdict(LECTURE).items() if k in expected | rest} == expected | rest

    def test_it_is_frozen(self):
        with pytest.raises(FrozenInstanceError):
            LECTURE.lr = 1

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("epochs", 0),
            ("epochs", 1.5),
            ("epochs", True),
            ("batch_size", 0),
            ("batch_size", "512"),
            ("lr", -0.1),
            ("lr", 0),
            ("lr", math.nan),
            ("lr", math.inf),
            ("lr", "0.1"),
            ("momentum", 1),
            ("momentum", -0.1),
            ("weight_decay", -1e-4),
            ("schedule", "cosine"),
            ("label_smoothing", 1),
            ("nesterov", 1),
            ("augmentation", "flip"),
            ("channels_last", None),
            ("precision", "fp8"),
            ("seed", -1),
            ("seed", 0.5),
            ("device", 0),
            ("device", "gpu"),
        ],
    )
    def test_nonsense_is_refused(self, name, value):
        with pytest.raises(ValueError, match=f"Recipe: {name} is {value!r}, but it must be"):
            replace(PLAIN, **{name: value})

    def test_nesterov_needs_momentum(self):
        with pytest.raises(ValueError, match="momentum is 0, but it must be above 0, because nesterov"):
            replace(PLAIN, momentum=0, nesterov=True)

    @pytest.mark.parametrize("device", ["cuda", "mps"])
    def test_a_device_that_is_not_there(self, device, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        with pytest.raises(ValueError, match=f"device is '{device}', but PyTorch sees no {device.upper()} here"):
            replace(PLAIN, device=device)

    def test_auto_takes_what_is_there(self, monkeypatch):
        auto = replace(PLAIN, device="auto", precision="auto")
        monkeypatch.setattr(recipes, "_computes", lambda device: True)
        for cuda, mps, device in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
            monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
            monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
            assert auto.resolve_device().type == device
        monkeypatch.undo()
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(
            torch.backends.mps, "is_available", lambda: True
        )  # on a virtual Mac: no tensor can be there
        works = sys.platform == "darwin" and recipes._computes("mps")
        assert auto.resolve_device().type == ("mps" if works else "cpu")
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
        assert auto.resolve_precision() == "fp32"
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
        assert auto.resolve_precision() == "bf16"
        monkeypatch.setattr(recipes, "_computes", lambda device: True)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        for native, precision in ((True, "bf16"), (False, "fp16")):
            monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, native=native: native)
            assert auto.resolve_precision() == precision

    @pytest.mark.parametrize(
        "error",
        [
            RuntimeError("CUDA error: no kernel image is available\nCUDA kernel errors might be reported later"),
            AssertionError("Torch not compiled with CUDA enabled"),
        ],
    )
    def test_a_card_that_pytorch_has_no_code_for(self, error, monkeypatch, capsys):
        """It says that it is there, and the first thing that it is to compute fails. That is told once."""

        def ones(*_, **__):
            raise error

        recipes._computes.cache_clear()
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        monkeypatch.setattr(torch, "ones", ones)
        assert [replace(PLAIN, device="auto").resolve_device().type for _ in range(2)] == ["cpu", "cpu"]
        recipes._computes.cache_clear()
        said = capsys.readouterr().out
        assert said.startswith("the GPU is not used, for it does not compute (") and said.count("\n") == 1, said

    def test_a_gpu_that_is_not_there(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        assert [replace(PLAIN, device=name).device for name in ("cuda", "cuda:1")] == ["cuda", "cuda:1"]
        with pytest.raises(ValueError, match="'cuda:2', but it must be one of the GPUs here, 'cuda:0' to 'cuda:1'"):
            replace(PLAIN, device="cuda:2")

    @pytest.mark.parametrize(("number", "kind"), [(np.int64(3), int), (np.float32(0.5), float), (np.float64(2), float)])
    def test_numpys_numbers_become_pythons(self, number, kind):
        made = replace(PLAIN, **{"epochs" if kind is int else "lr": number})
        assert type(made.epochs) is int and type(made.lr) is float
        with pytest.raises(ValueError, match="epochs is True, but it must be"):
            replace(PLAIN, epochs=np.bool_(True))


class TestSchedules:
    def test_step_is_torchs_step_lr(self):
        """Moved on once an epoch, as it is meant; and after every batch, as the lecture's post did."""
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1)
        for name, steps_per_epoch in (("step", 7), ("step_per_batch", 1)):
            torchs = torch.optim.lr_scheduler.StepLR(optimizer, step_size=5, gamma=0.9)
            optimizer.param_groups[0]["lr"] = 1
            for step in range(200):
                if step and step % steps_per_epoch == 0:
                    optimizer.step()
                    torchs.step()
                assert SCHEDULES[name](step, steps_per_epoch, 30) == pytest.approx(optimizer.param_groups[0]["lr"])

    def test_the_lectures_defect(self):
        """98 batches an epoch: 6.7e-4 after one epoch and 1.6e-7 after five."""
        rate = [LECTURE.lr * SCHEDULES["step_per_batch"](98 * epoch, 98, 50) for epoch in (1, 5)]
        assert rate == [pytest.approx(6.7e-4, rel=0.02), pytest.approx(1.8e-7, rel=0.2)]

    def test_one_cycle_rises_and_falls_to_almost_nothing(self):
        factors = [SCHEDULES["one_cycle"](step, 50, 4) for step in range(200)]
        assert max(range(200), key=factors.__getitem__) in (39, 40)
        assert factors[:40] == sorted(factors[:40])
        assert factors[40:] == sorted(factors[40:], reverse=True)
        assert 0 < factors[-1] < factors[0] < 0.02


def test_networks_of_the_recipes_fit_cifar10():
    for name in ("quick", "fast"):
        model = VGG(make_layers(cfg[name], batch_norm=True), num_classes=10, global_pool=True, hidden=())
        assert model.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
