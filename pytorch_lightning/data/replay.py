"""A user's loader as a function: the batches of any epoch, from any batch on.

``replayable(loader, ...)`` never changes the user's loader. A ``DataLoader`` over a map-style dataset is built a
second time around an index plan; a list is indexed; anything else (an ``IterableDataset``, a generator, a loader
with an ``__iter__`` of its own) is run again from the epoch's start and the batches before the cut are dropped.
"""

import contextlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence, Sized
from itertools import islice
from multiprocessing import connection
from typing import Any, cast

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

from pytorch_lightning import seeding
from pytorch_lightning.data.in_memory import InMemory, is_in_memory
from pytorch_lightning.data.index_plan import IndexPlan, set_epoch
from pytorch_lightning.data.seeded_view import KeyedDataset, SeededDataset, SeededIterable, loader_name, pass_name
from pytorch_lightning.data.workers import Shielded, held_signals
from pytorch_lightning.errors import FitError, MisconfigurationException, Notices, describe
from pytorch_lightning.processes import EVERYTHING, Share


class ReplayableLoader(ABC):
    """The batches of a loader as a function of (seed, epoch, batch number)."""

    nb_drawn = 0
    """How many batches the epoch had, other processes' included; known once ``batches`` was used up."""
    share: Share = EVERYTHING
    """The batches that are this process's, where they are dealt out in rounds."""
    nb_workers: int | None = None
    """How many processes make batches; None where there can't be any, or where they wouldn't help."""

    takes_back = True
    """Whether the CRC of a position that training goes back to is still known."""
    bound_to_workers: int | None = None
    """The number of workers, where the order depends on it."""

    @abstractmethod
    def batches(self, epoch: int, start: int = 0, limit: int | None = None) -> Iterator[Any]:
        """The batches ``start`` to ``limit`` of ``epoch``, those of them that are this process's."""

    def crc_at(self, nb_batches: int) -> int | None:
        """The CRC of the indices of the first ``nb_batches`` batches of the epoch; None where there are none."""
        return None

    def indices_at(self, epoch: int, number: int) -> Any:
        """What the sampler gives for one batch of ``epoch``; None where there is no sampler."""
        return None

    def expect(self, crc: int, on_other_order: Callable[[], None]) -> None:
        """Call ``on_other_order`` where the batches dropped by the next ``batches`` don't have this CRC."""
        del crc, on_other_order  # without indices there is nothing to compare

    def sampler_state(self, begun: bool) -> dict[str, Any] | None:
        """The state of a sampler that has one: before this epoch if that has ``begun``, otherwise as it is."""
        return None

    def load_sampler(self, state: dict[str, Any], epoch: int, start: int) -> None:
        """Put it back, for the batches from ``start`` of ``epoch``."""


