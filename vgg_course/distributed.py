"""One training on several processes: ``torchrun --nproc_per_node=2 -m vgg_course.runs fast``.

Each process (its number is called *rank*) has a copy of the network and takes its part of every batch. After
``backward`` the copies exchange their gradients and take the mean (*all-reduce*), so all of them make the same step.
PyTorch's ``DistributedDataParallel`` does that; a ``Team`` is what ``fit`` needs around it. Alone, without
``torchrun``, a team has one member and changes nothing.
"""

import os
import signal
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from vgg_course.checkpoint import Stateful


def is_first() -> bool:
    """Whether this process is alone, or the first of those that ``torchrun`` has started."""
    return int(os.environ.get("RANK", 0)) == 0


class Team:
    """The processes of one training, a context: ``torchrun`` has told each of them its rank and how many there are.

    gloo connects CPUs, nccl GPUs. A member that is killed or loses its connection ends the training of all with a
    ``ConnectionError``: what the first rank kept in the checkpoint is good, and the same command goes on from there.
    """

    trainings = 0  # of this process

    def __init__(self, device: torch.device) -> None:
        self.size, self.rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        self.device = device
        self._handler: Any = None  # of SIGTERM, outside of this training
        self._interrupt: Any = None  # of SIGINT, the same
        if self.size > 1 and device.type == "mps":
            self.device = torch.device("cpu")  # gloo carries nothing from a Mac's GPU
        if self.size > 1 and device.type == "cuda":
            local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
            if local >= gpus:
                raise ValueError(
                    f"process {local + 1} of this machine has no GPU of its own, for there are {gpus}: take "
                    f"--nproc_per_node={gpus}, or the recipe's device='cpu' (from the shell: --set device=cpu)"
                )
            self.device = torch.device("cuda", local)
            torch.cuda.set_device(self.device)

    @property
    def first(self) -> bool:
        """Whether this process is the one that shows, keeps and records."""
        return self.rank == 0

    def __enter__(self) -> "Team":
        self._ours = self.size > 1 and not dist.is_initialized()
        if self._ours:  # torchrun's store still has the addresses of an earlier training: ours get a prefix
            Team.trainings += 1
            backend = "nccl" if self.device.type == "cuda" else "gloo"
            store, rank, size = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
            store = dist.PrefixStore(f"training {Team.trainings}", store)  # type: ignore[attr-defined]
            dist.init_process_group(backend, store=store, rank=rank, world_size=size)
        if self.size > 1 and threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGTERM, _told_to_stop)
            if not self.first:  # torchrun passes Ctrl-C on to all: the first one ends its step, and needs us for that
                self._interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.size == 1:
            return
        if self._interrupt is not None:
            signal.signal(signal.SIGINT, self._interrupt)
        lost = isinstance(error, RuntimeError) and any(word in str(error).lower() for word in ("gloo", "nccl", "peer"))
        if self._handler is not None:  # who has lost the others is about to end, and has the time to say so
            signal.signal(signal.SIGTERM, signal.SIG_IGN if lost else self._handler)
        if lost:
            raise ConnectionError(
                f"rank {self.rank} of {self.size} has lost the others: one of them was killed or its machine is gone. "
                "The same command goes on from the checkpoint, with any number of processes"
            ) from None
        if self._ours:
            dist.destroy_process_group()

    def wrap(self, model: nn.Module) -> nn.Module:
        """The network to call in training: the same weights, and ``backward`` takes the mean of all gradients."""
        if self.size == 1:
            return model
        if self.device.type == "cuda":  # batch norm over the whole batch; PyTorch has this for GPUs only
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return DistributedDataParallel(model)

    def share(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """This member's part of a batch ``(B, 3, H, W)``, ``(B,)``: every ``size``-th image from its rank on.

        Raises ``ValueError`` for a batch with fewer images than there are members.
        """
        if len(labels) < self.size:
            raise ValueError(f"a batch of {len(labels)} cannot be shared by {self.size} processes: take fewer of them")
        return images[self.rank :: self.size], labels[self.rank :: self.size]

    def weight(self, part: int, whole: int) -> float:
        """What to multiply the mean loss of a ``part`` with, so that the mean over the team is that of the batch."""
        return part * self.size / whole

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """The mean of a number over the team."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
            value /= self.size
        return value

    def agree(self, parts: Mapping[str, Stateful], position: tuple[int, int]) -> tuple[int, int]:
        """Everybody starts where the first rank starts, which alone has read the checkpoint: state and position."""
        if self.size == 1:
            return position
        told: list[Any] = [None, None]
        if self.first:
            told = [{name: part.state_dict() for name, part in parts.items()}, position]
        dist.broadcast_object_list(told, src=0)
        if not self.first:
            for name, part in parts.items():
                part.load_state_dict(told[0][name])
        return told[1][0], told[1][1]


def _told_to_stop(*_: object) -> None:
    """torchrun stops all processes when it has lost one, often before they notice that themselves."""
    raise RuntimeError("torchrun has lost a peer")
