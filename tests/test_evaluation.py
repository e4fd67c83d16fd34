"""Figures of merit against values counted by hand."""

import pytest
import torch
from torch import nn

from vgg_course import evaluation
from vgg_course.data import Images, load_dataset
from vgg_course.evaluation import accuracy, confusion_matrix, mistakes, per_class_accuracy, predict

# Four images, three classes; predicted 0, 1, 1, 0.
LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 0.0], [0.0, 5.0, 0.0], [1.0, 0.0, 0.0]])
LABELS = torch.tensor([0, 1, 0, 1])


def test_accuracy():
    assert accuracy(LOGITS, LABELS) == 0.5


def test_per_class_accuracy():
    assert per_class_accuracy(LOGITS, LABELS).tolist() == pytest.approx([0.5, 0.5, float("nan")], nan_ok=True)


def test_confusion_matrix():
    assert confusion_matrix(LOGITS, LABELS).tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]


def test_mistakes_come_most_confident_first():
    found = mistakes(LOGITS, LABELS)
    assert found.index.tolist() == [2, 3]
    assert found.predicted.tolist() == [1, 0]
    assert found.confidence.tolist() == pytest.approx([0.98670, 0.57612], abs=1e-5)
    assert mistakes(LOGITS, LABELS, most=1).index.tolist() == [2]


def test_mistakes_and_accuracy_agree_where_a_softmax_rounds():
    small = torch.tensor(0.1)
    logits = torch.stack([small, torch.nextafter(small, torch.tensor(1.0))])[None]
    assert accuracy(logits, torch.tensor([1])) == 1 and len(mistakes(logits, torch.tensor([1])).index) == 0


def test_no_mistakes():
    assert mistakes(LOGITS, LOGITS.argmax(1)).index.tolist() == []


@pytest.mark.parametrize("function", [accuracy, per_class_accuracy, confusion_matrix, mistakes])
@pytest.mark.parametrize(
    ("logits", "labels"), [(LOGITS, LABELS[:3]), (LOGITS[0], LABELS), (LOGITS, LOGITS), (LOGITS[:0], LABELS[:0])]
)
def test_shapes_that_do_not_fit(function, logits, labels):
    with pytest.raises(ValueError, match=r"logits \(N, classes\) and labels \(N,\)"):
        function(logits, labels)


@pytest.mark.parametrize("function", [accuracy, per_class_accuracy, confusion_matrix, mistakes])
def test_labels_with_a_point_are_refused(function):
    with pytest.raises(TypeError, match=r"labels are whole numbers, not torch\.float32"):
        function(LOGITS, LABELS.float())


class TestPredict:
    @pytest.fixture
    def split(self) -> Images:
        return load_dataset("digits", verbose=False).test.subset(slice(0, 25))

    @pytest.fixture
    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(), nn.Linear(3600, 10))

    @pytest.mark.parametrize("training", [True, False])
    def test_the_same_as_one_forward_pass_in_eval_mode(self, model, split, training):
        model.train(training)
        before = model[1].running_mean.clone()
        logits = predict(model, split, batch_size=7)
        assert model.training is model[3].training is training
        assert torch.equal(model[1].running_mean, before)
        expected = model.eval()(split.normalize(split.images))
        assert torch.allclose(logits, expected, atol=1e-5)
        assert (logits.shape, logits.dtype, logits.requires_grad) == ((25, 10), torch.float32, False)

    def test_a_frozen_part_stays_in_eval_mode(self, model, split):
        model.train()[1].eval()
        predict(model, split)
        assert [part.training for part in model] == [True, False, True, True, True]

    @pytest.mark.parametrize(("side", "sizes"), [(8, [200] * 6), (32, [200] * 6), (64, [50] * 24)])
    def test_of_larger_images_it_takes_fewer_at_once(self, side, sizes):
        images = torch.zeros(1, 3, side, side, dtype=torch.uint8).expand(1200, -1, -1, -1)
        split = Images(images, torch.zeros(1200).long(), ("a", "b"), "large", (0.5,) * 3, (0.2,) * 3)
        taken, model = [], nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        model.register_forward_hook(lambda _, inputs, __: taken.append(len(inputs[0])))
        assert predict(model, split).shape == (1200, 3) and taken == sizes

    def test_the_mode_is_restored_after_an_error(self, split):
        model = nn.Sequential(nn.Linear(1, 1)).train()
        with pytest.raises(RuntimeError):
            predict(model, split)
        assert model.training

    def test_bfloat16(self, model, split):
        exact, rough = predict(model, split), predict(model, split, precision="bf16")
        assert not torch.equal(exact, rough)
        assert torch.allclose(exact, rough, atol=0.05)


def test_autocast_is_off_for_fp32():
    with evaluation.autocast("cpu", "fp32"):
        assert not torch.is_autocast_enabled("cpu")