class IndexedLoader(ReplayableLoader):
    """A DataLoader over a map-style dataset, built again around an ``IndexPlan``."""

    def __init__(
        self, loader: DataLoader[Any], seed: int, loader_id: int, in_order: bool, share: Share, here: bool
    ) -> None:
        batched = loader.batch_sampler is not None
        sampler: Any = loader.batch_sampler if batched else loader.sampler
        if in_order and batched and loader.batch_size is not None:
            sampler = BatchSampler(
                SequentialSampler(cast("Sized", loader.dataset)), loader.batch_size, loader.drop_last
            )
        if share.nb > 1:
            sampler = _undistributed(sampler, loader)
        self._plan = IndexPlan(
            sampler, seed, loader_id, generator=loader.generator, same_each_epoch=in_order, share=share
        )
        # a TensorDataset only indexes its tensors: nothing is drawn, so nothing is seeded
        draws_nothing = type(loader.dataset) is TensorDataset and loader.collate_fn is default_collate
        view = (KeyedDataset if draws_nothing else SeededDataset)(loader.dataset)
        place = {"batch_sampler": self._plan} if batched else {"batch_size": None, "sampler": self._plan}
        self._build: Callable[[int], DataLoader[Any]] = lambda workers: DataLoader(
            view, **place, **_options_of(loader, workers)
        )
        self.nb_deaths = 0
        """Workers that died."""
        self._loader: DataLoader[Any] = self._build(0 if here else loader.num_workers)
        self._in_memory = InMemory(cast("TensorDataset", loader.dataset)) if is_in_memory(loader) else None
        self.nb_workers = loader.num_workers if self._in_memory is None else None

    def batches(self, epoch: int, start: int = 0, limit: int | None = None) -> Iterator[Any]:
        self._plan.begin_epoch(epoch, start, limit)
        set_epoch(getattr(self._loader.dataset, "_dataset", None), epoch)
        if self._in_memory is not None:
            return self._in_memory.batches(self._plan.drawn())
        return self._revived(epoch, start, limit) if self._loader.num_workers else iter(self._loader)

    def _revived(self, epoch: int, start: int, limit: int | None) -> Iterator[Any]:
        """The batches, from new workers where one of those that make them dies."""
        share, nb_given, dropped = self._plan.share, 0, 0
        while True:
            iterator = without_signal(started(self._loader))
            try:
                for batch in islice(iterator, dropped, None):
                    yield batch
                    nb_given += 1
                return
            except (RuntimeError, OSError, EOFError) as error:
                if not is_death(error, iterator):
                    raise
                text = f"a worker of {loader_name(self._plan.loader_id)} is dead: {error}. {OF_MEMORY}"
            del iterator
            self.nb_deaths += 1
            workers = self._loader.num_workers
            if self.nb_deaths > MOST_DEATHS:
                workers //= 2
            Notices().report(f"{text} Training goes on exactly, with {workers} workers.")
            self._loader = self._build(workers)
            nb_rounds, dropped = divmod(nb_given, len(share.mine))
            self._plan.rewind()
            self._plan.begin_epoch(epoch, start + nb_rounds * share.nb, limit)

    @property
    def nb_drawn(self) -> int:  # type: ignore[override]
        return self._plan.nb_drawn

    def crc_at(self, nb_batches: int) -> int | None:
        return self._plan.crc_at(nb_batches)

    def indices_at(self, epoch: int, number: int) -> Any:
        return self._plan.indices_at(epoch, number)

    def expect(self, crc: int, on_other_order: Callable[[], None]) -> None:
        self._plan.expected, self._plan.on_other_order = crc, on_other_order

    def sampler_state(self, begun: bool) -> dict[str, Any] | None:
        return self._plan.sampler_state(begun)

    def load_sampler(self, state: dict[str, Any], epoch: int, start: int) -> None:
        self._plan.load_sampler(state, epoch, start)


class SequenceLoader(ReplayableLoader):
    """A list or tuple of ready batches."""

    def __init__(self, batches: Sequence[Any], share: Share = EVERYTHING) -> None:
        self._batches, self._share = batches, share

    def batches(self, epoch: int, start: int = 0, limit: int | None = None) -> Iterator[Any]:
        self.nb_drawn = len(self._batches) if limit is None else min(limit, len(self._batches))
        if self._share.nb == 1:
            return islice(iter(self._batches), start, limit)
        return (self._batches[n] for n in range(start, self.nb_drawn) if self._share.has(n))


