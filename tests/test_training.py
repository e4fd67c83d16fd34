"""fit against a loop written out by hand; what the tracker is told; a clean end; the same run on every machine."""

import math
import multiprocessing
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from vgg_course import training
from vgg_course.data import Dataset, batches, load_dataset
from vgg_course.evaluation import accuracy, predict
from vgg_course.training import FAST, QUICK, SCHEDULES, Recipe, fit
from vgg_course.vgg import VGG, make_layers

PLAIN = Recipe(epochs=2, batch_size=64, lr=0.05, precision="fp32", device="cpu")


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits", verbose=False)


@pytest.fixture
def small(digits):
    return Dataset(digits.train.subset(slice(0, 200)), digits.validation, digits.test, "digits")


def network(dropout: float = 0.5) -> VGG:
    torch.manual_seed(0)
    return VGG(make_layers([8, "M", 8, "M", 16, "M"]), num_classes=10, global_pool=True, hidden=(8,), dropout=dropout)


class TestFit:
    @pytest.mark.parametrize(
        "recipe",
        [
            PLAIN,
            replace(
                PLAIN, momentum=0.5, nesterov=True, weight_decay=0.01, label_smoothing=0.1, augmentation=True, seed=3
            ),
            replace(PLAIN, schedule="one_cycle", channels_last=False),
        ],
    )
    def test_it_is_the_loop_written_by_hand(self, small, recipe):
        model = network()
        history = fit(model, small, recipe, progress=False)

        by_hand, losses = network(), []
        format = torch.channels_last if recipe.channels_last else torch.contiguous_format
        by_hand.to(memory_format=format)
        optimizer = torch.optim.SGD(
            by_hand.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
        )
        torch.manual_seed(recipe.seed)
        for step in range(8):
            batch = batches(
                small.train,
                64,
                shuffle=True,
                augment=recipe.augmentation,
                seed=recipe.seed,
                epoch=step // 4,
                first_step=step % 4,
            )
            images, labels = next(batch)
            optimizer.param_groups[0]["lr"] = recipe.lr * SCHEDULES[recipe.schedule](step, 4, 2)
            loss = functional.cross_entropy(
                by_hand.train()(images.contiguous(memory_format=format)), labels, label_smoothing=recipe.label_smoothing
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append((loss.item(), len(labels)))
            if step == 3:
                first_epoch_score = accuracy(predict(by_hand, small.validation), small.validation.labels)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), by_hand.parameters(), strict=True))
        assert history.batch_loss == [loss for loss, _ in losses]
        assert history.train_loss[1] == pytest.approx(sum(loss * n for loss, n in losses[4:]) / 200)  # 64, 64, 64, 8
        assert history.validation_accuracy[0] == first_epoch_score
        logits = predict(model, small.validation)
        assert history.validation_loss[1] == pytest.approx(
            functional.cross_entropy(logits, small.validation.labels).item()
        )

    def test_the_history_is_complete(self, small):
        history = fit(network(), small, replace(PLAIN, schedule="one_cycle"), progress=False)
        per_epoch = (
            "train_loss",
            "validation_loss",
            "validation_accuracy",
            "learning_rate",
            "seconds",
            "images_per_second",
        )
        assert all(len(getattr(history, name)) == 2 for name in per_epoch)
        assert len(history.batch_loss) == len(history.batch_learning_rate) == 8 == 2 * history.steps_per_epoch
        assert history.learning_rate == history.batch_learning_rate[3::4]
        assert all(
            200 / rate <= seconds for rate, seconds in zip(history.images_per_second, history.seconds, strict=True)
        )
        assert not history.interrupted

    def test_the_same_seed_gives_the_same_run(self, small):
        runs = [
            fit(network(), small, replace(FAST, epochs=1, seed=seed, device="cpu"), progress=False)
            for seed in (0, 0, 1)
        ]
        assert runs[0].batch_loss == runs[1].batch_loss
        assert runs[0].batch_loss != runs[2].batch_loss

    def test_any_module_can_be_trained(self, small):
        model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
        history = fit(model, small, replace(PLAIN, lr=0.001, epochs=5), progress=False)
        assert history.train_loss[-1] < history.train_loss[0]

    @pytest.mark.parametrize("mode", [True, False])
    def test_the_mode_is_restored(self, small, mode):
        (model := network().train(mode)).features.train(not mode)  # frozen, say
        fit(model, small, PLAIN, progress=False)
        assert model.training is mode and model.features[0].training is not mode

    @pytest.mark.parametrize("precision", ["bf16", "fp16"])
    def test_short_numbers_learn_too(self, small, precision):
        """Steps as in fp32, so fp16's gradients, which are scaled up on their way, are scaled down again."""
        models = network(dropout=0), network(dropout=0)
        recipes = replace(PLAIN, precision=precision), PLAIN
        history, exact = (
            fit(model, small, recipe, progress=False) for model, recipe in zip(models, recipes, strict=True)
        )
        assert history.batch_loss != exact.batch_loss
        assert history.batch_loss == pytest.approx(exact.batch_loss, abs=0.05)
        start = network(dropout=0).state_dict()
        for name, value in models[1].state_dict().items():
            moved, wanted = models[0].state_dict()[name] - start[name], value - start[name]
            assert (moved - wanted).norm() <= 0.1 * wanted.norm(), name

    def test_quick_learns_the_digits(self, digits):
        torch.manual_seed(0)
        model = VGG(make_layers([16, "M", 32, "M", 64, "M"], batch_norm=True), 10, global_pool=True, hidden=())
        fit(model, digits, replace(QUICK, epochs=6, batch_size=50), progress=False)
        assert accuracy(predict(model, digits.test), digits.test.labels) > 0.9

    def test_the_bar_goes_to_stderr(self, small, capsys):
        fit(network(), small, PLAIN)
        captured = capsys.readouterr()
        assert captured.out == "" and "8/8" in captured.err
        assert "loss=" in captured.err and "validation accuracy" in captured.err

    def test_the_bar_says_why_a_processor_computes_in_fp32(self, small, capsys, monkeypatch):
        words = "fp32, as this processor has no instructions for bf16"
        for capabilities, said in (({}, True), ({"avx512_bf16": True}, False)):
            monkeypatch.setattr(torch.cpu, "get_capabilities", lambda c=capabilities: c, raising=False)
            fit(network(), small, replace(PLAIN, epochs=1, precision="auto"))
            assert (words in capsys.readouterr().err) is said
        fit(network(), small, replace(PLAIN, epochs=1))  # asked for: nothing to explain
        assert words not in capsys.readouterr().err

    def test_the_seconds_are_those_of_the_clock(self, small):
        started = time.perf_counter()
        history = fit(network(), small, PLAIN, progress=False)
        assert min(history.seconds) > 0 and sum(history.seconds) < time.perf_counter() - started

    @pytest.mark.parametrize(("channels_last", "mac"), [(True, False), (False, False), (True, True)])
    def test_the_memory_order_is_that_of_the_recipe(self, small, channels_last, mac, monkeypatch):
        for module in ("training", "data") if mac else ():  # never channels_last there
            monkeypatch.setattr(f"vgg_course.{module}.memory_format", lambda device: torch.contiguous_format)
        model, seen = network(), []
        model.register_forward_pre_hook(lambda module, x: seen.append(x[0]) if module.training else None)
        fit(model, small, replace(PLAIN, epochs=1, channels_last=channels_last), progress=False)
        for tensor in (*seen, model.features[3].weight):
            assert tensor.is_contiguous(memory_format=torch.channels_last) is (channels_last and not mac)
            assert tensor.is_contiguous() is (mac or not channels_last)

    def test_a_single_image_that_a_norm_refuses(self, small):
        model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10), nn.BatchNorm1d(10))
        with pytest.raises(ValueError, match="the last batch of 200 images has only one, and a batch norm needs more"):
            fit(model, small, replace(PLAIN, batch_size=1), progress=False)
        assert model.training  # as it was

    def test_fp16_may_leave_out_the_first_step(self, small):
        model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10), nn.Linear(10, 10))
        model[2].weight.data.mul_(1000)  # large gradients
        fit(model, small, replace(PLAIN, precision="fp16", lr=1e-6), progress=False)  # PyTorch does not warn of it


