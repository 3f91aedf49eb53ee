"""A user's loader as a function: the batches of any epoch, from any batch on.

``replayable(loader, ...)`` never changes the user's loader. A ``DataLoader`` over a map-style dataset is built a
second time around an index plan; a list is indexed; anything else (an ``IterableDataset``, a generator, a loader
with an ``__iter__`` of its own) is run again from the epoch's start and the batches before the cut are dropped,
or from where its own state says.
"""

from collections.abc import Callable, Iterator, Sequence, Sized
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

from pytorch_lightning import seeding
from pytorch_lightning.data import workers
from pytorch_lightning.data.in_memory import InMemory, is_in_memory
from pytorch_lightning.data.index_plan import IndexPlan, set_epoch
from pytorch_lightning.data.loader import OrderWatcher, ReplayableLoader, keeps_state, length_of
from pytorch_lightning.data.same_batches import FirstUse
from pytorch_lightning.data.seeded_view import LANE, BatchKey, KeyedDataset, SeededDataset, loader_name
from pytorch_lightning.data.stream import StreamLoader
from pytorch_lightning.data.workers import OF_MEMORY, is_death, options_of, started, starts_workers, without_signal
from pytorch_lightning.errors import FitError, MisconfigurationException, Notices, describe
from pytorch_lightning.processes import EVERYTHING, Processes, Share

if TYPE_CHECKING:
    from pytorch_lightning.data.worker_tuning import WorkerTuner

