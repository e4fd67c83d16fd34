"""A live plot of the loss that no server can break, and that cannot break the training.

``tracker = LossTracker("quick")`` is called after every step: ``tracker(step, {"loss": 0.7})``. The call only puts
the point into a queue. A thread of its own collects the points into curves and draws them: on a visdom page, or in
the notebook. What it sends is always a whole window, never a piece of a curve. So it does not matter what a server
remembers: one that was killed, or that comes late, has the whole curve after the next message, and no point twice.
"""

import atexit
import contextlib
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from vgg_course import curves, live_page
from vgg_course.curves import WINDOW_OF, Curve
from vgg_course.plots import image_grid

SHORTEST, LONGEST = 0.5, 5.0  # seconds between two drawings
LAST = 5.0  # seconds for the last one
BEGUN_AGAIN = "{} came again, so the curves begin anew (if that was only a new epoch: count the steps on)"
QUEUE_LIMIT = 1_000  # points; beyond it the thread that trains sorts them into the curves itself


class LossTracker:
    """Draws the numbers of a training run while it goes on: ``tracker(step, {"loss": 0.7, "learning_rate": 0.1})``.

    ``run`` names the run: its page is the environment ``vgg_course/<run>`` of a visdom server, apart from all others.
    A new tracker of the same name, in this process or this notebook, replaces the plot; so does a run that begins again
    at its first step. It draws in one of three ways, and says in one line which and why:

    1. on the page of a visdom server, if one answers at ``VISDOM_SERVER`` and ``VISDOM_PORT``;
    2. otherwise, in a notebook, on the page of a server of its own, which ends with the notebook's kernel;
    3. where that cannot be, as a curve below the cell; in a script as a line of text for each epoch.

    ``mode``, or else ``VGG_COURSE_PLOT``, asks for one way: "auto", "visdom", "inline", "log" or "off".
    Raises ``ValueError`` for another word; never because of a server.
    """

    _live: dict[str, "LossTracker"] = {}  # noqa: RUF012 (the trackers of this process, by run)

    def __init__(self, run: str = "run", mode: str | None = None) -> None:
        source, mode = "mode" if mode else "VGG_COURSE_PLOT", mode or os.environ.get("VGG_COURSE_PLOT") or "auto"
        if mode not in ("auto", "visdom", "inline", "log", "off"):
            raise ValueError(f"{source} is {mode!r}, but it must be auto, visdom, inline, log or off")
        self.run, self._mode, self._pid, self._token = str(run), mode, os.getpid(), live_page.window_token()
        self._curves: dict[str, Curve] = {}
        self._others: dict[str, Mapping[str, Curve]] = {}
        self._pictures: dict[str, dict[str, Any]] = {}  # windows that show no curves
        self._queue: deque[tuple[int, dict[str, float | torch.Tensor]]] = deque()
        self._notes: deque[str] = deque()  # printed by the thread that trains, so that they stand below its cell
        self._changed: set[str] = set()  # windows to draw
        self._sent: dict[str, str] = {}  # the windows that the server has had, with their names there
        self._stale: list[str] = []  # names of windows of the run that this one replaces
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None  # that draws
        self._lost, self._look_at, self._look_pause, self._begun_again = False, time.monotonic() + 2, 2.0, False
        self._steps, self._failed = False, False  # values of single steps have come; the thread that draws has failed
        if (old := LossTracker._live.get(self.run)) and old._pid == self._pid:
            old.close(final=False)
            self._stale = [*old._stale, *old._sent.values()]
        LossTracker._live[self.run] = self
        way, self._page, why = live_page.choose(self.run, mode)
        self._log, place = way == "log", {"inline": "below the cell", "log": "a line for each epoch", "off": "off"}
        print(f"plot of {self.run!r}: {place[way] if self._page is None else self._page.url} ({why})")
        self._frame = live_page.Frame(self._page) if live_page.notebook() and way in ("page", "inline") else None

    def __call__(self, step: int, values: Mapping[str, object]) -> None:
        """Take the values of a step: numbers or tensors of one element, on any device; ``None`` is left out.

        Values at the end of an epoch come with ``"epoch"`` among them. Never waits for a server. Raises
        ``ValueError`` for a tensor of several elements; does nothing in a fork of the process that made the tracker.
        """
        if os.getpid() != self._pid:
            return
        if self._mode == "off":
            return self._print_notes()
        if not isinstance(values, Mapping):
            raise TypeError(f"values are a dict such as {{'loss': 0.7}}, not {values!r:.60}")
        numbers = {str(name): curves.number(name, value) for name, value in values.items() if value is not None}
        if "epoch" in numbers:
            numbers["epoch"] = curves.whole("epoch", numbers["epoch"])
        self._queue.append((curves.whole("step", step), numbers))
        if self._failed or len(self._queue) > QUEUE_LIMIT:  # the drawing thread has ended, or is stuck in a message
            self._absorb_here()
        if self._log and "epoch" in numbers:
            self._notes.append(f"{self.run}: " + ", ".join(f"{k} {float(v):.4g}" for k, v in numbers.items()))
        self._work()

    def _work(self) -> None:
        """What the thread that trains does at every call: start the thread that draws, print notes, move the frame."""
        if self._thread is None:
            self._stop, self._failed = threading.Event(), False
            self._thread = threading.Thread(target=self._draw_on, args=(self._stop,), name="LossTracker", daemon=True)
            self._thread.start()
        if self._frame:
            self._frame.follow()
        self._print_notes()

    def _absorb(self) -> bool:
        """Move the points from the queue into the curves. Whether there were any."""
        with self._lock:
            any_new = bool(self._queue)
            while self._queue:
                step, values = self._queue.popleft()
                self._steps |= "epoch" not in values
                epoch = int(values.get("epoch", step))
                points = {n: epoch if WINDOW_OF.get(n) == "accuracy" else step for n in values if n != "epoch"}
                # Epochs may begin anew where steps go on: they tell of a new run only where nothing else does.
                if "epoch" not in values or not self._steps:
                    self._begin_anew_where_it_did(points)
                for name, x in points.items():
                    self._curves.setdefault(name, Curve()).add(x, float(values[name]))
                    self._changed.add(window := WINDOW_OF.get(name, name))
                    if window in self._pictures:  # a picture that was there before the first value of its name
                        self._pictures[f"{window} (picture)"] = self._pictures.pop(window)
                        self._changed.add(f"{window} (picture)")
                        self._stale += filter(None, [self._sent.pop(window, None)])
        return any_new

    def _begin_anew_where_it_did(self, points: Mapping[str, int]) -> None:
        """Drop the curves if one of the new points, steps or epochs by name, is the first of its curve once more."""
        for name, x in points.items():
            curve = self._curves.get(name)
            if curve and curve.first == x and len(curve.buckets) > 1:
                if "train_loss" not in self._curves and not self._begun_again:  # not a second call of fit
                    again = f"{'epoch' if WINDOW_OF.get(name) == 'accuracy' else 'step'} {x}"
                    self._notes.append(f"plot of {self.run!r}: {BEGUN_AGAIN.format(again)}")
                    self._begun_again = True
                self._curves.clear()
                self._stale += self._sent.values()

    def _absorb_here(self) -> None:
        """The same in the thread that trains, which must not stop for a value that cannot be read."""
        with contextlib.suppress(Exception):
            self._absorb()

    def _windows(self) -> set[str]:
        return {WINDOW_OF.get(name, name) for name in list(self._curves)} | set(self._pictures)

    def _draw_on(self, stop: threading.Event) -> None:
        """The thread that draws: at most twice a second, and 1 % of the time, so that the training keeps it."""
        last = False
        while not last:
            last, started = stop.is_set(), time.monotonic()
            try:
                if self._absorb() and self._frame and not self._frame.page:
                    self._frame.show(*curves.picture_of(self.run, self._curves, self._others))
                pause = SHORTEST if self._changed else 2.0  # then it only sees whether the server is still there
                if self._mode in ("auto", "visdom"):
                    self._send()
            except Exception as error:  # a plot is never worth a training
                self._notes.append(f"the plot of {self.run!r} has stopped: {error!r}")
                self._failed = True  # from now on the thread that trains takes the points from the queue
                return
            stop.wait(0 if last else min(LONGEST, max(pause, 100 * (time.monotonic() - started))))

    def _send(self) -> None:
        """Bring the server up to date, or find out that there is none."""
        try:
            if self._page is None:
                if time.monotonic() < self._look_at:
                    return
                self._look_pause = min(30.0, 1.5 * self._look_pause)
                self._look_at = time.monotonic() + self._look_pause
                self._page = live_page.find(live_page.env_name(self.run))
                self._changed |= self._windows()
                self._notes.append(f"a visdom server has come: the plot is also at {self._page.url}")
            if self._sent and not self._page.has(next(iter(self._sent.values()))):
                self._changed |= set(self._sent)  # the server was started anew, and empty
            plots = self._windows() - set(self._pictures)
            if (self._changed & plots) - set(self._sent):  # a new plot stands before pictures
                for window in set(self._sent) & set(self._pictures):
                    self._changed.add(window)
                    self._page.close(self._sent[window])
                    del self._sent[window]
            self._sent = {window: name for window, name in self._sent.items() if window in self._windows()}
            # The page keeps the place of a window by its name, so a picture that moves needs another one.
            names = {window: f"{window} {self._token}" for window in plots}
            names |= {picture: f"{picture} {len(plots)} {self._token}" for picture in list(self._pictures)} | self._sent
            for name in [old for old in reversed(self._stale) if old not in names.values()]:
                self._page.close(name)  # the last one first: the others keep their places
            self._stale.clear()
            for window in curves.in_order(self._changed & set(names)):
                self._changed.discard(window)
                self._sent[window] = names[window]
                lines = curves.lines(window, self._curves, self._others)
                message = self._pictures.get(window) or curves.plot_window(window, *lines)
                self._page.show(names[window], message)
        except ConnectionError as error:
            self._changed |= set(self._sent)
            if self._page and not self._lost:
                self._notes.append(f"plot of {self.run!r}: {error}; the points are kept until it is back")
                self._lost = True
            if self._page:
                self._page.revive()
        else:
            if self._lost:
                self._notes.append(f"plot of {self.run!r}: the server is back and has the whole curve")
            self._lost = False

    def figure(self, title: str, figure: Figure) -> None:
        """Show a matplotlib figure in a window of the page. Without a page nothing: a notebook shows its figures.

        One that is called as a plot of the run gets "(picture)" behind its title, and does not replace the plot.
        """
        if not isinstance(figure, Figure):
            raise TypeError(f"figure must be a figure of matplotlib, such as plt.gcf(), not {figure!r:.60}")
        if self._page and os.getpid() == self._pid:
            self._absorb_here()  # there may be the first value of a name
            if title in {*curves.LINES, *self._windows()} - set(self._pictures):
                title += " (picture)"
            self._pictures[title] = curves.picture_window(title, figure)
            self._changed.add(title)
            self._work()

    def images(
        self, images: torch.Tensor, labels: torch.Tensor, classes: Sequence[str] | None = None, **more: Any
    ) -> None:
        """Show the first 16 of a batch of images ``(N, 3, H, W)`` with their labels ``(N,)``.

        Further arguments, such as ``mean`` and ``std`` of normalised images, go to ``plots.image_grid``.
        """
        if self._page and os.getpid() == self._pid:
            grid = image_grid(images[:16], classes, labels[:16], **more)
            self.figure("first batch", grid)
            plt.close(grid)  # else a notebook shows it again, below the cell

    def overlay(self, run: str, points: Mapping[str, tuple[Sequence[int], Sequence[float]]] | None = None) -> None:
        """Draw another run into the same plots: an earlier one of this process by its name, or ``points``.

        ``points`` gives steps and values by name, with epochs for steps in ``validation_accuracy``. Raises
        ``ValueError`` if no run of this process has that name, ``TypeError`` for points of another form.
        """
        if points is None and run not in LossTracker._live:
            raise ValueError(f"there is no run {run!r} here, only {', '.join(map(repr, LossTracker._live))}")
        self._others[run] = LossTracker._live[run]._curves if points is None else curves.from_points(points)
        self._changed |= self._windows() - set(self._pictures)
        if self._thread is None and self._curves and os.getpid() == self._pid and self._mode != "off":  # it was closed
            if self._frame and not self._frame.page:
                self._leave_picture(self._frame)
            self._work()

    def close(self, final: bool = True) -> None:
        """Draw what is left, for at most ``LAST`` s, and leave a picture of the curves below the cell; again: fine."""
        if os.getpid() != self._pid or self._thread is None:
            return
        thread, self._thread = self._thread, None  # at first: the stop button may end the wait
        self._stop.set()
        thread.join(LAST)
        self._print_notes()
        if final and self._frame and self._curves:
            self._leave_picture(self._frame)

    def _leave_picture(self, frame: live_page.Frame) -> None:
        """Put the curves as a picture below the cell, to stay: what comes later has a place of its own."""
        try:
            frame.show(*curves.picture_of(self.run, self._curves, self._others))
        except Exception as error:  # a plot is never worth a training
            print(f"no picture of {self.run!r}: {error!r}")
        frame.display = None

    def _print_notes(self) -> None:
        while self._notes:
            if live_page.notebook():
                print(self._notes.popleft())
            else:
                tqdm.write(self._notes.popleft())  # in a terminal above the progress bar, not behind it

    def __enter__(self) -> "LossTracker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def loss_tracker(loss_plot: str | Callable[..., None], loss_value: torch.Tensor, num: torch.Tensor) -> None:
    """The lecture's function: append the point (``num``, ``loss_value``), tensors of one element, to a plot.

    ``loss_plot`` is a ``LossTracker``, or the window that the lecture's ``vis.line`` has opened on the server at
    ``VISDOM_SERVER``. If that server does not answer, the point is lost and a line says so, once.
    """
    if callable(loss_plot):
        loss_plot(int(num), {"loss": loss_value})
    else:  # visdom gives False for a window where no server answered
        append_to_window(loss_plot, int(num), float(loss_value))


