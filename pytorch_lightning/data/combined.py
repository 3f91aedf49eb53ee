"""Several training loaders as one: a batch holds one batch of each, in the form that the loaders came in.

Loaders over map-style datasets and lists of batches become one ``DataLoader``, whose sampler yields the indices for all
of them, so that processes, workers and a resume need nothing of their own. Where one of them can only be run, all are
run, from the epoch's start.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, Sampler, SequentialSampler

from pytorch_lightning.data.index_plan import set_epoch
from pytorch_lightning.data.loader import keeps_state, length_of
from pytorch_lightning.data.workers import options_of, started, without_signal
from pytorch_lightning.errors import FitError, describe

MODES = ("longest", "shortest")
"""When an epoch ends: with the longest loader, while shorter ones begin again, or with the shortest."""


def is_several(loaders: Any) -> bool:
    """Whether ``loaders`` are several: a dict, or a list or tuple of things that know their ``dataset``. Any other list
    is one loader: a list of batches.

    >>> loader = DataLoader([1, 2])
    >>> is_several({"a": loader}), is_several([loader, loader]), is_several([1, 2])
    (True, True, False)
    """
    if isinstance(loaders, Mapping):
        return True
    return isinstance(loaders, (list, tuple)) and bool(loaders) and all(hasattr(each, "dataset") for each in loaders)


def named(loaders: Any) -> dict[Any, Any]:
    """Each of several loaders, by its key or its place."""
    return dict(loaders) if isinstance(loaders, Mapping) else dict(enumerate(loaders))


def parts_of(loader: Any) -> dict[Any, Any]:
    """The user's loaders that ``loader`` was made of, by key or place; itself, under None, where it is one."""
    return loader.loaders if isinstance(loader, (CombinedLoader, CombinedStream)) else {None: loader}


def combine(loaders: Any, mode: str, each: dict[Any, Any] | None = None, *, in_order: bool = False) -> Any:
    """The one loader that stands for ``loaders``, or for what stands for ``each`` of them. ``in_order`` leaves out what
    shuffles."""
    each = named(loaders) if each is None else each
    kind: type = CombinedLoader if all(map(_is_indexed, each.values())) else CombinedStream
    return kind(each, _Form(loaders), mode, in_order)


def _is_indexed(loader: Any) -> bool:
    """Whether the batches of ``loader`` can be made from indices."""
    if type(loader) in (list, tuple):
        return True
    is_plain = isinstance(loader, DataLoader) and type(loader).__iter__ is DataLoader.__iter__
    return is_plain and not isinstance(loader.dataset, IterableDataset)


class _Form:
    """Puts what came of each loader into the form of ``loaders``."""

    def __init__(self, loaders: Any) -> None:
        self._keys = tuple(loaders) if isinstance(loaders, Mapping) else None
        self._kind = type(loaders)

    def __call__(self, batches: Sequence[Any]) -> Any:
        if self._keys is not None:
            return dict(zip(self._keys, batches, strict=True))
        return self._kind(*batches) if hasattr(self._kind, "_fields") else self._kind(batches)


# ---------------------------------------------------------------------------------------- made from indices
class CombinedLoader(DataLoader[Any]):
    """Loaders over map-style datasets, and lists of batches, with the workers of all of them."""

    def __init__(self, loaders: dict[Any, Any], form: _Form, mode: str, in_order: bool) -> None:
        self.loaders = loaders
        own = [loader for loader in loaders.values() if isinstance(loader, DataLoader)]
        fed = [loader for loader in own if loader.num_workers]
        inits = [loader.worker_init_fn for loader in own if loader.worker_init_fn is not None]
        samplers = _StatefulSamplers if any(map(_has_state, loaders.values())) else _Samplers
        super().__init__(
            _Datasets(loaders),
            batch_sampler=samplers(loaders, mode, in_order),
            collate_fn=_Collates(form, [_collate_of(loader) for loader in loaders.values()]),
            num_workers=sum(loader.num_workers for loader in own),
            pin_memory=any(loader.pin_memory for loader in own),
            timeout=max((loader.timeout for loader in fed), default=0),
            worker_init_fn=_EachInit(inits) if inits else None,
            multiprocessing_context=next((loader.multiprocessing_context for loader in fed), None),
            prefetch_factor=max((loader.prefetch_factor or 2 for loader in fed), default=None),
            persistent_workers=any(loader.persistent_workers for loader in fed),
            generator=next((loader.generator for loader in own), None),
        )


