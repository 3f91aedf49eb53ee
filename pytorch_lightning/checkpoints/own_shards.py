"""What one of several processes reads of the files of a sharded checkpoint: its own part of each tensor.

Each byte of the files is read by one process at least, and its checksum is taken by one alone; joined, they are the
checksums of the whole files. Of a shard that lies in the parts of several processes each reads its own rows.
"""

import io
import math
import zlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import torch
from torch import Tensor

from pytorch_lightning.checkpoints.archive import Archive
from pytorch_lightning.checkpoints.guard import look_at
from pytorch_lightning.checkpoints.shard_index import Entry, Place

SMALL = 2**16
"""Bytes of a shard that isn't worth dividing."""
BLOCK = 2**22
DTYPES = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool, "ComplexDouble": torch.complex128, "ComplexFloat": torch.complex64,
}  # fmt: skip
"""By the name of the storage's class without ``Storage``; shards of other types are read whole."""


class Part(NamedTuple):
    """A process's part of a tensor: a range of one dimension."""

    values: Tensor
    dim: int


class Summed(NamedTuple):
    """The checksum of a range of a file."""

    file: str
    start: int
    end: int
    crc: int


class Reading:
    """Reads the part of process ``rank`` of ``nb``."""

    def __init__(self, folder: Path, files: Mapping[str, int], rank: int, nb: int) -> None:
        self._folder, self._files, self._rank, self._nb = folder, files, rank, nb
        self.sums: list[Summed] = []
        """In the order of the files; ranges that touch are one."""

    def parts(self, index: Mapping[str, Entry]) -> dict[str, Part]:
        """This process's part of each tensor. Raises ``ValueError`` or another error for a file that is damaged."""
        parts, by_file = {}, dict[str, list[tuple[Place, str]]]()
        for key, entry in index.items():
            dim = cut_of(entry)
            first, last = _range(entry.shape, dim, self._rank, self._nb)
            shape = (*entry.shape[:dim], last - first, *entry.shape[dim + 1 :]) if entry.shape else ()
            parts[key] = Part(torch.empty(shape, dtype=getattr(torch, entry.dtype.removeprefix("torch."))), dim)
            for place in entry.places:
                by_file.setdefault(place.file, []).append((place, key))
        for name, places in sorted(by_file.items()):
            with open(self._folder / name, "rb", buffering=0) as file:
                end = 0
                for place, key in sorted(places, key=lambda pair: pair[0].start):
                    if place.start < end:
                        raise ValueError("two shards lie in each other")
                    if self._rank == 0:
                        self._sum(name, end, place.start, self._blocks(file, end, place.start))
                    self._take(file, place, index[key].shape, parts[key])
                    end = place.start + place.length
                if self._rank == 0:
                    self._sum(name, end, self._files[name], self._blocks(file, end, self._files[name]))
        return parts

    def _take(self, file: BinaryIO, place: Place, shape: tuple[int, ...], part: Part) -> None:
        """Fill what ``part`` has of the shard at ``place``, and sum the bytes that are this process's to sum."""
        dim, size = part.dim, place.shape[part.dim] if shape else 1
        start = place.offset[dim] if shape else 0
        ranges = [_range(shape, dim, rank, self._nb) for rank in range(self._nb)]
        owners = [rank for rank, (a, b) in enumerate(ranges) if max(a, start) < min(b, start + size)]
        if self._rank not in owners:
            return
        first, last = ranges[self._rank]
        low, high = max(first, start), min(last, start + size)
        into = part.values.narrow(dim, low - first, high - low) if shape else part.values
        raw = None
        if len(owners) > 1 and place.length > SMALL and math.prod(place.shape[:dim]) == 1:
            raw = _raw(file, place, part.values.dtype)
        if raw is None:
            content = b"".join(self._blocks(file, place.start, place.start + place.length))
            if self._rank == owners[0]:
                self._sum(place.file, place.start, place.start + place.length, [content])
            shard = load_shard(content, place, part.values.dtype)
            into.copy_(shard.narrow(dim, low - start, high - low) if shape else shard)
            return
        row = part.values.dtype.itemsize * math.prod(place.shape[dim + 1 :])
        begin, end = raw + row * (low - start), raw + row * (high - start)
        head = begin - place.start if self._rank == owners[0] else 0
        tail = place.start + place.length - end if self._rank == owners[-1] else 0
        content = b"".join(self._blocks(file, begin - head, end + tail))
        self._sum(place.file, begin - head, end + tail, [content])
        values = torch.frombuffer(bytearray(content), dtype=torch.uint8)[head : head + end - begin]
        into.copy_(values.clone().view(part.values.dtype).view(into.shape))

    def _blocks(self, file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
        file.seek(start)
        while start < end:
            block = file.read(min(BLOCK, end - start))
            if not block:
                raise ValueError("a file is shorter than it was")
            start += len(block)
            yield block

    def _sum(self, name: str, start: int, end: int, blocks: Any) -> None:
        if start == end:
            return
        last = self.sums[-1] if self.sums else None
        goes_on = last is not None and (last.file, last.end) == (name, start)
        crc = last.crc if goes_on and last is not None else 0
        for block in blocks:
            crc = zlib.crc32(block, crc)
        if goes_on and last is not None:
            self.sums[-1] = last._replace(end=end, crc=crc)
        else:
            self.sums.append(Summed(name, start, end, crc))


def cut_of(entry: Entry) -> int:
    """The dimension in which a tensor is shared out."""
    shape, first = entry.shape, entry.places[0]
    return next((d for d in range(len(shape)) if first.shape[d] != shape[d]), 0)


def _range(shape: tuple[int, ...], dim: int, rank: int, nb: int) -> tuple[int, int]:
    """Which indices of ``dim`` are those of process ``rank`` of ``nb``, as torch shards a tensor."""
    if not shape:
        return 0, 1
    chunk = -(-shape[dim] // nb)
    return min(rank * chunk, shape[dim]), min((rank + 1) * chunk, shape[dim])


class Window(io.RawIOBase):
    """A part of an open file, as a file."""

    def __init__(self, file: BinaryIO, start: int, length: int) -> None:
        super().__init__()
        self._file, self._start, self._length, self._place = file, start, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, place: int, whence: int = 0) -> int:
        self._place = max(0, place + {0: 0, 1: self._place, 2: self._length}[whence])
        return self._place

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._start + self._place)
        view = memoryview(buffer).cast("B")[: max(0, self._length - self._place)]
        number = self._file.readinto(view)  # type: ignore[attr-defined]
        self._place += number
        return int(number)