class TestTracker:
    def test_what_it_is_told(self, small):
        told = []
        history = fit(network(), small, PLAIN, lambda step, values: told.append((step, values)), progress=False)
        assert [step for step, values in told if "loss" in values] == list(range(8))
        assert [values["loss"] for _, values in told if "loss" in values] == history.batch_loss
        epochs = [(step, values) for step, values in told if "epoch" in values]
        assert [(step, values["epoch"]) for step, values in epochs] == [(3, 1), (7, 2)]
        assert epochs[1][1]["validation_accuracy"] == history.validation_accuracy[1]

    def test_on_the_cpu_it_is_told_before_the_next_step_begins(self, small):
        model, begun, told = network(), [], []
        model.register_forward_pre_hook(lambda module, _: begun.append(1) if module.training else None)
        fit(model, small, PLAIN, lambda step, values: told.append((step, len(begun))), progress=False)
        assert told == [(step, step + 1) for step in (0, 1, 2, 3, 3, 4, 5, 6, 7, 7)]  # after 3 and 7 an epoch as well

    def test_one_that_fails_is_dropped(self, small):
        calls = []

        def broken(step, values):
            calls.append(step)
            if step == 2:
                raise OSError("no server")

        with pytest.warns(UserWarning, match="the tracker failed .*no server.* goes on without it") as warned:
            history = fit(network(), small, PLAIN, broken, progress=False)
        assert len(warned) == 1
        assert calls == [0, 1, 2]
        assert history == replace(
            fit(network(), small, PLAIN, progress=False),
            seconds=history.seconds,
            images_per_second=history.images_per_second,
        )