class StreamLoader(ReplayableLoader):
    """Anything with ``__iter__``: each batch is made after the streams were seeded for it."""

    def __init__(self, loader: Any, seed: int, loader_id: int, share: Share = EVERYTHING) -> None:
        self._seed, self._loader_id, self._share = seed, loader_id, share
        self._view: SeededIterable | None = None
        self._loader = loader
        if isinstance(loader, DataLoader) and type(loader).__iter__ is DataLoader.__iter__:
            self.nb_workers = self.bound_to_workers = loader.num_workers
            self._view = SeededIterable(loader.dataset, seed, loader_id)
            self._loader = DataLoader(
                self._view, batch_size=loader.batch_size, drop_last=loader.drop_last, **_options_of(loader)
            )
        self._used_up = False

    def batches(self, epoch: int, start: int = 0, limit: int | None = None) -> Iterator[Any]:
        if self._used_up:
            raise FitError(
                f"{loader_name(self._loader_id)} gave its batches in an earlier epoch and can't start again; received"
                f" {describe(self._loader)}, an iterator. Return a DataLoader, a list, or an object whose __iter__"
                " starts anew."
            )
        seed, loader_id = self._seed, self._loader_id
        if self._view is not None:
            self._view.begin_epoch(epoch)
        for chained in (self._loader, getattr(self._loader, "dataset", None), getattr(self._loader, "sampler", None)):
            set_epoch(chained, epoch)
        seeding.seed_order(seed, epoch, loader_id, (), ())
        iterator = without_signal(started(self._loader))
        self._used_up = iterator is self._loader
        return self._dealt(islice(self._seeded(iterator, epoch), start, limit), start)

    def _dealt(self, batches: Iterator[Any], start: int) -> Iterator[Any]:
        """This process's share of ``batches``. The others' are made too: only so do all see the same stream."""
        self.nb_drawn = start
        for batch in batches:
            self.nb_drawn += 1
            if self._share.has(self.nb_drawn - 1):
                yield batch

    def _seeded(self, iterator: Iterator[Any], epoch: int) -> Iterator[Any]:
        seed, loader_id, batch_nb = self._seed, self._loader_id, 0
        while True:
            seeding.seed_streams(seed, seeding.DATA, epoch, batch_nb, loader_id)
            try:
                batch = next(iterator)
            except StopIteration:
                if not batch_nb:
                    text = f"{loader_name(loader_id)} gave no batch at all ({pass_name(loader_id, epoch)})"
                    raise FitError(f"{text}. Check its dataset and its length.") from None
                return
            except Exception as error:
                if is_death(error, iterator):
                    raise FitError(
                        f"{error}. {OF_MEMORY} The stream of an IterableDataset can't be taken up in its middle:"
                        " resume='auto' goes on from the last save."
                    ) from error
                error.add_note(
                    f"raised by {loader_name(loader_id)} ({pass_name(loader_id, epoch)}, batch_nb {batch_nb})"
                )
                raise
            yield batch
            batch_nb += 1


SECONDS_TO_DIE = 5.0
MOST_DEATHS = 3
"""After so many deaths of workers there are fewer of them."""
OF_MEMORY = "Was it killed for memory? Look at /dev/shm, and at num_workers times what one of them holds."


def is_death(error: BaseException, iterator: Any) -> bool:
    """Whether ``error`` says that a worker of a loader's ``iterator`` is dead, or lies in its half-sent batch."""
    if re.match(r"DataLoader worker \(pid.*(exited unexpectedly|is killed by signal)", str(error)):
        return True
    workers = [worker.sentinel for worker in getattr(iterator, "_workers", ())]
    sending = isinstance(error, (ConnectionError, EOFError, FileNotFoundError))
    # its end of the connection is closed a moment before it is known to be dead
    return sending and bool(workers) and bool(connection.wait(workers, timeout=SECONDS_TO_DIE))


def without_signal(iterator: Any) -> Any:
    """``iterator``, a dead worker of which is noticed when a batch is asked for.

    torch would raise it in a signal handler, so in the middle of whatever is being done: of an optimizer's step, say.
    """
    with contextlib.suppress(ImportError, AttributeError, ValueError):
        from torch._C import _remove_worker_pids, _set_worker_pids

        if iterator._worker_pids_set:
            _remove_worker_pids(id(iterator))
            _set_worker_pids(id(iterator), ())
    return iterator


def _options_of(loader: DataLoader[Any], nb_workers: int | None = None) -> dict[str, Any]:
    """What a private loader takes over from the user's."""
    nb_workers = loader.num_workers if nb_workers is None else nb_workers
    options: dict[str, Any] = {
        "num_workers": nb_workers,
        "collate_fn": loader.collate_fn,
        # pinning without an accelerator only warns
        "pin_memory": loader.pin_memory and torch.accelerator.is_available(),
        "timeout": loader.timeout if nb_workers else 0,
        "worker_init_fn": Shielded(loader.worker_init_fn) if nb_workers else loader.worker_init_fn,
        "multiprocessing_context": loader.multiprocessing_context if nb_workers else None,
        "persistent_workers": loader.persistent_workers and bool(nb_workers),
        "in_order": True,
        # iter() draws a base seed from this generator, so that it draws nothing from the global stream
        "generator": torch.Generator().manual_seed(0),
    }
    if loader.num_workers and not nb_workers:
        options |= {"timeout": 0, "persistent_workers": False, "multiprocessing_context": None}
    if nb_workers:
        options["prefetch_factor"] = loader.prefetch_factor
    return options


