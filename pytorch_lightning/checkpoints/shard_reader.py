"""Tensors put together from the shards that processes wrote."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from pytorch_lightning.checkpoints.guard import look_at
from pytorch_lightning.checkpoints.shard_index import Place, read_index
from pytorch_lightning.checkpoints.store import DamagedCheckpoint
from pytorch_lightning.errors import one_line


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


def read_shards(folder: Path, files: Mapping[str, int], shapes: Mapping[str, Tensor], device: Any) -> dict[str, Tensor]:
    """The tensors of ``shapes``, which are on 'meta', whole and on ``device``, from their shards in ``files``, whose
    sizes are given. Raises ``DamagedCheckpoint``."""
    try:
        index = read_index(folder, files, shapes)  # before any memory is taken
        tensors = {key: torch.empty(t.shape, dtype=t.dtype, device=device) for key, t in shapes.items()}
        for key, entry in index.items():
            for place in entry.places:
                with open(folder / place.file, "rb") as file:
                    shard = _read_shard(file, place, tensors[key].dtype)
                slices = tuple(slice(o, o + n) for o, n in zip(place.offset, place.shape, strict=True))
                tensors[key][slices] = shard
    except Exception as error:  # whatever a stranger's bytes make of the reader
        why = one_line(f"{type(error).__name__}: {error}")
        raise DamagedCheckpoint(f"{folder} is damaged ({why}). Use an older checkpoint.") from error
    return tensors


def _read_shard(file: BinaryIO, place: Place, dtype: torch.dtype) -> Tensor:
    found = look_at(io.BufferedReader(Window(file, place.start, place.length)))
    if str(found) != "a tensor":
        raise ValueError(f"a shard is {found}")
    shard = torch.load(
        io.BufferedReader(Window(file, place.start, place.length)), map_location="cpu", weights_only=True
    )
    if not isinstance(shard, Tensor) or (shard.dtype, tuple(shard.shape)) != (dtype, place.shape):
        raise ValueError("a shard isn't what the index says")
    return shard