def append_to_window(window: str, step: int, value: float) -> None:
    """Append a point to a window of visdom's environment "main", as ``vis.line(..., update="append")`` does."""
    import visdom

    writer = visdom.Visdom(send=False, use_incoming_socket=False)  # it writes the message; sending could hang
    drawn: Any = writer.line(X=np.array([step]), Y=np.array([value]), win=window, update="append")
    message, endpoint = drawn
    message["data"][0]["y"] = [value if math.isfinite(value) else None]  # anything else ends the page
    place, started = (os.environ.get("VISDOM_SERVER"), os.environ.get("VISDOM_PORT")), time.monotonic()
    if started < _silent.get(place, 0.0):
        return
    try:
        live_page.send_once("main", endpoint, message)
        _silent.pop(place, None)
    except ConnectionError as error:
        if place not in _silent:
            print(f"loss_tracker: {error}")
        took = time.monotonic() - started  # a refusal comes at once; who lets us wait is asked more rarely
        _silent[place] = started + (100 * took if took > 0.5 else 0)


# Servers that did not answer, and whose silence has been told: when to ask them again.
_silent: dict[tuple[str | None, str | None], float] = {}


@atexit.register
def _close_all() -> None:
    for tracker in list(LossTracker._live.values()):
        tracker.close(final=False)