class _Datasets(Dataset[Any]):
    """The datasets of several loaders; an index is a list of what each one's sampler yielded."""

    def __init__(self, loaders: Mapping[Any, Any]) -> None:
        self._each = [
            (name, getattr(loader, "dataset", loader), _is_batched(loader)) for name, loader in loaders.items()
        ]

    def __len__(self) -> int:
        return sum(length_of(dataset) or 0 for _, dataset, _ in self._each)

    def __getitem__(self, indices: Sequence[Any]) -> list[Any]:
        found = []
        for (name, dataset, is_batched), of_one in zip(self._each, indices, strict=True):
            try:
                found.append(_fetch(dataset, of_one) if is_batched else dataset[of_one])
            except Exception as error:
                error.add_note(f"raised by the loader {name!r}")
                raise
        return found

    __getitems__ = __getitem__

    def set_epoch(self, epoch: int) -> None:
        """Tell it to each that asks for it."""
        for _, dataset, _ in self._each:
            set_epoch(dataset, epoch)


def _fetch(dataset: Any, indices: Any) -> Any:
    together = getattr(dataset, "__getitems__", None)
    return [dataset[index] for index in indices] if together is None else together(indices)


def _is_batched(loader: Any) -> bool:
    return getattr(loader, "batch_sampler", None) is not None


def _collate_of(loader: Any) -> Callable[[Any], Any]:
    return loader.collate_fn if isinstance(loader, DataLoader) else _as_it_is


def _as_it_is(batch: Any) -> Any:
    return batch


class _Collates:
    """The ``collate_fn`` of each."""

    def __init__(self, form: _Form, each: list[Callable[[Any], Any]]) -> None:
        self._form, self._each = form, each

    def __call__(self, fetched: Sequence[Any]) -> Any:
        return self._form([collate(of_one) for collate, of_one in zip(self._each, fetched, strict=True)])


class _EachInit:
    """The ``worker_init_fn`` of each."""

    def __init__(self, each: list[Callable[[int], Any]]) -> None:
        self._each = each

    def __call__(self, worker_id: int) -> None:
        for init in self._each:
            init(worker_id)


def _sampler_of(loader: Any, in_order: bool) -> Any:
    if type(loader) in (list, tuple):
        return SequentialSampler(loader)
    if in_order and loader.batch_sampler is not None and loader.batch_size is not None:
        return BatchSampler(SequentialSampler(loader.dataset), loader.batch_size, loader.drop_last)
    return loader.sampler if loader.batch_sampler is None else loader.batch_sampler


def _states_of(sampler: Any) -> Any:
    """The part of a sampler that has a state; None without one."""
    return next((part for part in (sampler, getattr(sampler, "sampler", None)) if keeps_state(part)), None)


def _has_state(loader: Any) -> bool:
    return _states_of(_sampler_of(loader, False)) is not None


class _Samplers(Sampler[list[Any]]):
    """What several samplers yield, side by side, drawn as ``zip`` over the loaders draws it."""

    def __init__(self, loaders: Mapping[Any, Any], mode: str, in_order: bool) -> None:
        self._names = list(loaders)
        self.samplers = [_sampler_of(loader, in_order) for loader in loaders.values()]
        self._generators = [getattr(loader, "generator", None) for loader in loaders.values()]
        self._draws = [isinstance(loader, DataLoader) for loader in loaders.values()]
        self._mode = mode

    def __len__(self) -> int:
        return (max if self._mode == "longest" else min)(map(len, self.samplers))

    def set_epoch(self, epoch: int) -> None:
        """Tell it to each that asks for it."""
        for sampler in self.samplers:
            set_epoch(sampler, epoch)

    def __iter__(self) -> Iterator[list[Any]]:
        first = self._draws.index(True) if True in self._draws else None

        def begin(i: int, again: bool) -> Iterator[Any]:
            if self._draws[i] and (again or i != first):  # for the first one it was drawn already
                torch.empty((), dtype=torch.int64).random_(generator=self._generators[i])
            return iter(self.samplers[i])

        return side_by_side(begin, self._names, self._mode)


