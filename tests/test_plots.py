"""The figures: what is drawn (pixels, words, lines), and what is refused."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from vgg_course import plots
from vgg_course.training import History

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
CLASSES = ("cat", "dog", "frog")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 3, 8, 8), dtype=np.uint8))


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    return (pixels / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


class OnDevice(torch.Tensor):
    """Like a tensor on a GPU: NumPy cannot take it."""

    def __array__(self, *_):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def cpu(self):
        return self.as_subclass(torch.Tensor)


class TestToPixels:
    @pytest.mark.parametrize("change", [lambda x: x, lambda x: x / 255, normalised, lambda x: (x / 255).double()])
    @pytest.mark.parametrize("kind", [lambda x: x, lambda x: x.numpy(), lambda x: x.as_subclass(OnDevice)])
    def test_the_same_pixels_from_every_form(self, pixels, change, kind):
        expected = pixels.permute(0, 2, 3, 1).numpy()
        assert np.array_equal(plots.to_pixels(kind(change(pixels)), MEAN, STD), expected)

    def test_normalised_images_need_mean_and_std(self, pixels):
        with pytest.raises(ValueError, match="look normalised: give mean and std"):
            plots.to_pixels(normalised(pixels))

    @pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8), (1, 8, 8, 3)])
    def test_other_shapes(self, shape):
        with pytest.raises(ValueError, match=r"must have the shape \(N, 3, H, W\)"):
            plots.to_pixels(torch.zeros(shape))

    def test_gradients_do_not_matter(self, pixels):
        assert plots.to_pixels((pixels / 255).requires_grad_()).dtype == np.uint8


class TestImageGrid:
    def test_right_and_wrong_differ_by_more_than_colour(self, pixels):
        labels, predicted = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([0, 2, 2, 0, 1])
        figure = plots.image_grid(pixels, CLASSES, labels, predicted, torch.full((5,), 0.5))
        right, wrong = figure.axes[0], figure.axes[1]
        assert right.get_xlabel() == "✓ cat\n50%"
        assert wrong.get_xlabel() == "✗ frog\n50% (dog)"
        assert (right.spines["top"].get_visible(), wrong.spines["top"].get_visible()) == (False, True)
        assert np.array_equal(wrong.images[0].get_array(), pixels[1].permute(1, 2, 0))

    def test_names_alone(self, pixels):
        figure = plots.image_grid(pixels, CLASSES, [0, 1, 2, 0, 1], columns=2)
        assert len(figure.axes) == 6
        assert [axis.get_xlabel() for axis in figure.axes] == ["cat", "dog", "frog", "cat", "dog", ""]

    def test_predictions_without_labels_and_numbers_without_names(self, pixels):
        figure = plots.image_grid(pixels, predicted=[0, 1, 2, 0, 1])
        assert figure.axes[2].get_xlabel() == "2"

    def test_names_that_are_no_formulas(self, pixels):
        """Between two dollar signs matplotlib reads one, and this one has a mistake."""
        names = ("5$_$", "$", "a$b$")
        grid = plots.image_grid(pixels, names, [0, 1, 2, 0, 1], [1, 1, 2, 2, 0])
        for figure in (grid, plots.confusion(np.eye(3), names), plots.curves({names[0]: TestCurves.history})):
            figure.canvas.draw()

    def test_names_in_other_scripts(self, pixels, monkeypatch):
        """Where a font for them is installed, it is asked after matplotlib's own."""
        monkeypatch.setattr(plots.fontManager, "get_font_names", lambda: ["DejaVu Serif", "NanumGothic", "Arial"])
        label = plots.image_grid(pixels, ("고양이", "개", "c"), [0, 1, 2, 0, 1]).axes[0].xaxis.label
        assert label.get_fontfamily() == ["sans-serif", "NanumGothic"] and label.get_text() == "고양이"

    def test_images_alone(self, pixels):
        assert plots.image_grid(pixels).axes[0].get_xlabel() == ""

    def test_captions_do_not_touch(self):
        """Also with the longest names of CIFAR-10, eight in a row."""
        names, count = ("automobile", "airplane"), 16
        figure = plots.image_grid(torch.rand(count, 3, 8, 8), names, count * [1], count * [0], torch.ones(count))
        figure.canvas.draw()
        boxes = [axis.xaxis.label.get_window_extent() for axis in figure.axes]
        assert all(left.x1 <= right.x0 for left, right in pairwise(boxes[:8]))
        assert figure.get_size_inches()[0] == plots.WIDTH


