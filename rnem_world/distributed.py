"""The processes that train one model together, one alone or several that ``torchrun`` has started, and their end.

Every process takes its rows of the same global batches, and what is decided is decided by all alike. See
https://pytorch.org/docs/stable/elastic/run.html for the variables by which ``torchrun`` tells a process who it is.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

from rnem_world.errors import ProcessError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

# What gloo and NCCL say when a process at the other end is gone.
LOST = (
    "connection closed",
    "connection reset",
    "connection refused",
    "broken pipe",
    "remote process exit",
    "ncclremoteerror",
    "timed out waiting",
)


@dataclass(frozen=True)
class Processes:
    """Who this process is, and how it speaks with the others.

    Attributes:
        rank: Its number, 0 for the first, which alone writes.
        world_size: Number of processes on all machines.
        per_machine: Number of processes on this machine.
        local_rank: Its number on this machine.
    """

    rank: int = 0
    world_size: int = 1
    per_machine: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def rows(self, size: int) -> slice:
        """Gives this process's share of so many rows; shares differ by one at most."""
        return slice(size * self.rank // self.world_size, size * (self.rank + 1) // self.world_size)

    def sum(self, values: Tensor) -> Tensor:
        """Adds up what all processes have; the same on all of them."""
        if self.world_size == 1:
            return values
        from torch import distributed

        moved = values.detach().to(_device_of_talk(), copy=True)
        distributed.all_reduce(moved)
        return moved.to(values.device)

    def mean(self, values: Tensor) -> Tensor:
        """Averages what all processes have; the same on all of them."""
        return self.sum(values) / self.world_size

    def largest(self, values: Sequence[float | int]) -> list[float]:
        """Takes the largest of each number over all processes."""
        if self.world_size == 1:
            return [float(value) for value in values]
        import torch
        from torch import distributed

        moved = torch.tensor(values, dtype=torch.float64, device=_device_of_talk())
        distributed.all_reduce(moved, distributed.ReduceOp.MAX)
        result: list[float] = moved.tolist()
        return result

    def wait(self) -> None:
        """Waits until all processes are here."""
        self.largest([0.0])

    def parallel(self, module: nn.Module) -> nn.Module:
        """Wraps a module so that its backward pass averages the gradients of all processes; alone it stays as it is.

        Parameters may go unused: then nothing is assumed about the order of gradients, and a resumed run adds them up
        in the same order as one that was never stopped.
        """
        if self.world_size == 1:
            return module
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(module, find_unused_parameters=True)

    def holding_back(self, module: nn.Module) -> AbstractContextManager[None]:
        """Within this, a module from :meth:`parallel` adds gradients up without averaging them."""
        if self.world_size == 1:
            return nullcontext()
        from torch.nn.parallel import DistributedDataParallel

        assert isinstance(module, DistributedDataParallel)  # noqa: S101
        held: AbstractContextManager[None] = module.no_sync()
        return held


ALONE = Processes()


def from_torchrun() -> Processes:
    """Reads who this process is from what ``torchrun`` sets; alone without it."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "LOCAL_RANK")
    if any(name not in os.environ for name in names):
        return ALONE
    return Processes(*(int(os.environ[name]) for name in names))


@contextmanager
def process_group(processes: Processes, device: torch.device) -> Iterator[None]:
    """Joins the others: by gloo on the CPU, by NCCL on CUDA devices.

    Raises:
        ProcessError: If another process ends before its time, or they can't work together.
    """
    if processes.world_size == 1:
        yield
        return
    import torch
    from torch import distributed

    try:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        yield
    except RuntimeError as error:
        if _is_lost_connection(error):
            raise ProcessError(
                f"the connection is lost: another of the {processes.world_size} processes has ended, "
                "and its own message says why; mend that and continue with --resume"
            ) from error
        if isinstance(error, distributed.DistError):
            raise ProcessError(
                f"the {processes.world_size} processes can't work together: {str(error).strip().splitlines()[0]}"
            ) from error
        raise
    distributed.destroy_process_group()


def _is_lost_connection(error: RuntimeError) -> bool:
    """Whether an error means that another process is gone; gloo says so in plain RuntimeErrors."""
    from torch import distributed

    if isinstance(error, (distributed.DistNetworkError, distributed.DistStoreError)):
        return True
    text = str(error).lower()
    return any(word in text for word in LOST)


def _device_of_talk() -> torch.device:
    import torch
    from torch import distributed

    if distributed.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


class Stopped(Exception):  # noqa: N818
    """Training was to stop in the middle of something that can't be saved."""


class Stop:
    """Knows whether training has to stop, and why.

    A signal reaches one process, or all of them at different moments. So each notes its own, and they stop together
    where they next :meth:`look`.

    Args:
        max_minutes: Minutes that a sitting may last; None for no limit.
        processes: Those that stop together.

    Attributes:
        reason: Why training has to stop, None while it may go on; the same in all processes.
        signal: The number of the signal that came, None if none did; the same in all processes.
    """

    def __init__(self, max_minutes: float | None, processes: Processes = ALONE) -> None:
        self.reason: str | None = None
        self.signal: int | None = None
        self._max_minutes = max_minutes
        self._processes = processes
        self._received = 0
        self._start = time.monotonic()

    @property
    def minutes(self) -> float:
        """Minutes since the sitting began."""
        return (time.monotonic() - self._start) / 60.0

    def look(self, at_clock: bool = True) -> None:
        """Finds out, together with the other processes, whether to stop.

        Args:
            at_clock: Whether to stop also because the time is over, and not only because a signal came.
        """
        if self.reason is not None:
            return
        is_over = at_clock and self._max_minutes is not None and self.minutes >= self._max_minutes
        received, over = self._processes.largest([self._received, int(is_over)])
        if received:
            self.signal = int(received)
            self.reason = f"{signal.Signals(self.signal).name} received; continue with --resume"
        elif over:
            self.reason = f"{self._max_minutes:g} minutes are over; continue with --resume"

    def check(self) -> None:
        """Raises `Stopped` if a signal came; every process has to ask."""
        self.look(at_clock=False)
        if self.reason is not None:
            raise Stopped

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Begins a sitting, in which Ctrl-C or SIGTERM stops training in order; a second signal ends it at once.

        Of several processes none is ended at once: ``torchrun`` passes on signals that they may have received
        already, and kills by itself what doesn't end in time.
        """
        self._start = time.monotonic()

        def stop(number: int, frame: FrameType | None) -> None:
            if self._received and self._processes.world_size == 1:
                raise KeyboardInterrupt
            self._received = number

        previous: dict[int, Any] = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                previous[number] = signal.signal(number, stop)
            except ValueError:  # not in the main thread: signals are the caller's business
                break
        try:
            yield
        finally:
            for replaced, handler in previous.items():
                signal.signal(replaced, handler)