def started(loader: Any) -> Iterator[Any]:
    """``iter(loader)``, signals to its workers held back until they can take them."""
    if not (isinstance(loader, DataLoader) and loader.num_workers and isinstance(loader.worker_init_fn, Shielded)):
        return iter(loader)
    with held_signals():
        return iter(loader)


def _undistributed(sampler: Any, loader: DataLoader[Any]) -> Any:
    """``sampler`` without a DistributedSampler in it: batches are dealt out here, and dealing twice loses samples."""
    inner = sampler.sampler if type(sampler) is BatchSampler else sampler
    if type(inner) is not DistributedSampler:
        return sampler
    data = cast("Sized", loader.dataset)
    generator = torch.Generator().manual_seed(inner.seed)
    whole: Sampler[int] = RandomSampler(data, generator=generator) if inner.shuffle else SequentialSampler(data)
    return BatchSampler(whole, sampler.batch_size, sampler.drop_last) if type(sampler) is BatchSampler else whole


def replayable(
    loader: Any,
    seed: int,
    loader_id: int,
    *,
    in_order: bool = False,
    share: Share = EVERYTHING,
    here: bool = False,
) -> ReplayableLoader:
    """``loader`` as a ``ReplayableLoader``.

    ``loader_id`` keeps the streams of a run's loaders apart. ``in_order`` gives the same batches in each epoch,
    unshuffled where the loader makes its own batches. ``share`` says which batches are given.
    ``here`` makes the batches of a map-style dataset in this process, whatever ``num_workers`` is. Raises
    ``MisconfigurationException`` for what has no ``__iter__``.
    """
    if isinstance(loader, DataLoader) and type(loader).__iter__ is DataLoader.__iter__:
        if isinstance(loader.dataset, IterableDataset):
            return StreamLoader(loader, seed, loader_id, share)
        return IndexedLoader(loader, seed, loader_id, in_order, share, here)
    if type(loader) in (list, tuple):
        return SequenceLoader(loader, share)
    if not hasattr(loader, "__iter__"):
        raise MisconfigurationException(
            f"a loader must have __iter__; received {describe(loader)}. Return a DataLoader."
        )
    return StreamLoader(loader, seed, loader_id, share)


def is_distributed(loader: Any) -> bool:
    """Whether ``loader`` deals its samples out to processes by itself."""
    return isinstance(getattr(loader, "sampler", None), DistributedSampler)


def sizes_of(loader: Any) -> dict[str, int]:
    """What may not change between a checkpoint and its resume, as far as ``loader`` tells.

    >>> sizes_of(DataLoader([1, 2, 3], batch_size=2))
    {'the number of batches': 2, 'the batch size': 2, 'the number of samples': 3}
    """
    found = {
        "the number of batches": length_of(loader),
        "the batch size": getattr(loader, "batch_size", None),
        "the number of samples": length_of(getattr(loader, "dataset", None)),
    }
    return {name: size for name, size in found.items() if isinstance(size, int)}


def length_of(loader: Any) -> int | None:
    """How many batches ``loader`` has; None where it can't say."""
    try:
        return len(loader)
    except (TypeError, NotImplementedError):
        return None


def shuffles(loader: Any) -> bool:
    """Whether the order isn't known to be the dataset's own."""
    sampler = batches = getattr(loader, "batch_sampler", None)
    if batches is None or type(batches) is BatchSampler:
        sampler = getattr(loader if batches is None else batches, "sampler", None)
    return not isinstance(sampler, SequentialSampler)
