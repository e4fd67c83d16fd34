"""How the plots look: what tells the lines apart, on the page and in the picture, and words for those who hear it."""

import pytest
import torch
from matplotlib import pyplot as plt

from vgg_course import curves, live_page, visdom_server
from vgg_course.tracking import LossTracker


@pytest.fixture
def two_runs():
    """The plot of the losses: a run of two epochs, and another one behind it."""

    def run(level: float) -> dict[str, curves.Curve]:
        losses = {name: curves.Curve() for name in ("loss", "train_loss", "validation_loss")}
        for step in range(10):
            losses["loss"].add(step, level - step / 10)
        for name, worse in (("train_loss", 0.0), ("validation_loss", 0.2)):
            for step in (4, 9):
                losses[name].add(step, level - step / 10 + worse)
        return losses

    return curves.lines("loss", run(2.0), {"before": run(3.0)})


def test_on_the_page_the_lines_can_be_told_apart(two_runs):
    message = curves.plot_window("loss", *two_runs)
    assert message["layout"]["showlegend"] is True
    of_line = {line["name"]: line for line in message["data"]}
    own = [of_line[name] for name in ("training, each step", "training, mean of the epoch", "validation")]
    assert len({line["line"]["color"] for line in own}) == 3
    assert {line["line"]["dash"] for line in own} == {"solid"}
    training, validation = own[1:]
    assert training["marker"]["symbol"] != validation["marker"]["symbol"]  # in grey too
    other = of_line["before: training, mean of the epoch"]
    assert other["line"]["dash"] == "dot" and other["line"]["color"] not in {line["line"]["color"] for line in own}
    lone = curves.plot_window("learning rate", "step", [{**two_runs[1][0], "name": "learning rate"}])
    assert lone["layout"]["showlegend"] is False


def test_in_the_picture_too(two_runs, monkeypatch):
    monkeypatch.setattr(curves, "png", lambda figure: figure)
    (axes,) = curves.picture({"loss": two_runs}).axes
    named = [text.get_text() for text in axes.get_legend().get_texts()]
    assert named == [line["name"] for line in two_runs[1]]
    looks = [(line.get_color(), line.get_linestyle(), line.get_marker()) for line in axes.get_lines()]
    assert len(set(looks)) == len(looks) == 5


def test_the_curve_has_words_in_the_place_of_the_picture(monkeypatch):
    pytest.importorskip("IPython")
    shown = []

    class Place:
        def display(self, data, raw, metadata):
            shown.append(metadata)

        update = display

    monkeypatch.setattr("IPython.display.DisplayHandle", Place)
    monkeypatch.setattr(live_page, "notebook", lambda: type("Shell", (), {"get_parent": lambda self: {}})())
    frame = live_page.Frame(None)
    frame.show(b"png", "plot of 'a', last: loss 1.2")
    assert shown[-1] == {"image/png": {"alt": "plot of 'a', last: loss 1.2"}}


def test_the_first_batch_is_not_shown_a_second_time(monkeypatch):
    tracker = LossTracker("batch", mode="log")
    monkeypatch.setattr(tracker, "_page", object())
    monkeypatch.setattr(tracker, "_work", lambda: None)
    before = plt.get_fignums()
    tracker.images(torch.zeros(4, 3, 8, 8), torch.zeros(4).long())
    assert "first batch" in tracker._pictures and plt.get_fignums() == before


def test_no_link_to_a_company():
    hidden = [line for line in visdom_server.STYLE.splitlines() if ".js-plot-link-container" in line]
    assert len(hidden) == 1 and "display: none" in hidden[0]


def test_a_proxy_for_the_web_is_not_asked_for_this_machine(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    for server, trusted in (("http://localhost", False), ("http://127.0.0.1", False), ("http://plots.school", True)):
        assert live_page.Page(server, 8097, "", "a").session.trust_env is trusted
