"""Whether all processes see the same batches: these are dealt out to them, so no loader may deal out its own.

torch's DistributedSampler is replaced by one over the whole data. Anything else that gives other batches in other
processes is found when a loader is used first, by one comparison, before anybody trains on a batch.
"""

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler

from pytorch_lightning.data.seeded_view import loader_name
from pytorch_lightning.errors import FitError, Notices, Problem, describe
from pytorch_lightning.processes import Processes

MOST_BYTES, MOST_ITEMS, MOST_VALUES = 2**20, 128, 5000
"""How much of a value is looked at: of each array, of each end of a list, and in all."""


def whole(loader: Any, notices: Notices) -> Any:
    """``loader`` without a DistributedSampler of torch's: one that gives all samples, in the same order, stands in its
    place."""
    sampler, batches = getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)
    inner = batches.sampler if type(batches) is BatchSampler else sampler
    if not isinstance(loader, DataLoader) or type(inner) is not DistributedSampler or inner.num_replicas == 1:
        return loader
    every: Any = DistributedSampler(inner.dataset, 1, 0, shuffle=inner.shuffle, seed=inner.seed)
    parts: dict[str, Any] = {"_iterator": None}
    if sampler is inner:
        parts["sampler"] = every
    if batches is not None:
        parts["batch_sampler"] = BatchSampler(every, batches.batch_size, batches.drop_last)
    other = copy.copy(loader)
    vars(other).update(parts)
    notices.say("distributed-sampler", "the DistributedSampler is replaced: batches are dealt out to processes")
    return other


def sharding_problems(loader: Any, name: str) -> list[Problem]:
    """A sampler that deals out samples and isn't replaced, since it isn't known what else it does."""
    for sampler in (getattr(loader, "batch_sampler", None), getattr(loader, "sampler", None)):
        for _ in range(8):
            if isinstance(sampler, DistributedSampler) and sampler.num_replicas > 1:
                what = f"the sampler of {name} deals out samples to processes itself, and batches are dealt out anyway"
                advice = f"Leave {type(sampler).__name__} out, or pass data_is_sharded=True if each process's loader is"
                return [Problem(what, describe(sampler), advice + " its own share")]
            sampler = getattr(sampler, "sampler", None)
    return []


class FirstUse:
    """Compares, when a loader is used first, what it gives in each process. Everybody makes the same calls."""

    def __init__(
        self,
        processes: Processes,
        loader_id: int,
        dataset: Any = None,
        fetch: Callable[[Any], Any] = lambda indices: None,
    ) -> None:
        """``fetch`` gives the batch of ``indices`` of ``dataset``, where there is one."""
        self._processes, self._name = processes, loader_name(loader_id)
        self._dataset, self._fetch = dataset, fetch

    def agree(self, seeds: Sequence[int]) -> tuple[int, ...]:
        """The initial seeds of a loader's generators in the first process: an unseeded one has another in each."""
        return tuple(self._processes.from_first([*seeds]))

    def compare_indices(self, first: list[Any]) -> None:
        """Raise ``FitError`` where processes have other indices for the first batch, or other data behind them."""
        own = (checksum(first), checksum(self._dataset))
        told = self._processes.gather(own)
        self._check([indices for indices, _ in told])
        # attributes may differ for other reasons, so the samples decide
        if first and len({data for _, data in told}) > 1:
            self.compare_batch(self._fetch(first[0]))

    def compare_batch(self, batch: Any) -> None:
        """Raise ``FitError`` where processes have another first batch."""
        self._check(self._processes.gather(checksum(batch)))

    def _check(self, checksums: Sequence[int]) -> None:
        if len({*checksums}) == 1:
            return
        other = next(rank for rank, found in enumerate(checksums) if found != checksums[0])
        raise FitError(
            f"{self._name} gives other batches in process {other} than in process 0. Each process needs the same ones,"
            " since they are dealt out: otherwise samples would be trained on twice, and others never. If each"
            " process's loader is its own share, pass data_is_sharded=True; if it draws random numbers that no seed"
            " decides, seed them."
        )


def checksum(value: Any) -> int:
    """The CRC of a value's beginnings: equal where two processes have the same.

    >>> checksum([1, {"a": 2}]) == checksum([1, {"a": 2}]), checksum(range(4)) == checksum(range(1, 4))
    (True, False)
    """
    crc, seen, stack = 0, set[int](), [value]
    while stack and len(seen) < MOST_VALUES:
        value = stack.pop()
        if id(value) in seen:
            continue
        if isinstance(value, (Tensor, np.ndarray)) or hasattr(value, "__dict__"):
            seen.add(id(value))
        word, inside = _looked_at(value)
        crc = crc32(word, crc)
        stack.extend(inside)
    return crc


def _looked_at(value: Any) -> tuple[bytes, Iterable[Any]]:
    """What of ``value`` is compared itself, and what is in it."""
    kind = type(value)
    head = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, (Tensor, np.ndarray)):
        return f"{head} {tuple(value.shape)} {value.dtype}".encode() + _beginning(value), ()
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, range, np.generic, torch.Size)):
        return f"{head} {value!r}".encode(), ()
    if isinstance(value, Mapping):
        return f"{head} {len(value)}".encode(), chain(*_ends([*value.items()]))
    if isinstance(value, (set, frozenset)):
        return f"{head} {len(value)} {sorted(map(repr, value))[:MOST_ITEMS]}".encode(), ()
    if isinstance(value, Sequence):
        return f"{head} {len(value)}".encode(), _ends(value)
    if isinstance(value, (type, torch.Generator, np.random.Generator)) or inspect.isroutine(value):
        return head.encode(), ()
    return head.encode(), _ends(sorted(getattr(value, "__dict__", {}).items()))


def _ends(items: Sequence[Any]) -> Iterator[Any]:
    places = range(len(items))
    nb = len(items)
    return (items[i] for i in (places if nb <= 2 * MOST_ITEMS else chain(places[:MOST_ITEMS], places[-MOST_ITEMS:])))


def _beginning(value: Any) -> bytes:
    try:
        if isinstance(value, Tensor):
            flat = value.detach().reshape(-1)[: MOST_BYTES // value.element_size()].cpu().contiguous()
            return flat.view(torch.uint8).numpy().tobytes()
        flat = value.reshape(-1)[: MOST_BYTES // max(1, value.itemsize)]
        return repr(flat[:MOST_ITEMS].tolist()).encode() if value.dtype.hasobject else flat.tobytes()
    except (RuntimeError, TypeError, NotImplementedError, ValueError):  # sparse, quantized, on meta, ...
        return b""