class TestEarlyEnd:
    def test_ctrl_c_returns_the_history_so_far(self, small, capsys):
        def press(step, values):
            if step == 5:
                signal.raise_signal(signal.SIGINT)

        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores Ctrl-C
        history = fit(network(), small, replace(PLAIN, epochs=9), press, progress=False)
        signal.signal(signal.SIGINT, before)
        assert history.interrupted
        assert len(history.train_loss) == 1
        assert 5 <= len(history.batch_loss) <= 6
        assert capsys.readouterr().out.startswith("stopped by hand in epoch 2 of 9, after ")

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_loss_that_is_not_finite(self, small, value, capsys):
        class Breaks(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner, self.calls = network(), 0

            def forward(self, x):
                self.calls += 1
                return self.inner(x) * (value if self.calls == 4 else 1)  # the first is fit's trial

        with pytest.raises(FloatingPointError, match="at step 2, with learning rate 0.05: .*Try an lr below") as error:
            fit(Breaks(), small, PLAIN)
        assert len(error.value.history.batch_loss) == 3
        assert capsys.readouterr().err.endswith("\n")  # the bar is closed: what comes next begins a line

    def test_no_thread_is_left(self, small):
        before = threading.active_count()
        fit(network(), small, PLAIN)
        assert threading.active_count() <= before + 1  # tqdm keeps one monitor


def test_losses_are_read_in_groups_on_a_gpu(small, monkeypatch):
    """On a GPU no batch waits for its loss; what comes out is the same."""
    recipe = replace(PLAIN, batch_size=8)  # 25 batches an epoch
    expected = fit(network(), small, recipe, progress=False)
    steps, step = [], training._Learner.step

    class OnGpu:
        """The loss of a step; it notes after how many steps it is read."""

        device = torch.device("cuda")

        def __init__(self, loss):
            self.loss, self.made_in = loss, len(steps)
            steps.append(None)

        def item(self):
            steps[self.made_in] = len(steps)
            return self.loss.item()

    def as_on_a_gpu(self, images, labels):
        loss, learning_rate = step(self, images, labels)
        if interrupted and len(steps) == 31:
            raise KeyboardInterrupt
        return OnGpu(loss), learning_rate

    interrupted = False
    monkeypatch.setattr(training._Learner, "step", as_on_a_gpu)
    history = fit(network(), small, recipe, progress=False)
    assert (history.train_loss, history.batch_loss) == (expected.train_loss, expected.batch_loss)
    assert steps == 20 * [20] + 5 * [25] + 20 * [45] + 5 * [50]  # 20 at a time, and the rest when the epoch ends
    steps.clear()
    interrupted = True
    history = fit(network(), small, recipe, progress=False)
    assert history.interrupted and history.batch_loss == expected.batch_loss[:31]  # none is lost


class TestTheMachine:
    def test_the_same_seed_gives_the_same_run_twice(self, small):
        recipe = replace(FAST, epochs=2, batch_size=50, precision="fp32", device="cpu")
        runs = [(model := network(), fit(model, small, recipe, progress=False)) for _ in range(2)]
        first, second = (model.state_dict() for model, _ in runs)
        assert all(torch.equal(value, second[name]) for name, value in first.items())
        assert runs[0][1].batch_loss == runs[1][1].batch_loss

    def test_any_number_of_threads(self, small):
        """Sums are added in another order, so the last digits may differ: the curve is the same."""
        before, losses = torch.get_num_threads(), []
        try:
            for threads in (1, 2, 8):
                torch.set_num_threads(threads)
                losses.append(fit(network(dropout=0.0), small, PLAIN, progress=False).batch_loss)
        finally:
            torch.set_num_threads(before)
        assert losses[1] == pytest.approx(losses[0], abs=1e-4) and losses[2] == pytest.approx(losses[0], abs=1e-4)

    @pytest.mark.parametrize("way", [w for w in ("fork", "spawn") if w in multiprocessing.get_all_start_methods()])
    def test_in_a_process_of_its_own(self, small, way):
        """Fork is only safe before the parent has started threads for computing: it runs in a fresh process."""
        code = (
            "import multiprocessing, sys; sys.path[:0] = sys.argv[2:]\n"
            "from test_training import train_a_little\n"
            "if __name__ == '__main__':\n"
            "    worker = multiprocessing.get_context(sys.argv[1]).Process(target=train_a_little)\n"
            "    worker.start(); worker.join(120); sys.exit(worker.exitcode != 0)\n"
        )
        places = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
        script = Path(tempfile.mkdtemp()) / "script.py"
        try:
            script.write_text(code, encoding="utf-8")
            done = subprocess.run([sys.executable, script, way, *places], capture_output=True, text=True, timeout=150)
        finally:
            shutil.rmtree(script.parent)
        assert done.returncode == 0, done.stderr


def train_a_little() -> None:
    digits = load_dataset("digits", verbose=False)
    data = Dataset(digits.train.subset(slice(0, 100)), digits.validation, digits.test, "digits")
    assert len(fit(network(), data, replace(PLAIN, epochs=1), progress=False).train_loss) == 1