class TestCurves:
    history = History(
        train_loss=[2.0, 1.5],
        validation_loss=[2.1, 1.7],
        validation_accuracy=[0.2, 0.4],
        learning_rate=[0.1, 0.05],
        seconds=[1.0, 1.0],
        images_per_second=[10.0, 10.0],
        batch_loss=[2.2, 1.8, 1.6, 1.4],
        batch_learning_rate=[0.1, 0.1, 0.05, 0.05],
    )

    def test_one_run(self):
        loss, score, rate = plots.curves(self.history).axes
        batches, train, validation = (line.get_ydata() for line in loss.lines)
        assert list(batches) == self.history.batch_loss
        assert list(loss.lines[0].get_xdata()) == [0.5, 1, 1.5, 2]
        assert (list(train), list(validation)) == (self.history.train_loss, self.history.validation_loss)
        assert list(score.lines[0].get_ydata()) == [20, 40]
        assert list(rate.lines[0].get_ydata()) == self.history.batch_learning_rate
        assert "epoch" in rate.get_xlabel()

    def test_several_runs_and_records(self):
        figure = plots.curves({"lecture": self.history, "ours": vars(self.history)})
        assert [text.get_text() for text in figure.axes[1].get_legend().texts] == ["lecture", "ours"]
        assert len(plots.curves(vars(self.history)).axes[0].lines) == 3
        loss, score, rate = figure.axes
        assert len({line.get_marker() for line in loss.lines if line.get_marker() != "None"}) == 4
        assert len({line.get_marker() for line in score.lines}) == 2  # also in grey the runs can be told apart
        assert len({line.get_linestyle() for line in rate.lines}) == 2

    def test_a_run_that_was_stopped_in_its_first_epoch(self):
        figure = plots.curves(History(batch_loss=[2.0, 1.9], batch_learning_rate=[0.1, 0.1], interrupted=True))
        assert len(figure.axes[0].lines[0].get_ydata()) == 2

    def test_a_run_that_was_stopped_within_an_epoch(self):
        """Its batches stay where they were: the marks of the whole epochs are not drawn too late."""
        longer = {
            name: values * 2 if name.startswith("batch") else values for name, values in vars(self.history).items()
        }
        longer |= {"steps_per_epoch": 3, "interrupted": True}
        for run in (longer, History(**longer)):
            loss, _, rate = plots.curves(run).axes
            assert loss.lines[0].get_xdata() == pytest.approx(np.arange(1, 9) / 3)
            assert list(loss.lines[1].get_xdata()) == [1, 2] and max(rate.lines[0].get_xdata()) == pytest.approx(8 / 3)


def test_confusion_in_percent_of_the_row():
    figure = plots.confusion(np.array([[8, 2, 0], [0, 0, 0], [1, 1, 198]]), CLASSES)
    shown = {(t.get_position()[1], t.get_position()[0]): t.get_text() for t in figure.axes[0].texts}
    assert shown == {(0, 0): "80", (0, 1): "20", (2, 2): "99"}  # no "0" for half a percent
    with pytest.raises(ValueError, match=r"3 classes need a matrix \(3, 3\), not \(2, 2\)"):
        plots.confusion(np.zeros((2, 2)), CLASSES)


def test_filters_are_grey_at_zero():
    weight = torch.zeros(5, 3, 3, 3)
    weight[1, 0, 0, 0] = 2
    figure = plots.filters(weight)
    assert (figure.axes[0].images[0].get_array() == 128).all()
    assert figure.axes[1].images[0].get_array()[0, 0].tolist() == [255, 128, 128]
    with pytest.raises(ValueError, match="filters of a first layer"):
        plots.filters(torch.zeros(5, 4, 3, 3))


@pytest.mark.parametrize("kind", [lambda x: x, lambda x: x.detach().numpy()])
def test_feature_maps(kind):
    maps = torch.arange(2 * 9.0, requires_grad=True).view(2, 3, 3)
    figure = plots.feature_maps(kind(maps), columns=3)
    assert len(figure.axes) == 3
    assert figure.axes[1].images[0].get_array().tolist() == maps[1].tolist()
    with pytest.raises(ValueError, match=r"\(C, H, W\)"):
        plots.feature_maps(torch.zeros(1, 2, 3, 3))


def test_each_returns_a_figure(pixels):
    assert all(isinstance(f, Figure) for f in (plots.image_grid(pixels), plots.confusion(np.eye(3), CLASSES)))
