"""What was trained on, in a few numbers: a checksum that runs over every batch that a loader gives."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any, cast
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from pytorch_lightning.data.index_plan import MOST_AHEAD
from pytorch_lightning.data.loader import ReplayableLoader
from pytorch_lightning.data.sharing import IDLE

MOST_DEPTH = 10
"""What lies in more others isn't looked at: an object may hold itself."""
Noted = dict[int, tuple[int, int]]
"""By virtual rank: the CRC of the indices, and that of what the batches held."""


class Witness:
    """Stands for the training ``loader``, and notes what it gives. ``at(n)`` is what was noted when n batches of the
    epoch were trained on: batches that are fetched and not trained on don't count."""

    def __init__(self, loader: ReplayableLoader) -> None:
        self._loader = loader
        self._now: Noted = dict.fromkeys(loader.share.mine, (0, 0))
        self._at: dict[int, Noted] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def begin(self, noted: Mapping[int, tuple[int, int]]) -> None:
        """Go on from what was ``noted`` before, of this process's virtual ranks."""
        self._now = {rank: noted.get(rank, (0, 0)) for rank in self._now}

    def at(self, nb_batches: int) -> Noted:
        """What was noted after ``nb_batches`` of this epoch, since the beginning of the run."""
        before = [nb for nb in self._at if nb <= nb_batches]  # batches that are left out give nothing to note
        return self._at[max(before)] if before else self._now

    def batches(self, epoch: int, start: int = 0, limit: int | None = None) -> Iterator[Any]:
        """As of the loader."""
        batches = self._loader.batches(epoch, start, limit)
        self._now = self.at(start)
        self._at = {start: self._now}
        return self._noting(batches, start)

    def _noting(self, batches: Iterator[Any], start: int) -> Iterator[Any]:
        ranks, latest = [*self._now], dict(self._now)
        for number, batch in enumerate(batches):
            nb_before, place = divmod(number, len(ranks))
            done, rank = start + nb_before + 1, ranks[place]
            indices, contents = latest[rank]
            order = self._loader.crc_at(done) or 0
            latest[rank] = crc32(order.to_bytes(4, "little"), indices), checksum(batch, contents)
            if place == len(ranks) - 1:
                self._at[done] = dict(latest)
                self._at.pop(done - MOST_AHEAD, None)
            yield batch

    def finish(self, epoch: int, nb_batches: int, is_whole: bool) -> None:
        """As of the loader. The next epoch goes on from the batches that were trained on."""
        self._now = self.at(nb_batches)
        self._at = {}
        self._loader.finish(epoch, nb_batches, is_whole)


def checksum(value: Any, crc: int = 0, depth: int = 0) -> int:
    """The CRC of all that a batch holds, after what had ``crc``. ``depth``: in so many others it lies.

    >>> checksum([torch.ones(2), "a"]) == checksum([torch.ones(2), "a"]), checksum([1]) == checksum([2])
    (True, False)
    """
    if isinstance(value, Tensor):
        return _of_tensor(value, crc32(_kind_of(value.dtype, value.shape), crc))
    if isinstance(value, np.ndarray):
        crc = crc32(f"{value.dtype} {value.shape}".encode(), crc)
        return checksum(value.tolist(), crc) if value.dtype.hasobject else crc32(value.tobytes(), crc)
    if value is IDLE or value is None or depth > MOST_DEPTH:
        return crc32(b"none", crc)
    if isinstance(value, (bool, int, float, complex, str, bytes, range, np.generic)):
        return crc32(repr(value).encode(), crc)
    if isinstance(value, Mapping):
        inside: Any = [part for pair in value.items() for part in pair]
    elif isinstance(value, (list, tuple)):
        inside = value
    elif isinstance(value, (set, frozenset)):
        inside = sorted(map(repr, value))
    elif dataclasses.is_dataclass(value):
        inside = [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    else:
        inside = [part for pair in sorted(getattr(value, "__dict__", {}).items()) for part in pair]
    crc = crc32(f"{type(value).__name__} {len(inside)}".encode(), crc)
    for part in inside:
        crc = checksum(part, crc, depth + 1)
    return crc


@functools.lru_cache(maxsize=1024)
def _kind_of(dtype: torch.dtype, shape: torch.Size) -> bytes:
    return f"{dtype} {tuple(shape)}".encode()


def _of_tensor(tensor: Tensor, crc: int) -> int:
    try:  # most can be read as they are
        return crc32(cast("Any", tensor.numpy()), crc)
    except (TypeError, RuntimeError, ValueError, BufferError):
        pass
    tensor = tensor.detach()
    if tensor.layout == torch.sparse_coo:
        return checksum([tensor._indices(), tensor._values()], crc)
    if tensor.is_nested:
        return checksum([*tensor.unbind()], crc)
    tensor = tensor.dequantize() if tensor.is_quantized else tensor
    tensor = (tensor if tensor.layout == torch.strided else tensor.to_dense()).resolve_conj().resolve_neg()
    return crc32(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data, crc)
