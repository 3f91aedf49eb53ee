"""A loader's batches dealt out to processes: in rounds for training, one after the other for evaluation."""

from collections.abc import Iterable, Iterator
from typing import Any

from pytorch_lightning.data.loader import OrderWatcher, ReplayableLoader
from pytorch_lightning.processes import Processes, Share, Subject

IDLE = object()
"""What a virtual rank gets in a last round that has no batch for it."""


class Spare:
    """A batch for a process that has none and must run a step along with the others: its own last one.

    Everybody calls ``take`` at the same moments, so that one who never had a batch can be sent one.
    """

    def __init__(self, processes: Processes, module: Any) -> None:
        self._processes, self._all_have_one = processes, False
        self._sent = Subject("batches", "Let the loader give batches of these.", module=module)
        self.batch: Any = None
        """None until any process has had one."""

    def take(self, batches: Iterable[Any]) -> None:
        """Remember the newest of ``batches`` that is one."""
        for batch in batches:
            if batch is not None and batch is not IDLE:
                self.batch = batch
        if not self._all_have_one:
            have = self._processes.gather(self.batch is not None)
            self._all_have_one = any(have)
            if any(have) and not all(have):
                sent = self._processes.from_rank(have.index(True), self.batch, self._sent)
                self.batch = sent if self.batch is None else self.batch


class RoundsLoader(ReplayableLoader):
    """The slots of one process: for each round a batch, or ``IDLE``, for each of its virtual ranks.

    ``start`` and ``limit`` count rounds. Every process gives the same number of slots per virtual rank, whatever
    the length of the epoch: nothing is padded, and nobody waits for a batch that doesn't come.
    """

    def __init__(self, loader: ReplayableLoader, share: Share) -> None:
        self._loader, self.share = loader, share

    def batches(self, epoch: int, start: int = 0, limit: int | None = None) -> Iterator[Any]:
        nb = self.share.nb
        # asked for now, not when the first slot is: a resume at the end of an epoch asks for none
        return self._slots(self._loader.batches(epoch, start * nb, None if limit is None else limit * nb), start)

    def close(self) -> None:
        self._loader.close()

    def _slots(self, batches: Iterator[Any], start: int) -> Iterator[Any]:
        nb_given = 0
        for batch in batches:
            yield batch
            nb_given += 1
        nb_rounds = self.share.nb_rounds(self._loader.nb_drawn) - start
        for _ in range(nb_rounds * len(self.share.mine) - nb_given):
            yield IDLE

    def crc_at(self, nb_batches: int) -> int | None:
        # the last round may be a short one
        nb = nb_batches * self.share.nb
        found = (self._loader.crc_at(n) for n in range(nb, nb - self.share.nb, -1))
        return next((crc for crc in found if crc is not None), None)

    takes_back = False  # each virtual rank has buffers of its own

    @property
    def bound_to_workers(self) -> int | None:  # type: ignore[override]
        return self._loader.bound_to_workers

    def sampler_state(self, begun: bool) -> dict[str, Any] | None:
        return self._loader.sampler_state(begun)

    def load_sampler(self, state: dict[str, Any], epoch: int, start: int) -> None:
        self._loader.load_sampler(state, epoch, start * self.share.nb)

    def own_state(self, epoch: int) -> dict[str, Any] | None:
        return self._loader.own_state(epoch)

    def load_own(self, state: dict[str, Any]) -> None:
        self._loader.load_own(state)

    @property
    def finished_epoch(self) -> tuple[int, int, int] | None:  # type: ignore[override]
        return self._loader.finished_epoch

    def expect_finished(self, finished: tuple[int, int, int], on_other_order: Any) -> None:
        self._loader.expect_finished(finished, on_other_order)

    def finish(self, epoch: int, nb_batches: int, is_whole: bool) -> None:
        self._loader.finish(epoch, nb_batches * self.share.nb, is_whole)

    def watch(self, watcher: OrderWatcher) -> None:
        self._loader.watch(watcher)

    def indices_at(self, epoch: int, number: int) -> Any:
        return self._loader.indices_at(epoch, number)

    def expect(self, crc: int, on_other_order: Any) -> None:
        self._loader.expect(crc, on_other_order)


def numbered(loader: ReplayableLoader, share: Share, epoch: int, limit: int | None) -> Iterator[tuple[int, Any]]:
    """This process's batches of an evaluation, each with its number in the loader."""
    batches = loader.batches(epoch, 0, limit)
    return enumerate(batches) if share.nb == 1 else zip(_numbers_of(share), batches, strict=False)


class Filler:
    """A batch that a process runs only since the others run one: what comes of it is dropped."""

    def __init__(self, batch: Any) -> None:
        self.batch = batch


def in_step(
    batches: Iterator[tuple[int, Any]],
    loader: ReplayableLoader,
    processes: Processes,
    module: Any,
) -> Iterator[tuple[int, Any]]:
    """``batches``, as many of them in each process: those that one lacks are ``Along``. The code
    of ``module`` names the types of those that are sent to a process that never had one."""
    spare, nb = Spare(processes, module), 0
    for number, batch in batches:
        nb += 1
        spare.take([batch])
        yield number, batch if batch is not None or spare.batch is None else Filler(spare.batch)
    for _ in range(-(-loader.nb_drawn // processes.nb) - nb):
        spare.take([])
        yield 0, None if spare.batch is None else Filler(spare.batch)


def _numbers_of(share: Share) -> Iterator[int]:
    first = 0
    while True:
        for offset in share.mine:
            yield first + offset
        first += share.nb
