"""What the tests of the tracker share: servers where it looks for them, and nothing that stays."""

import threading

import pytest
from ports import PATIENT, free_port
from servers import WAIT, Visdom, eventually
from small_run import train

from vgg_course import live_page, own_server, tracking
from vgg_course.tracking import LossTracker


@pytest.fixture
def visdom_at(monkeypatch):
    """``visdom_at(port)`` makes the tracker look there."""

    def at(port: int) -> None:
        monkeypatch.setenv("VISDOM_SERVER", "http://localhost")
        monkeypatch.setenv("VISDOM_PORT", str(port))

    monkeypatch.delenv("VGG_COURSE_PLOT", raising=False)
    monkeypatch.setattr(tracking, "LONGEST", tracking.SHORTEST)  # only so that the tests take less time
    monkeypatch.setattr(live_page, "TIMEOUT", PATIENT)
    at(free_port())
    return at


@pytest.fixture
def impatient(monkeypatch):
    """Wait for an answer for half a second: again only to save time."""
    monkeypatch.setattr(live_page, "TIMEOUT", (0.5, 0.5))


@pytest.fixture(autouse=True)
def nothing_stays(visdom_at):
    """Every test ends its trackers: no thread and no child of ours may be left."""
    LossTracker._live.clear()  # of other tests
    yield
    for tracker in LossTracker._live.values():
        tracker.close()
    LossTracker._live.clear()
    eventually(lambda: not [t for t in threading.enumerate() if t.name == "LossTracker"])
    if own_server._own:
        own_server._own.stop()
        own_server._own = None


@pytest.fixture(scope="module")
def shared_visdom():
    server = Visdom()
    yield server
    server.stop()


@pytest.fixture
def all_is_drawn(monkeypatch):
    """A tracker that is closed waits as long as it takes until the server has everything, and not for 5 s."""
    monkeypatch.setattr(tracking, "LAST", WAIT)


@pytest.fixture
def visdom(shared_visdom, visdom_at, all_is_drawn):
    """A real visdom server where the tracker looks for one."""
    visdom_at(shared_visdom.port)
    return shared_visdom


@pytest.fixture
def mortal(visdom_at, all_is_drawn):
    """A real visdom server that a test may kill."""
    server = Visdom()
    visdom_at(server.port)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def alone():
    """The same training without a tracker."""
    return train()
