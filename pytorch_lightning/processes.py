"""The processes of a run: the rank of this one, and the objects that they exchange in addition to gradients."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from pytorch_lightning.errors import FitError


class Refused(NamedTuple):
    """What a process sends in the place of a value that can't be sent."""

    text: str


@dataclass(frozen=True)
class Subject:
    """What a message is about, for its errors, and where the types in it are known from."""

    name: str = "values"
    do: str = ""
    """What to do where a part of it can't be sent."""
    types: tuple[type, ...] = ()
    """Types that it may contain, beside those that this process has sent itself."""
    module: Any = None
    """A module that may name further ones in the files of its code."""


SOMETHING = Subject()


@dataclass(frozen=True, kw_only=True)
class Processes:
    """This process among those of the run. ``ALONE`` is a run of one.

    Every process must make the same calls in the same order; each waits for the others. They travel over a group of
    their own on the CPU (gloo), so that an accelerator is never waited for. What travels is plain data: see
    ``messages``.
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
    secret: bytes | None = field(default=None, repr=False)
    """What every process of the run knows; None where a user's code made the group."""

    @property
    def is_first(self) -> bool:
        """Whether this is the one that shows, logs and writes."""
        return self.rank == 0

    def gather(self, value: Any, subject: Subject = SOMETHING) -> list[Any]:
        """Everybody's ``value``, by rank. Raises ``FitError`` in all of them where one isn't plain data."""
        if self.nb == 1:
            return [value]
        from pytorch_lightning.messages import transport

        messages = transport.gather(self.group, self.encoded(value, subject))
        return [self.decoded(message, rank, subject) for rank, message in enumerate(messages)]

    def from_first(self, value: Any) -> Any:
        """The ``value`` of rank 0."""
        return self.from_rank(0, value)

    def from_rank(self, rank: int, value: Any, subject: Subject = SOMETHING) -> Any:
        """The ``value`` of ``rank``. Raises ``FitError`` in all processes where it isn't plain data."""
        if self.nb == 1:
            return value
        from pytorch_lightning.messages import transport

        own = self.encoded(value, subject) if self.rank == rank else None
        return self.decoded(transport.broadcast(self.group, own, rank), rank, subject)

    def to_first(self, message: Any, take: Callable[[int, Any], object]) -> None:
        """Send everybody's ``message``, which is ``encoded``, to rank 0 and nowhere else. That calls ``take(rank,
        message)`` with those of the others, one after the other."""
        from pytorch_lightning.messages import transport

        transport.to_first(self.group, message, take)

    def encoded(self, value: Any, subject: Subject = SOMETHING) -> Any:
        """``value`` as bytes, or what says why it can't be sent."""
        from pytorch_lightning.messages.encoding import NotPlain, encode

        try:
            return encode(value)
        except NotPlain as error:
            place = f"{subject.name.split()[0]}{error.place} is " if error.place else "it is "
            return encode(
                Refused(
                    f"process {self.rank} can't send {subject.name} to the others: {place}{error.what}. Processes send"
                    " each other numbers, text, tensors and arrays, and lists, dicts, named tuples and dataclasses of"
                    f" these. {subject.do}"
                )
            )

    def decoded(self, message: Any, rank: int, subject: Subject = SOMETHING) -> Any:
        """What ``rank`` has ``encoded``. Raises ``FitError`` where it says why it couldn't."""
        from pytorch_lightning.messages.decoding import NotOurs, decode

        try:
            value = decode(message, (Refused, *subject.types), subject.module)
        except NotOurs as error:
            text = f"process {self.rank} can't take {subject.name} from process {rank}: {error}. {subject.do}"
            raise FitError(text.rstrip()) from error
        if type(value) is Refused:
            raise FitError(value.text.rstrip())
        return value

    def apart(self) -> "Processes":
        """The same processes over a group of their own, for calls from another thread. Everybody calls it."""
        if self.nb > 1 and not _apart:
            group = dist.new_group(backend="gloo", timeout=self.timeout)
            if self.secret is not None:
                from pytorch_lightning.messages.transport import prove

                prove(group, self.secret)
            _apart.append(group)
            before_leaving.append(_apart.clear)
        return replace(self, group=_apart[0]) if self.nb > 1 else self

    def any(self, value: bool) -> bool:
        """Whether anybody's ``value`` is true: quicker than ``gather``."""
        if self.nb == 1:
            return value
        told = torch.tensor(value, dtype=torch.int32)
        dist.all_reduce(told, dist.ReduceOp.MAX, group=self.group)
        return bool(told)

    @contextlib.contextmanager
    def first_here_first(self) -> Iterator[None]:
        """A scope that the first process of each machine leaves before the others there enter it: a download in it is
        made once. torch's own barrier, so that a user's in the scope finds its counterpart."""
        if self.nb > 1 and self.local_rank:
            try:
                dist.barrier()
            except RuntimeError as error:
                error.add_note(
                    f"process {self.rank} waited for the first process of its machine, which makes loaders and"
                    " optimizers before the others do: of torch.distributed only barrier() can be used there"
                )
                raise
        try:
            yield
        finally:
            if self.nb > 1 and not self.local_rank:
                dist.barrier()

    def wait(self) -> None:
        """Wait for all processes."""
        if self.nb > 1:
            dist.barrier(group=self.group)


ALONE = Processes()

before_leaving: list[Callable[[], object]] = []
"""What lets go of the groups of processes, so that their threads end before the interpreter does: one that is still
there then aborts the process."""

_apart: list[Any] = []
"""The group that ``Processes.apart`` made."""


def is_sharded(tensor: Any) -> bool:
    """Whether ``tensor`` is a ``DTensor``, whose import alone costs half a second."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Any) -> Any:
    """The whole of ``tensor``, gathered if it is sharded. All processes call it."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


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
    own: bool = False
    """Whether each process has a loader of its own share: nothing is dealt out."""
    whole: bool = False
    """Whether a last round that has fewer batches than virtual ranks is left out."""

    def has(self, batch_nb: int) -> bool:
        """Whether batch ``batch_nb`` is this process's."""
        return batch_nb % self.nb in self.mine

    def nb_rounds(self, nb_batches: int) -> int:
        """How many rounds of one batch per virtual rank ``nb_batches`` make, the last one perhaps a short one.

        >>> Share(2, range(2)).nb_rounds(5)
        3
        """
        if self.own:
            return nb_batches
        return nb_batches // self.nb if self.whole else -(-nb_batches // self.nb)


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
