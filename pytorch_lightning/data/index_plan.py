"""The order of an epoch as a function of (seed, epoch): which indices make which batch."""

import contextlib
import copy
from array import array
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any
from zlib import crc32

import torch
from torch.utils.data import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler

from pytorch_lightning import seeding
from pytorch_lightning.data.generators import find_generators, set_state_of, state_of
from pytorch_lightning.data.loader import KEYED, TORCHS, OrderWatcher
from pytorch_lightning.data.same_batches import FirstUse
from pytorch_lightning.data.seeded_view import BatchKey
from pytorch_lightning.processes import EVERYTHING, Share

if TYPE_CHECKING:
    from pytorch_lightning.data.large_order import LargeOrder

MOST_AHEAD = 10_000  # batches: loader workers fetch ahead of the training step by far fewer
# These draw from the global streams once, when their first index is requested.
DRAW_ONCE = (RandomSampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler, DistributedSampler)


class IndexPlan(Sampler[tuple[BatchKey, Any]]):
    """Gives (key, what the user's sampler gave) for each batch from ``start`` up to ``limit`` that is in ``share``.

    ``sampler`` is the user's batch sampler, or the plain sampler of a loader with ``batch_size=None``;
    ``generator`` is the loader's own. Every process draws the whole order, so that any sampler works and all agree
    on it; only a large one that has a formula (``order`` is ``KEYED``) is begun in its middle. Call ``begin_epoch``
    before each iteration. ``crc_at(n)`` is the CRC of the indices of the first n batches.
    """

    def __init__(
        self,
        sampler: Any,
        seed: int,
        loader_id: int,
        *,
        generator: torch.Generator | None = None,
        same_each_epoch: bool = False,
        share: Share = EVERYTHING,
    ) -> None:
        self.share, self.nb_drawn, self.order = share, 0, TORCHS
        self.sampler, self.seed, self.loader_id = sampler, seed, loader_id
        self.generator, self.same_each_epoch = generator, same_each_epoch
        self.epoch = self.start = 0
        self.limit: int | None = None
        self.expected: int | None = None
        """The CRC that the batches before ``start`` must have; compared once."""
        self.on_other_order: Callable[[], None] = lambda: None
        self._crcs: dict[int, int] = {0: 0}
        self._generators = find_generators([generator, sampler])
        self._states: list[Any] | None = None
        """Of these generators, before what is drawn now."""
        self._chosen = seeding.initial_seeds(self._generators)
        inner = sampler.sampler if type(sampler) is BatchSampler else sampler
        each = [sampler, getattr(sampler, "sampler", None)]
        self._stateful = next((s for s in each if hasattr(s, "state_dict") and hasattr(s, "load_state_dict")), None)
        self._draws_once = type(inner) in DRAW_ONCE and self._stateful is None
        self.watcher: OrderWatcher | None = None
        """Told of each order that is drawn."""
        self.is_read_ahead = False
        """Whether workers fetch ahead: then whoever starts them tells the watcher."""
        self._rest: Iterator[Any] | None = None
        """What the sampler has not given yet."""
        self._before_epoch: dict[str, Any] | None = None
        self._loaded: dict[str, Any] | None = None
        self.first_use: FirstUse | None = None
        """Compares the first batch over the processes, once."""
        self.lane = 0
        """Added to the loader's id in keys: what batches draw differs where each process has its own."""

    def begin_epoch(self, epoch: int, start: int, limit: int | None) -> None:
        """The next iteration gives the batches ``start`` to ``limit`` of ``epoch``."""
        self._put_back()
        if self._loaded is not None and epoch != self.epoch:
            self._catch_up()
        self.epoch, self.start, self.limit = epoch, start, limit
        self._crcs, self._rest = {0: 0}, None
        if self.first_use is not None:
            self._chosen = self.first_use.agree(self._chosen)

    def crc_at(self, nb_batches: int) -> int | None:
        """The CRC of the indices of this epoch's first ``nb_batches`` batches; None where not yet drawn."""
        return self._crcs.get(nb_batches)

    def sampler_state(self, begun: bool) -> dict[str, Any] | None:
        """The state of a sampler that has one: before this epoch if that has ``begun``, otherwise as it is."""
        if self._stateful is None:
            return None
        if begun:
            return self._before_epoch
        if self._loaded is not None:
            self._catch_up()
        return copy.deepcopy(self._stateful.state_dict())  # type: ignore[no-any-return]

    def load_sampler(self, state: dict[str, Any], epoch: int, start: int) -> None:
        """Put it back when ``epoch`` is drawn."""
        if self._stateful is not None and start:
            self.epoch, self._loaded, self._before_epoch = epoch, state, state
        elif self._stateful is not None:
            self._stateful.load_state_dict(state)

    def rewind(self) -> None:
        """Draw this epoch from its own start again, also from a sampler whose state has moved on."""
        if self._stateful is not None:
            self._loaded = self._before_epoch

    @property
    def looks_at_data(self) -> bool:
        """Whether the order may depend on more of the dataset than its length: the sampler isn't one of torch's."""
        return not self._draws_once

    @property
    def keeps_state(self) -> bool:
        """Whether the sampler has a ``state_dict``."""
        return self._stateful is not None

    def begin_order(self, starts_workers: bool) -> None:
        """The sampler's iterator is about to be made."""
        if self.watcher is not None:
            self.watcher.begin_order(self.epoch, starts_workers)

    def end_order(self) -> None:
        """What was drawn before has been drawn again."""
        if self.watcher is not None:
            self.watcher.end_order()

    def apart(self, epoch: int, start: int, limit: int) -> "IndexPlan":
        """A plan of all batches from ``start`` to ``limit`` of ``epoch``. What is being drawn stays as it is."""
        other = copy.copy(self)
        other._states = None
        other.share, other.watcher, other.is_read_ahead = EVERYTHING, None, False
        other.first_use = other.expected = None
        other.begin_epoch(epoch, start, limit)
        return other

    def finish(self, is_whole: bool) -> None:
        """The epoch ended: let the sampler come to its own end, from where nothing was drawn too."""
        if self._stateful is not None:
            return
        if self._rest is None and self.start:
            self.limit = None if is_whole else self.start
            is_read_ahead, self.is_read_ahead = self.is_read_ahead, False
            for _ in self.drawn():
                pass
            self.is_read_ahead = is_read_ahead
        elif is_whole and not self._draws_once and self._rest is not None:
            next(self._rest, None)

    def indices_at(self, epoch: int, batch_nb: int) -> Any:
        """What the sampler gives for one batch of ``epoch``. What is being drawn stays as it is."""
        with self._drawing_again(epoch, batch_nb, batch_nb + 1) as other:
            return next((indices for _, indices, _, _ in other.drawn()), None)

    def crc_again(self, epoch: int, nb_batches: int) -> int:
        """The CRC of the indices of the first ``nb_batches`` of ``epoch``, or of all of them where there are fewer,
        drawn for that. What is being drawn stays as it is."""
        with self._drawing_again(epoch, nb_batches, nb_batches) as other:
            for _ in other.drawn():
                pass
            return other._crcs[max(other._crcs)]

    @contextlib.contextmanager
    def _drawing_again(self, epoch: int, start: int, limit: int) -> "Iterator[IndexPlan]":
        other = self.apart(epoch, start, limit)
        other.rewind()
        moved = None if self._stateful is None else copy.deepcopy(self._stateful.state_dict())
        try:
            yield other
        finally:
            if self._stateful is not None:
                self._stateful.load_state_dict(moved)

    def _catch_up(self) -> None:
        """Resumed at the very end of an epoch, of which nothing was drawn: its draws move the sampler's state on."""
        for _ in self.drawn():
            pass

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[tuple[BatchKey, Any]]:
        seed, epoch, loader_id = self.seed, self.epoch, self.loader_id + self.lane
        for batch_nb, indices, _, crc in self.drawn():
            yield BatchKey(seed, epoch, loader_id, batch_nb, crc), indices

    def drawn(self) -> Iterator[tuple[int, Any, "array[int] | None", int]]:
        """For the same batches (number, what the sampler gave, that as an array, the CRC up to and with it).

        The array is None where the sampler gave something else than whole numbers.
        """
        states = self._states = [state_of(generator) for generator in self._generators]
        start, crcs, crc, batch_nb = self.start, self._crcs, 0, -1
        has, waiting = None if self.share.nb == 1 else self.share.has, list[Any]()
        watcher = None if self.is_read_ahead else self.watcher
        if watcher is not None:
            watcher.begin_order(self.epoch)
        try:
            first, rest, large = self._source()
            for batch_nb, indices in enumerate(rest, first):
                if batch_nb == start:
                    self._compare(crc)
                try:
                    whole = array("q", indices)
                    crc = crc32(whole, crc) if large is None else large.crc_at(batch_nb + 1)
                except TypeError:
                    whole = None
                    crc = crc32(repr(indices).encode(), crc)
                if batch_nb >= start - 1:
                    if watcher is not None and batch_nb == start - 1:
                        watcher.end_order()
                    crcs[batch_nb + 1] = crc
                    crcs.pop(batch_nb - MOST_AHEAD, None)
                if has is None:
                    if batch_nb >= start:
                        yield batch_nb, indices, whole, crc
                    continue
                if batch_nb >= start and has(batch_nb):
                    waiting.append((batch_nb, indices, whole, crc))
                # a round is drawn whole first: where it ends is where a checkpoint may compare
                if not (batch_nb + 1) % self.share.nb:
                    yield from waiting
                    waiting.clear()
            self.nb_drawn = batch_nb + 1
            if not self.share.whole:
                yield from waiting
            if watcher is not None and batch_nb < start - 1:  # others have a longer share, or there are fewer now
                watcher.end_order()
            if batch_nb < start:  # all of them dropped
                self._compare(crc)
                crcs[batch_nb + 1] = crc
        finally:
            if self._states is states:  # otherwise it was left, and is collected in the middle of something else
                self._put_back()

    def _put_back(self) -> None:
        """What was drawn, perhaps not to its end, leaves the generators as they were: a dataset draws from them too."""
        states, self._states = self._states, None
        for generator, state in zip(self._generators, states or (), strict=False):
            set_state_of(generator, state)

    def _compare(self, crc: int) -> None:
        expected, self.expected = self.expected, None
        if expected is not None and crc != expected:
            self.on_other_order()

    def _source(self) -> tuple[int, Iterator[Any], "LargeOrder | None"]:
        """The number of a batch, what is given from there up to ``limit``, and where that has a formula, this.

        Then it begins with the last batch before ``start``; otherwise with the epoch."""
        if self.order >= KEYED:
            from pytorch_lightning.data.large_order import large_order

            epoch = 0 if self.same_each_epoch else self.epoch
            word = seeding.order_word(self.seed, epoch, self.loader_id, self._chosen)
            large = large_order(self.sampler, word)
            if large is not None:
                stop = len(large) if self.limit is None else min(self.limit, len(large))
                first = max(min(self.start, stop) - 1, 0)
                self._compare_first(list(large.batches(first, min(first + 1, stop), EVERYTHING)))
                self._rest = large.batches(first, stop, self.share)
                return first, self._rest, large
        self._rest = self._drawn()
        return 0, islice(self._rest, self.limit), None

    def _compare_first(self, first: list[Any]) -> None:
        first_use, self.first_use = self.first_use, None
        if first_use is not None:
            first_use.compare_indices(first)

    def _drawn(self) -> Iterator[Any]:
        """What the user's sampler gives in this epoch, drawn inside streams of its own."""
        order_epoch = 0 if self.same_each_epoch else self.epoch
        if self._draws_once:
            return self._drawn_by_torch(order_epoch)
        outer = seeding.get_generator_states()
        seeding.seed_order(self.seed, order_epoch, self.loader_id, self._generators, self._chosen)
        # iter(DataLoader) draws a base seed before its sampler draws: so the order is that of list(loader)
        torch.empty((), dtype=torch.int64).random_(generator=self.generator)
        set_epoch(self.sampler, order_epoch)
        if self._stateful is not None:
            if self._loaded is not None:
                self._stateful.load_state_dict(copy.deepcopy(self._loaded))
            self._loaded, self._before_epoch = None, copy.deepcopy(self._stateful.state_dict())
        iterator = iter(self.sampler)
        first = list(islice(iterator, 1))
        inner = seeding.get_generator_states()
        seeding.set_generator_states(outer)
        self._compare_first(first)
        return chain(first, _in_streams(iterator, inner))

    def _drawn_by_torch(self, order_epoch: int) -> Iterator[Any]:
        """The same of a sampler of torch's, which draws by torch alone: numpy's and python's streams can stay."""
        with seeding.torch_order_scope(self.seed, order_epoch, self.loader_id, self._generators, self._chosen):
            torch.empty((), dtype=torch.int64).random_(generator=self.generator)
            set_epoch(self.sampler, order_epoch)
            iterator = iter(self.sampler)
            first = list(islice(iterator, 1))
        self._compare_first(first)
        return chain(first, iterator)


def _in_streams(iterator: Iterator[Any], inner: dict[str, Any]) -> Iterator[Any]:
    """``iterator``, with every draw made in streams that continue from ``inner``."""
    while True:
        outer = seeding.get_generator_states()
        seeding.set_generator_states(inner)
        try:
            indices = next(iterator)
        except StopIteration:
            return
        finally:
            inner = seeding.get_generator_states()
            seeding.set_generator_states(outer)
        yield indices


def set_epoch(sampler: Any, epoch: int) -> None:
    """Tell the epoch to every sampler in the chain that has a ``set_epoch``."""
    for _ in range(8):
        if callable(getattr(sampler, "set_epoch", None)):
            sampler.set_epoch(epoch)
        inner = getattr(sampler, "sampler", None)
        if inner is None or inner is sampler:
            return
        sampler = inner
