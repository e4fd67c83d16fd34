"""What a LossTracker costs the training: the time of a call, and of a step, interleaved with steps without a tracker.

    python benchmarks/tracker.py [--seconds 20]

A call is timed alone, at 200 points a second, for each kind of server. For the step, turns without a tracker and turns
with one follow each other, so that both see the same machine: a slow moment, another program, a warm processor. In a
turn without, the tracker is closed: neither its thread nor the server has anything to do.
"""

import argparse
import signal
import statistics
import time

import torch
from torch import nn

from vgg_course import own_server
from vgg_course.tracking import LossTracker


def call_times(tracker: LossTracker, seconds: float) -> list[float]:
    """Seconds of each call at 200 points a second."""
    times, begin, step = [], time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        tracker(step, {"loss": 1.0 / (step + 1), "learning_rate": 0.1})
        times.append(time.perf_counter() - start)
        step += 1
        time.sleep(max(0.0, begin + step / 200 - time.perf_counter()))
    return times


def report(name: str, times: list[float]) -> None:
    times = sorted(times)
    median, late, worst = (1000 * times[int(part * (len(times) - 1))] for part in (0.5, 0.999, 1.0))
    print(f"{name:<28} median {median:6.4f} ms   99.9 % below {late:6.3f} ms   worst {worst:6.3f} ms", flush=True)


def trainer():
    """A step of about 5 ms, so some 200 of them a second."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 1024, 10))
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    images, labels = torch.randn(32, 3, 32, 32), torch.randint(0, 10, (32,))

    def step() -> float:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def step_times(mode: str, seconds: float, turn: float = 2.0) -> tuple[list[float], list[float], float]:
    """Mean seconds of a step in each turn: without a tracker, with one; and points a second of the latter."""
    step, count, tracked, of_turn = trainer(), 0, 0.0, {False: [], True: []}
    tracker = LossTracker(f"step {mode}", mode=mode)
    for number in range(4 * max(1, round(seconds / turn / 4))):
        with_tracker, steps = number % 4 in (1, 2), 0  # without, with, with, without: a drift hits both alike
        start = time.perf_counter()
        while time.perf_counter() - start < turn:
            loss = step()
            if with_tracker:
                tracker(count, {"loss": loss, "learning_rate": 0.01})
                count += 1
            steps += 1
        took = time.perf_counter() - start
        of_turn[with_tracker].append(took / steps)
        tracked += took * with_tracker
        tracker.close(final=False)
    return of_turn[False], of_turn[True], count / tracked


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20, help="for each line")
    seconds = parser.parse_args().seconds
    torch.set_num_threads(max(1, torch.get_num_threads() // 2))

    print("a call, 200 points a second")
    report("off (empty call)", call_times(LossTracker("off", mode="off"), seconds / 4))
    report("log", call_times(LossTracker("log", mode="log"), seconds / 4))
    tracker = LossTracker("call", mode="visdom")
    report("visdom", call_times(tracker, seconds))
    process = own_server._own.process
    if hasattr(signal, "SIGSTOP"):
        process.send_signal(signal.SIGSTOP)
        report("visdom that never answers", call_times(tracker, seconds))
        process.send_signal(signal.SIGCONT)
    process.kill()
    report("visdom that was killed", call_times(tracker, seconds))
    tracker.close()

    print("a step, in turns without and with a tracker")
    for mode in ("off", "visdom"):  # "off" shows how exact this is: its ratio should be 1
        without, with_it, rate = step_times(mode, 3 * seconds)
        ratios = [b / a for a, b in zip(without, with_it, strict=False)]
        print(
            f"{mode:<28} {1000 * statistics.median(without):.3f} ms, {1000 * statistics.median(with_it):.3f} ms: "
            f"ratio of neighbouring turns, median {statistics.median(ratios):.4f} ({len(ratios)} pairs, "
            f"{rate:.0f} points a second)",
            flush=True,
        )


if __name__ == "__main__":
    main()
