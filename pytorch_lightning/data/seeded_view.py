"""Views of a user's dataset that seed every generator from the batch's key before the batch is fetched."""

import faulthandler
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from pytorch_lightning import seeding
from pytorch_lightning.data.generators import MOST_LEVELS, find_generators

LOADER_IDS = {"the training loader": 0, "validation loader": 16, "test loader": 4096, "predict loader": 8192}
"""Keeps the random streams of a run's loaders apart: the first id of each kind. Released numbers never change."""


LANE = 2**20
"""Times the rank, this keeps apart what the loaders of several processes draw where each has its own share."""

HANG_SECONDS = 60.0
"""A loader's worker that makes one batch for so long writes the stacks of its threads."""


def loader_name(loader_id: int) -> str:
    """The loader with this id, for messages.

    >>> loader_name(0), loader_name(17)
    ('the training loader', 'validation loader 1')
    """
    loader_id %= LANE
    name, first = max(((n, i) for n, i in LOADER_IDS.items() if i <= loader_id), key=lambda pair: pair[1])
    return f"{name} {loader_id - first}" if first else name


def pass_name(loader_id: int, epoch: int) -> str:
    """Which pass over that loader, for messages: an epoch of training, a number of a validation.

    >>> pass_name(0, 3), pass_name(16, 3), pass_name(16, 2**62)
    ('epoch 3', 'pass 3', 'sanity pass')
    """
    return f"epoch {epoch}" if loader_id % LANE == 0 else f"pass {epoch}" if epoch < 2**62 else "sanity pass"


def watch() -> bool:
    """Write the stacks of this process's threads in ``HANG_SECONDS``, where it is a loader's worker."""
    if get_worker_info() is None:
        return False
    faulthandler.dump_traceback_later(HANG_SECONDS, file=2)
    return True


unwatch = faulthandler.cancel_dump_traceback_later


def watched(samples: Iterable[Any], together: int) -> Iterator[Any]:
    """``samples``, each ``together`` of which a worker must make within ``HANG_SECONDS``."""
    waiting, nb = iter(samples), 0
    try:
        while True:
            if not nb % together:
                watch()
            try:
                sample = next(waiting)
            except StopIteration:
                return
            nb += 1
            if not nb % together:
                unwatch()
            yield sample
    finally:
        unwatch()


class BatchKey(NamedTuple):
    """Which batch: the run's seed, the epoch, the loader, the number of the batch in its epoch, and the CRC of
    all indices up to and with it."""

    seed: int
    epoch: int
    loader_id: int
    batch_nb: int
    crc: int


class _View:
    """Forwards every attribute to the dataset behind it, and pickles (for spawned workers)."""

    _own: tuple[str, ...] = ("_dataset", "_generators", "_also")

    def __init__(self, dataset: Any, *also: Any) -> None:
        """``also`` are what else makes the batches: a ``collate_fn``."""
        self.__dict__.update(_dataset=dataset, _generators=None, _also=also)

    def __getattr__(self, name: str) -> Any:
        if name in type(self)._own:  # while it is being unpickled
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._dataset, name, value)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_generators": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def _find_generators(self) -> list[Any]:
        """The generators that the dataset and the ``collate_fn`` use, found once in each process that fetches: a worker
        has copies."""
        if self._generators is None:
            self.__dict__["_generators"] = find_generators([self._dataset, *self._also], 1 + MOST_LEVELS)
        return self.__dict__["_generators"]  # type: ignore[no-any-return]


class KeyedDataset(_View, Dataset[Any]):
    """A map-style dataset whose indices arrive as (key, index or list of indices). It is known to draw nothing.

    An exception of the user's dataset gets a note of which sample that was.
    """

    def __len__(self) -> int:
        return len(self._dataset)

    _seed: Any = None
    """Called with a batch's key before its samples are fetched, if there is something to seed."""

    def __getitems__(self, item: tuple[BatchKey, list[Any]]) -> list[Any]:
        key, indices = item
        watched = watch()
        if self._seed is not None:
            self._seed(key)
        fetch_all = getattr(self._dataset, "__getitems__", None)
        waiting = iter(indices)
        try:
            return list(map(self._dataset.__getitem__, waiting)) if fetch_all is None else fetch_all(indices)
        except Exception as error:
            error.add_note(_place(key, indices, None if fetch_all is not None else list(waiting)))
            raise
        finally:
            if watched:
                unwatch()

    def __getitem__(self, item: tuple[BatchKey, Any]) -> Any:
        key, indices = item
        watched = watch()
        if self._seed is not None:
            self._seed(key)
        try:
            return self._dataset[indices]
        except Exception as error:
            error.add_note(_place(key, indices, None))
            raise
        finally:
            if watched:
                unwatch()


def _place(key: BatchKey, indices: Any, waiting: list[Any] | None) -> str:
    """Where an exception came from. ``waiting``: the samples that hadn't been asked for yet, where that is known."""
    words = [pass_name(key.loader_id, key.epoch), f"batch_nb {key.batch_nb}"]
    if isinstance(indices, list) and waiting is not None:
        words.append(f"sample {indices[len(indices) - len(waiting) - 1]}")
    shown = [str(index) for index in indices[:16]] if isinstance(indices, list) else [str(indices)]
    more = ", ..." if isinstance(indices, list) and len(indices) > 16 else ""
    words.append(f"samples of the batch [{', '.join(shown)}{more}]")
    worker = get_worker_info()
    if worker is not None:
        words.append(f"worker {worker.id}")
    return f"raised by the dataset of {loader_name(key.loader_id)} ({', '.join(words)})"


class SeededDataset(KeyedDataset):
    """The same for any other: every generator is seeded from the key before the batch is fetched."""

    def _seed(self, key: BatchKey) -> None:
        word = seeding.seed_streams(key.seed, seeding.DATA, key.epoch, key.batch_nb, key.loader_id)
        generators = self._find_generators() if self._generators is None else self._generators
        if generators:
            seeding.reseed_generators(generators, word)


class SeededIterable(_View, IterableDataset[Any]):
    """An iterable dataset that is seeded once per (epoch, worker), when its iteration starts."""

    _own = ("_dataset", "_generators", "_also", "_key", "_together")

    def __init__(self, dataset: Any, seed: int, loader_id: int, together: int = 1, also: tuple[Any, ...] = ()) -> None:
        super().__init__(dataset, *also)
        self.__dict__["_together"] = together
        signed = (seed + 2**63) % 2**64 - 2**63  # torch.initial_seed() has 64 bits, and so has the seed read from it
        # shared memory, so that persistent workers see the epoch change
        self.__dict__["_key"] = torch.tensor([signed, loader_id, 0], dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def enter_lane(self, lane: int) -> None:
        """What workers draw differs from what those of other processes draw."""
        self._key[1] += lane

    def begin_epoch(self, epoch: int) -> None:
        self._key[2] = epoch

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        seed, loader_id, epoch = self._key.tolist()
        if worker is not None:  # without workers the streams are seeded for each batch
            word = seeding.derive(seed, seeding.WORKER, epoch, loader_id, worker.id)
            seeding.seed_streams(word, seeding.WORKER)
        # alike in all workers and processes: one that shares out a shuffled list counts on that
        word = seeding.derive(seed, seeding.WORKER, epoch, loader_id % LANE, 0)
        seeding.reseed_generators(self._find_generators(), word)
        return iter(self._dataset) if worker is None else watched(self._dataset, self._together)
