"""What fit tries before it begins, and what happens where a run breaks in its very last step."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from vgg_course import runs, trial
from vgg_course.data import load_dataset
from vgg_course.training import FAST, Recipe, fit
from vgg_course.vgg import VGG, make_layers

DIGITS = load_dataset("digits", verbose=False)
PLAIN = Recipe(epochs=1, batch_size=8, lr=0.1, precision="fp32", device="cpu")


def first(count):
    return replace(DIGITS, train=DIGITS.train.subset(slice(0, count)))


def net(*cfg):
    return VGG(make_layers(list(cfg), batch_norm=True), 10, global_pool=True, hidden=())


def test_it_changes_nothing():
    """The last batch would be a single image, so that is tried in train mode, on a copy."""
    model = net(4, "M", 8, "M")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trial.check(model, first(41), PLAIN, None)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("small_part", "refused"), [(0.0, False), (0.1, False), (0.5, True), (1.0, True)])
def test_a_last_batch_of_one_small_image(small_part, refused):
    """Of 32 pixels the last norm sees four, of 24 a single one: it matters whether that batch is a small one."""
    model = net(4, "M", 4, "M", 8, "M", 8, "M", 8)
    recipe = replace(FAST, epochs=2, batch_size=32, small_part=small_part, precision="fp32", device="cpu")
    if refused:
        with pytest.raises(ValueError, match="the last batch of 65 images has only one, and a batch norm"):
            fit(model, first(65), recipe, progress=False)
    else:
        assert len(fit(model, first(65), recipe, progress=False).train_loss) == 2


def test_a_last_batch_of_one_image_for_a_process(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="the last batch of 67 images has only one for a process, and a batch norm"):
        fit(net(*["M"] * 5, 4), first(67), replace(PLAIN, batch_size=32), progress=False)


def test_a_network_with_more_answers_while_it_trains():
    """As torchvision's GoogLeNet has: in eval() it gives logits, so that only the first step can tell."""

    class Two(nn.Sequential):
        def forward(self, images):
            logits = super().forward(images)
            return (logits, logits) if self.training else logits

    with pytest.raises(TypeError, match=r"in train\(\) the model gives a tuple, not logits: .* aux_logits=False"):
        fit(Two(nn.Flatten(), nn.Linear(3072, 10)), first(16), PLAIN, progress=False)


def test_a_run_that_breaks_in_its_last_step_is_right_nowhere():
    """The loss of that step was still a number; what the step has made of the weights shows in the validation."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    history = fit(model, first(100), replace(PLAIN, batch_size=100, lr=1e38), progress=False)
    assert history.validation_accuracy == [0.0] and not torch.tensor(history.validation_loss).isfinite().any()


@pytest.mark.parametrize("error, name", [(torch.OutOfMemoryError, "CUDA"), (RuntimeError, "MPS backend")])
def test_batches_that_a_gpu_cannot_hold_are_one_line(error, name, monkeypatch, capsys, tmp_path):
    def too_large(*_, **__):
        raise error(f"{name} out of memory. Tried to allocate 20.00 GiB. GPU 0 has ...")

    monkeypatch.setattr(runs, "fit", too_large)
    with pytest.raises(SystemExit):
        runs.main(["digits", "--dataset", "digits", "--record", str(tmp_path / "digits.json")])
    assert f"memory is too small ({name} out of memory): take a smaller batch_size" in capsys.readouterr().err


def test_nothing_learns_in_inference_mode():
    with torch.inference_mode(), pytest.raises(ValueError, match="call fit outside of it"):
        fit(net(4, "M", 8), first(40), PLAIN)


def test_an_older_pytorch_and_a_cell_that_switched_gradients_off(monkeypatch, capsys):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)  # it came in 2026
    with torch.no_grad():
        fit(net(4, "M", 8), first(40), replace(PLAIN, precision="auto"))
    said = capsys.readouterr().err
    assert "does not tell whether this processor has instructions for bf16" in said