MOST_DEATHS = 3
"""After so many deaths of workers there are fewer of them."""


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
        self._plan = IndexPlan(
            sampler, seed, loader_id, generator=loader.generator, same_each_epoch=in_order, share=share
        )
        # a TensorDataset only indexes its tensors: nothing is drawn, so nothing is seeded
        draws_nothing = type(loader.dataset) is TensorDataset and loader.collate_fn is default_collate
        view = (KeyedDataset if draws_nothing else SeededDataset)(loader.dataset, loader.collate_fn)
        self._dataset, self._view = loader.dataset, view
        self._collate = loader.collate_fn if batched else None

        def build(workers: int, plan: Any = self._plan, **options: Any) -> DataLoader[Any]:
            place = {"batch_sampler": plan} if batched else {"batch_size": None, "sampler": plan}
            return DataLoader(view, **place, **{**options_of(loader, workers), **options})

        self._build = build
        self._stateful: Any = loader if keeps_state(loader) else None
        self.nb_deaths = 0
        """Workers that died."""
        self._loader: DataLoader[Any] = self._build(0 if here else loader.num_workers)
        self._in_memory = InMemory(cast("TensorDataset", loader.dataset)) if is_in_memory(loader) else None
        self.nb_workers = loader.num_workers if self._in_memory is None else None
        self.begins_anywhere = not self._plan.keeps_state and self._stateful is None

    def use_in(self, processes: Processes, own: bool) -> None:
        if own:
            self._plan.lane = LANE * processes.rank
        else:
            self._plan.first_use = FirstUse(processes, self._plan.loader_id, self._dataset, self._fetch)

    def _fetch(self, indices: Any) -> Any:
        """The batch of these indices, made as the first one is, and apart from all others."""
        key = BatchKey(self._plan.seed, 0, self._plan.loader_id, 0, 0)
        with seeding.preserved():
            once = self._build(min(1, self._loader.num_workers), [(key, indices)], persistent_workers=False)
            return next(started(once))

    def batches(self, epoch: int, start: int = 0, limit: int | None = None) -> Iterator[Any]:
        self._plan.begin_epoch(epoch, start, limit)
        set_epoch(getattr(self._loader.dataset, "_dataset", None), epoch)
        self._check_finished()
        if self._in_memory is not None:
            return self._in_memory.batches(self._plan.drawn())
        if self._tuner is not None and self._tuner.is_done:
            self._tuner = None
        if self._tuner is not None:
            self._tuner.begin()
        elif not self._loader.num_workers:
            return iter(self._loader)
        return self._revived(epoch, start, limit)

    _tuner: "WorkerTuner | None" = None
    """Chooses the number of workers, where it isn't the user's alone."""

    def tune(self, nb_processes: int, watcher: OrderWatcher, notices: Notices) -> str | None:
        if self._in_memory is not None:
            return "the data are tensors in memory, and workers would only take time"
        if not self.begins_anywhere:
            return "the loader or its sampler has a state of its own"
        if self._plan.looks_at_data:
            return "the sampler isn't one of torch's: workers have it read ahead, and what it keeps would be ahead too"
        from pytorch_lightning.data.worker_tuning import WorkerTuner, cores_for

        data = {"dataset": self._dataset, "collate_fn": self._collate}
        most = cores_for(nb_processes)
        forked = workers.are_forked(self._loader)
        self._tuner = WorkerTuner(self._loader.num_workers, most, data, watcher.changed, notices, forked=forked)
        return None

    @property
    def order(self) -> int:  # type: ignore[override]
        return self._plan.order

    def use_order(self, version: int) -> None:
        self._plan.order = version

    def close(self) -> None:
        workers.end_workers(self._loader, self._running)
        self._running = None

    def _check_finished(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is None or self._plan.keeps_state or self._stateful is not None:
            return
        (epoch, nb, crc), on_other_order = waiting
        again = self._plan.apart(epoch, nb, nb)
        again.expected, again.on_other_order, again.watcher = crc, on_other_order, self._plan.watcher
        for _ in again.drawn():
            pass

    def _revived(self, epoch: int, start: int, limit: int | None) -> Iterator[Any]:
        """The batches, from other workers where one of those that make them dies, or another number is chosen."""
        share, nb_given, dropped, tuner = self._plan.share, 0, 0, self._tuner
        while True:
            nb_workers, iterator, has_workers = None, None, bool(self._loader.num_workers)
            try:
                if has_workers:  # without any the plan itself tells its watcher
                    self._plan.begin_order(starts_workers(self._loader))
                iterator = self._running = without_signal(started(self._loader))
                if has_workers:
                    self._plan.end_order()
                batches: Iterator[Any] = islice(iterator, dropped, None)
                if tuner is not None and has_workers and not tuner.begun:
                    workers.with_patience(iterator, tuner.patience)
                if tuner is not None:
                    nb_workers = tuner.compared(batches)
                    batches = iter(()) if nb_workers is not None else tuner.timed(batches)
                for batch in batches:
                    yield batch
                    nb_given += 1
                    if tuner is not None and self._has_more(start, nb_given, limit):
                        nb_workers = tuner.wanted()
                        if nb_workers is not None:
                            break
            except Exception as error:
                nb_workers = self._after(error, iterator)
                if nb_workers is None:
                    raise
            if nb_workers is None:
                break
            workers.end_workers(self._loader, iterator)
            del iterator
            self._running = None
            self._use(nb_workers)
            nb_rounds, dropped = divmod(nb_given - (0 if tuner is None else tuner.nb_again), len(share.mine))
            self._plan.rewind()
            self._plan.begin_epoch(epoch, start + nb_rounds * share.nb, limit)

    def _has_more(self, start: int, nb_given: int, limit: int | None) -> bool:
        share, nb = self._plan.share, length_of(self._plan)
        place = start + nb_given // len(share.mine) * share.nb
        return all(end is None or place < end for end in (nb, limit))

    def _use(self, nb_workers: int) -> None:
        self._loader, self.nb_workers = self._build(nb_workers), nb_workers
        self._plan.is_read_ahead = bool(nb_workers)

    def _after(self, error: Exception, iterator: Any) -> int | None:
        """How many workers go on where ``error`` came while they made a batch; None where it isn't theirs."""
        nb, tuner = self._loader.num_workers, self._tuner
        is_chosen = tuner is not None and nb != tuner.begun
        if isinstance(error, (RuntimeError, OSError, EOFError)) and is_death(error, iterator):
            self.nb_deaths += 1
            if tuner is not None:
                tuner.stop("a worker died")
                nb = tuner.begun
            elif self.nb_deaths > MOST_DEATHS:
                nb //= 2
            text = f"a worker of {loader_name(self._plan.loader_id)} is dead: {error}. {OF_MEMORY}"
            Notices().report(f"{text} Training continues bit-for-bit, with {nb} workers.")
            return nb
        if tuner is not None and is_chosen and not isinstance(error, FitError):
            name = type(error).__name__
            said = next((line for line in str(error).splitlines()[::-1] if line.startswith(f"{name}:")), f"{name}")
            is_silent = isinstance(error, workers.SilentWorkersError)
            tuner.stop(f"workers {error}" if is_silent else f"with {nb} workers there was {said}")
            return tuner.begun
        return None

    _running: Any = None
    """What gives the batches that workers make."""
    _waiting: tuple[tuple[int, int, int], Callable[[], None]] | None = None

    def expect_finished(self, finished: tuple[int, int, int], on_other_order: Callable[[], None]) -> None:
        self.finished_epoch = finished  # until another one ends
        self._waiting = finished, on_other_order

    def finish(self, epoch: int, nb_batches: int, is_whole: bool) -> None:
        if self._tuner is not None:
            self._tuner.finish()
        self._plan.finish(is_whole)
        nb_batches = min(nb_batches, self._plan.nb_drawn or nb_batches)  # the last round may be a short one
        crc = self._plan.crc_at(nb_batches)
        self.finished_epoch = None if crc is None or not nb_batches else (epoch, nb_batches, crc)

    def watch(self, watcher: OrderWatcher) -> None:
        self._plan.watcher = watcher
        self._plan.is_read_ahead = bool(self._loader.num_workers)

    @property
    def nb_drawn(self) -> int:  # type: ignore[override]
        return self._plan.nb_drawn

    def crc_at(self, nb_batches: int) -> int | None:
        return self._plan.crc_at(nb_batches)

    def indices_at(self, epoch: int, number: int) -> Any:
        return self._plan.indices_at(epoch, number)

    def crc_again(self, epoch: int, nb_batches: int) -> int | None:
        return self._plan.crc_again(epoch, nb_batches)

    def samples_at(self, epoch: int, number: int) -> list[tuple[Any, Any]] | None:
        indices = self.indices_at(epoch, number)
        if self._collate is None or not isinstance(indices, (list, tuple)):
            return None
        set_epoch(self._dataset, epoch)
        key = BatchKey(self._plan.seed, epoch, self._plan.loader_id + self._plan.lane, number, 0)
        with seeding.preserved():
            samples = self._view.__getitems__((key, list(indices)))
            if not isinstance(samples, list) or len(samples) != len(indices):
                return None  # it makes the whole batch itself
            return [(index, self._collate([sample])) for index, sample in zip(indices, samples, strict=True)]

    @property
    def looks_at_data(self) -> bool:  # type: ignore[override]
        return self._plan.looks_at_data

    def expect(self, crc: int, on_other_order: Callable[[], None]) -> None:
        self._plan.expected, self._plan.on_other_order = crc, on_other_order

    def sampler_state(self, begun: bool) -> dict[str, Any] | None:
        return self._plan.sampler_state(begun)

    def load_sampler(self, state: dict[str, Any], epoch: int, start: int) -> None:
        self._plan.load_sampler(state, epoch, start)

    def own_state(self, epoch: int) -> dict[str, Any] | None:
        # the position isn't in it, since that loader isn't iterated
        return None if self._stateful is None else {"state": self._stateful.state_dict()}

    def load_own(self, state: dict[str, Any]) -> None:
        if self._stateful is not None:
            self._stateful.load_state_dict(state["state"])


class SequenceLoader(ReplayableLoader):
    """A list or tuple of ready batches."""

    begins_anywhere = True

    def __init__(self, batches: Sequence[Any], loader_id: int, share: Share) -> None:
        self._batches, self._loader_id, self._share = batches, loader_id, share
        self._first_use: FirstUse | None = None

    def use_in(self, processes: Processes, own: bool) -> None:
        self._first_use = None if own else FirstUse(processes, self._loader_id)

    def batches(self, epoch: int, start: int = 0, limit: int | None = None) -> Iterator[Any]:
        first_use, self._first_use = self._first_use, None
        if first_use is not None:
            first_use.compare_batch([len(self._batches), *self._batches[:1]])
        self.nb_drawn = len(self._batches) if limit is None else min(limit, len(self._batches))
        if self._share.nb == 1:
            return islice(iter(self._batches), start, limit)
        return (self._batches[n] for n in range(start, self.nb_drawn) if self._share.has(n))


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
        return SequenceLoader(loader, loader_id, share)
    if not hasattr(loader, "__iter__"):
        raise MisconfigurationException(
            f"a loader must have __iter__; received {describe(loader)}. Return a DataLoader."
        )
    return StreamLoader(loader, seed, loader_id, share)


def shared_out(loader: Any, seed: int, loader_id: int, share: Share, processes: Processes, **how: Any) -> Any:
    """``replayable``, in each of ``processes``: what of ``loader`` is dealt out to this one, or all of it where that is
    its own share."""
    replay = replayable(loader, seed, loader_id, share=EVERYTHING if share.own else share, **how)
    if processes.nb > 1:
        replay.use_in(processes, share.own)
    return replay


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


def samples_of(loader: Any, share: Share) -> tuple[int, int] | None:
    """The samples of a full round and of an epoch of ``loader``; None where it doesn't tell.

    >>> samples_of(DataLoader(range(100), batch_size=32), EVERYTHING)
    (32, 100)
    >>> samples_of(DataLoader(range(100), batch_size=32, drop_last=True), EVERYTHING)
    (32, 96)
    """
    sizes, drawn = sizes_of(loader), length_of(getattr(loader, "sampler", None))
    batch, whole = sizes.get("the batch size"), sizes.get("the number of samples")
    if batch is None or whole is None:
        return None
    whole = min(whole if drawn is None else drawn, batch * sizes.get("the number of batches", whole))
    return batch * share.nb, whole * (share.nb if share.own else 1)


def shuffles(loader: Any) -> bool:
    """Whether the order isn't known to be the dataset's own."""
    sampler = batches = getattr(loader, "batch_sampler", None)
    if batches is None or type(batches) is BatchSampler:
        sampler = getattr(loader if batches is None else batches, "sampler", None)
    return not isinstance(sampler, SequentialSampler)
