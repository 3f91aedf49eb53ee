"""The processes of a run: which one this is, and what they tell each other beside gradients."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch.distributed as dist


@dataclass(frozen=True, kw_only=True)
class Processes:
    """This process among those of the run. ``ALONE`` is a run of one.

    Every process must make the same calls in the same order; each waits for the others. They travel over a group of
    their own on the CPU (gloo), so that an accelerator is never waited for.
    """

    rank: int = 0
    nb: int = 1
    """How many there are, over all machines."""
    local_rank: int = 0
    """This one's number on its machine."""
    node_rank: int = 0
    """The machine's number."""
    group: Any = None
    """The group for objects; None is the default group."""
    backend: str = ""
    """What carries gradients: 'gloo' or 'nccl', say."""
    timeout: timedelta | None = None
    """How long anybody is waited for; None is torch's default."""

    @property
    def is_first(self) -> bool:
        """Whether this is the one that shows, logs and writes."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """Everybody's ``value``, by rank. It must be picklable."""
        if self.nb == 1:
            return [value]
        values: list[Any] = [None] * self.nb
        dist.all_gather_object(values, value, group=self.group)
        return values

    def from_first(self, value: Any) -> Any:
        """The ``value`` of rank 0."""
        return self.from_rank(0, value)

    def from_rank(self, rank: int, value: Any) -> Any:
        """The ``value`` of ``rank``."""
        if self.nb == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=rank, group=self.group)
        return values[0]

    def apart(self) -> "Processes":
        """The same processes over a group of their own, for calls from another thread. Everybody calls it."""
        if self.nb > 1 and not _apart:
            _apart.append(dist.new_group(backend="gloo", timeout=self.timeout))
            before_leaving.append(_apart.clear)
        return replace(self, group=_apart[0]) if self.nb > 1 else self

    def wait(self) -> None:
        """Go on when everybody is here."""
        if self.nb > 1:
            dist.barrier(group=self.group)


ALONE = Processes()

before_leaving: list[Callable[[], object]] = []
"""What lets go of the groups of processes, so that their threads end before the interpreter does: one that is still
there then aborts the process."""

_apart: list[Any] = []
"""The group that ``Processes.apart`` made."""


def whole(tensor: Any) -> Any:
    """``tensor``, brought together where processes hold a piece of it each. Everybody calls it."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def own_piece(tensor: Any) -> Any:
    """What this process holds of ``tensor``: all of it, usually."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


@dataclass(frozen=True)
class Share:
    """Which batches are this process's: batch n is where ``n % nb`` is in ``mine``.

    In training ``nb`` is the number of virtual ranks, in evaluation that of processes.
    """

    nb: int = 1
    mine: range = range(1)

    def has(self, batch_nb: int) -> bool:
        """Whether batch ``batch_nb`` is this process's."""
        return batch_nb % self.nb in self.mine

    def nb_rounds(self, nb_batches: int) -> int:
        """How many rounds of one batch per virtual rank ``nb_batches`` make, the last one perhaps a short one.

        >>> Share(2, range(2)).nb_rounds(5)
        3
        """
        return -(-nb_batches // self.nb)


EVERYTHING = Share()


def share_of(nb_virtual: int, processes: Processes) -> Share:
    """The virtual ranks that this process runs: a block of them, one after the other."""
    size = nb_virtual // processes.nb
    return Share(nb_virtual, range(processes.rank * size, (processes.rank + 1) * size))


@contextlib.contextmanager
def held(signals: tuple[int, ...]) -> Iterator[None]:
    """A scope in which these signals wait, also for processes that are started in it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
