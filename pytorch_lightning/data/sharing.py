"""A loader's batches dealt out to processes: in rounds for training, one after the other for evaluation."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, count
from typing import Any

from pytorch_lightning.data.loader import OrderWatcher, ReplayableLoader
from pytorch_lightning.data.same_batches import checksum
from pytorch_lightning.errors import FitError
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
        self._per_round = 1 if share.own else share.nb
        """How many batches of ``loader`` make a round."""

    def batches(self, epoch: int, start: int = 0, limit: int | None = None) -> Iterator[Any]:
        nb = self._per_round
        # asked for now, not when the first slot is: a resume at the end of an epoch asks for none
        batches = self._loader.batches(epoch, start * nb, None if limit is None else limit * nb)
        return self._slots(batches, start, limit)

    @property
    def order(self) -> int:  # type: ignore[override]
        return self._loader.order

    def use_order(self, version: int) -> None:
        self._loader.use_order(version)

    def close(self) -> None:
        self._loader.close()

    def _slots(self, batches: Iterator[Any], start: int, limit: int | None) -> Iterator[Any]:
        nb_given = 0
        for batch in batches:
            yield batch
            nb_given += 1
        nb_rounds = self.share.nb_rounds(self._loader.nb_drawn) - start
        for _ in range(nb_rounds * len(self.share.mine) - nb_given):
            yield IDLE

    def crc_at(self, nb_batches: int) -> int | None:
        # the last round may be a short one
        nb = nb_batches * self._per_round
        found = (self._loader.crc_at(n) for n in range(nb, nb - self._per_round, -1))
        return next((crc for crc in found if crc is not None), None)

    def sketch_at(self, nb_batches: int) -> list[Any] | None:
        return self._loader.sketch_at(min(nb_batches * self._per_round, self._loader.nb_drawn))

    takes_back = False  # each virtual rank has buffers of its own

    @property
    def begins_anywhere(self) -> bool:  # type: ignore[override]
        return self._loader.begins_anywhere

    @property
    def bound_to_workers(self) -> int | None:  # type: ignore[override]
        return self._loader.bound_to_workers

    def sampler_state(self, begun: bool) -> dict[str, Any] | None:
        return self._loader.sampler_state(begun)

    def load_sampler(self, state: dict[str, Any], epoch: int, start: int) -> None:
        self._loader.load_sampler(state, epoch, start * self._per_round)

    def place_in_pass(self, epoch: int, nb_batches: int, is_over: bool) -> list[int] | None:
        return self._loader.place_in_pass(epoch, nb_batches * self._per_round, is_over)

    def load_place(self, place: list[int]) -> None:
        self._loader.load_place(place)

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
        self._loader.finish(epoch, nb_batches * self._per_round, is_whole)

    def watch(self, watcher: OrderWatcher) -> None:
        self._loader.watch(watcher)

    def indices_at(self, epoch: int, number: int) -> Any:
        return self._loader.indices_at(epoch, number)

    def crc_again(self, epoch: int, nb_batches: int) -> int | None:
        return self._loader.crc_again(epoch, nb_batches)

    def samples_at(self, epoch: int, number: int) -> list[tuple[Any, Any]] | None:
        return self._loader.samples_at(epoch, number)

    @property
    def looks_at_data(self) -> bool | None:  # type: ignore[override]
        return self._loader.looks_at_data

    def expect(self, crc: int, on_other_order: Any) -> None:
        self._loader.expect(crc, on_other_order)

    def expect_like(self, sketch: list[Any], on_other_order: Any) -> None:
        self._loader.expect_like(sketch, on_other_order)


class OwnShares(RoundsLoader):
    """The slots of one process whose loader is its own share: in each round a batch, as long as anybody has one.

    Where a length isn't known the processes ask each other in each round. ``on_same`` is called where all of them have
    the same first batch: then it isn't a share.
    """

    def __init__(
        self,
        loader: ReplayableLoader,
        share: Share,
        processes: Processes,
        has_length: bool,
        on_same: Callable[[], object],
    ) -> None:
        super().__init__(loader, share)
        self._processes, self._has_length, self._on_same = processes, has_length, on_same
        self._asks: bool | None = None

    def _slots(self, batches: Iterator[Any], start: int, limit: int | None) -> Iterator[Any]:
        if self._asks is None:
            self._asks = self._processes.any(not self._has_length)
            batches = self._compared(batches)
        return own_slots(batches, self._processes if self._asks else None, start, limit, self.share.whole)

    def _compared(self, batches: Iterator[Any]) -> Iterator[Any]:
        first = next(batches, IDLE)
        checksums = self._processes.gather(checksum(first))
        if first is not IDLE and len({*checksums}) == 1:
            self._on_same()
        return batches if first is IDLE else chain((first,), batches)

    def crc_at(self, nb_batches: int) -> int | None:
        crc = self._loader.crc_at(nb_batches)  # the others' shares may be longer
        return (
            crc if crc is not None or self._loader.nb_drawn > nb_batches else self._loader.crc_at(self._loader.nb_drawn)
        )


def own_slots(
    batches: Iterator[Any], asking: Processes | None, start: int, limit: int | None, whole: bool
) -> Iterator[Any]:
    """``batches`` from ``start`` to ``limit``, and ``IDLE`` where there are none any more; with ``asking`` as long as
    one of these processes has some, or (``whole``) each."""
    for nb in count(start):
        if nb == limit:
            return
        batch = next(batches, IDLE)
        if asking is not None and asking.any((batch is IDLE) == whole) == whole:
            break
        yield batch
    if not nb:
        raise FitError("the training loaders of all processes yielded no batches. Check their shares and lengths.")


def numbered(loader: ReplayableLoader, share: Share, epoch: int, limit: int | None) -> Iterator[tuple[int, Any]]:
    """This process's batches of an evaluation, each with its number in the loader."""
    batches = loader.batches(epoch, 0, limit)
    return enumerate(batches) if share.nb == 1 else zip(_numbers_of(share), batches, strict=False)


class Filler:
    """A batch that a process runs only since the others run one: what comes of it is dropped."""

    def __init__(self, batch: Any) -> None:
        self.batch = batch


def in_step(batches: Iterator[tuple[int, Any]], processes: Processes, module: Any) -> Iterator[tuple[int, Any]]:
    """``batches``, as many of them in each process: those that one lacks are ``Filler``. The code
    of ``module`` names the types of those that are sent to a process that never had one."""
    spare = Spare(processes, module)
    while processes.any((pair := next(batches, None)) is not None):
        number, batch = pair or (0, None)
        spare.take([batch])
        yield number, batch if batch is not None or spare.batch is None else Filler(spare.batch)


def _numbers_of(share: Share) -> Iterator[int]:
    first = 0
    while True:
        for offset in share.mine:
            yield first + offset
        first += share.nb