def _raw(file: BinaryIO, place: Place, dtype: torch.dtype) -> int | None:
    """Where in ``file`` the numbers of the shard at ``place`` lie, one row after the other; None where they don't."""
    window = cast("BinaryIO", Window(file, place.start, place.length))
    found = look_at(window)
    if found.name != "torch._utils._rebuild_tensor_v2":
        return None
    of_storage, offset, *shape_and_strides = found.arguments[:4]
    shape, strides = (tuple(getattr(numbers, "items", ())) for numbers in shape_and_strides)
    if shape != place.shape or offset or strides != torch.empty(place.shape, device="meta").stride():
        return None
    storage = of_storage.arguments[0]
    if (
        DTYPES.get(of_storage.name.removesuffix("Storage")) != dtype
        or storage.size != math.prod(place.shape) * dtype.itemsize
    ):
        return None
    return place.start + Archive(window).start_of(f"data/{storage.key}")


def load_shard(content: bytes, place: Place, dtype: torch.dtype) -> Tensor:
    """The tensor in the bytes of a shard. Raises ``ValueError`` where that isn't what the index says."""
    found = look_at(io.BytesIO(content))
    if str(found) != "a tensor":
        raise ValueError(f"a shard is {found}")
    shard = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if not isinstance(shard, Tensor) or (shard.dtype, tuple(shard.shape)) != (dtype, place.shape):
        raise ValueError("a shard isn't what the index says")
    return shard


def joined(sums: list[Summed], name: str, size: int) -> int | None:
    """The checksum of a whole file of ``size`` bytes of those of its ranges; None where they aren't all of it."""
    end = crc = 0
    for each in sorted(s for s in sums if s.file == name):
        if each.start != end:
            return None
        crc, end = crc_of_both(crc, each.crc, each.end - each.start), each.end
    return crc if end == size else None


POLYNOMIAL = 0xEDB88320
"""Of CRC-32, its highest power first from the lowest bit."""


def crc_of_both(crc: int, following: int, length: int) -> int:
    """The CRC-32 of some bytes with this ``crc`` and ``length`` others behind them, whose own is ``following``.

    >>> crc_of_both(zlib.crc32(b"ab"), zlib.crc32(b"cde"), 3) == zlib.crc32(b"abcde")
    True
    """
    return _times(_shifted_by(length), crc) ^ following


@lru_cache(maxsize=4096)
def _shifted_by(length: int) -> int:
    """``x`` to the power of ``8 * length``, modulo the polynomial."""
    power, square = 1 << 31, 1 << 23  # x to the 0, and to the 8
    while length:
        if length & 1:
            power = _times(square, power)
        square, length = _times(square, square), length >> 1
    return power


def _times(a: int, b: int) -> int:
    """The product of two polynomials over two elements, modulo the polynomial."""
    product, bit = 0, 1 << 31
    while bit:
        if a & bit:
            product ^= b
        b = (b >> 1) ^ (POLYNOMIAL if b & 1 else 0)
        bit >>= 1
    return product