class _StatefulSamplers(_Samplers):
    """The same, where one has a state."""

    def state_dict(self) -> dict[str, Any]:
        """That of each one that has one."""
        parts = map(_states_of, self.samplers)
        return {"each": [None if part is None else part.state_dict() for part in parts]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put it back."""
        for sampler, of_one in zip(self.samplers, state["each"], strict=True):
            part = _states_of(sampler)
            if part is not None and of_one is not None:
                part.load_state_dict(of_one)


def side_by_side(begin: Callable[[int, bool], Iterator[Any]], names: Sequence[Any], mode: str) -> Iterator[list[Any]]:
    """Lists of an item of each of several iterators. ``begin(i, again)`` makes the i-th one."""
    ended, numbers = object(), range(len(names))
    running = [begin(i, False) for i in numbers]
    waiting = {*numbers}  # those that haven't come to their end yet
    while True:
        items = [next(running[i], ended) if i in waiting else ended for i in numbers]
        gone = {i for i in waiting if items[i] is ended}
        waiting -= gone
        if not waiting or (gone and mode == "shortest"):
            return
        for i in numbers:
            if items[i] is not ended:
                continue
            if i not in gone:
                items[i] = next(running[i], ended)
            if items[i] is ended:
                running[i] = begin(i, True)
                items[i] = next(running[i], ended)
            if items[i] is ended:
                raise FitError(f"tng_dataloader[{names[i]!r}] yielded no batches. Check its dataset and its length.")
        yield items


# ---------------------------------------------------------------------------------------- run
class CombinedStream:
    """Loaders of which one can only be run."""

    def __init__(self, loaders: dict[Any, Any], form: _Form, mode: str, in_order: bool) -> None:
        del in_order  # what is run is run as it is
        self.loaders = loaders
        self._form, self._mode = form, mode
        self._each = [_private(loader) for loader in loaders.values()]
        self._used_up = [False for _ in loaders]

    def __len__(self) -> int:
        lengths = [length_of(loader) for loader in self.loaders.values()]
        if None in lengths:
            raise TypeError("one of the loaders has no length")
        return (max if self._mode == "longest" else min)(cast("list[int]", lengths))

    def __iter__(self) -> "_Running":
        return _Running(self)

    def set_epoch(self, epoch: int) -> None:
        """Tell it to each that asks for it."""
        for loader in self._each:
            for part in (loader, getattr(loader, "dataset", None), getattr(loader, "batch_sampler", None)):
                set_epoch(part, epoch)

    @property
    def num_workers(self) -> int:
        """Of all of them."""
        return sum(getattr(loader, "num_workers", 0) for loader in self.loaders.values())

    @property
    def bound_to_workers(self) -> int:
        """How many there are: the order depends on it, since those of a map-style dataset draw ahead."""
        return self.num_workers

    def begin(self, i: int) -> Iterator[Any]:
        """The batches of the i-th loader."""
        loader = self._each[i]
        if self._used_up[i]:
            name = list(self.loaders)[i]
            raise FitError(
                f"tng_dataloader[{name!r}] yielded its batches before and can't start again; received"
                f" {describe(loader)}, an iterator. Return what it was made from, or tng_loaders_mode = 'shortest'."
            )
        iterator = without_signal(started(loader))
        self._used_up[i] = iterator is loader
        return cast("Iterator[Any]", iterator)

    def collect(self, batches: Sequence[Any]) -> Any:
        """The batch that they are together."""
        return self._form(batches)


class _Running:
    """One pass. Nothing is started before its first batch is asked for, since what is drawn then is seeded then."""

    def __init__(self, stream: CombinedStream) -> None:
        self._stream = stream
        self._begun: dict[int, Any] = {}
        self._batches = side_by_side(self._begin, list(stream.loaders), stream._mode)

    def __iter__(self) -> "_Running":
        return self

    def __next__(self) -> Any:
        return self._stream.collect(next(self._batches))

    def _begin(self, i: int, again: bool) -> Iterator[Any]:
        del again
        self._begun[i] = self._stream.begin(i)
        return cast("Iterator[Any]", self._begun[i])

    @property
    def _workers(self) -> list[Any]:
        """As torch's own iterators name them."""
        return [worker for iterator in self._begun.values() for worker in getattr(iterator, "_workers", ())]

    def _shutdown_workers(self) -> None:
        for iterator in self._begun.values():
            if hasattr(iterator, "_shutdown_workers"):
                iterator._shutdown_workers()


def _private(loader: Any) -> Any:
    """``loader``, built again where it is torch's: the user's own isn't touched, and signals leave its workers
    alone."""
    if not isinstance(loader, DataLoader) or type(loader).__iter__ is not DataLoader.__iter__:
        return loader
    if isinstance(loader.dataset, IterableDataset):
        place: dict[str, Any] = {"batch_size": loader.batch_size, "drop_last": loader.drop_last}
    elif loader.batch_sampler is not None:
        place = {"batch_sampler": loader.batch_sampler}
    else:
        place = {"batch_size": None, "sampler": loader.sampler}
    own = {"generator": loader.generator, "persistent_workers": False}
    return DataLoader(loader.dataset, **place, **{**options_of(loader), **own})
