"""Shards of tensors as files, one of each process: what is written.

They are also a checkpoint of ``torch.distributed.checkpoint``, which its own tools read. Importing torch's part takes a
while: import this module where something is written.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemWriter, _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.storage import WriteResult

from pytorch_lightning.checkpoints.shard_index import Entry, Place, write_index
from pytorch_lightning.checkpoints.store import checksums_on, sync

Written = tuple[str, str, tuple[int, ...], tuple[Any, ...]]
"""Of a shard that was written: its key, the tensor's dtype and shape, and the ``Place``."""


class Shard(NamedTuple):
    """What one process holds of a tensor."""

    whole: torch.Size
    """The tensor's shape."""
    offset: tuple[int, ...]
    """The first index in each dimension."""
    values: Tensor


def write_shards(path: Path, shards: Mapping[str, Shard]) -> list[Written]:
    """Write this process's shards to the file ``path``, flushed to the disk; returns what ``finish`` wants to know of
    them, as plain data."""
    written = []
    with open(path, "wb") as file, checksums_on():
        for key, shard in shards.items():
            start, values = file.tell(), shard.values.detach().cpu()
            if values.untyped_storage().nbytes() > values.nbytes:
                values = values.clone()  # a view would be written with all that it is a view of
            torch.save(values, file)
            place = Place(path.name, start, file.tell() - start, tuple(shard.offset), tuple(values.shape))
            written.append((key, str(values.dtype), tuple(shard.whole), tuple(place)))
        file.flush()
        os.fsync(file.fileno())
    return written


def finish(folder: Path, written: list[list[Written]]) -> None:
    """Write what says where everything is; called by one process, with what every process has written."""
    entries: dict[str, Entry] = {}
    for key, dtype, shape, place in (shard for each in written for shard in each):
        entries.setdefault(key, Entry(dtype, tuple(shape), [])).places.append(Place(*place))
    write_index(folder, entries)
    sync(folder / "shards.json")
    kinds: Any = {
        key: TensorStorageMetadata(
            TensorProperties(dtype=getattr(torch, entry.dtype.removeprefix("torch."))),
            torch.Size(entry.shape),
            [ChunkStorageMetadata(torch.Size(p.offset), torch.Size(p.shape)) for p in entry.places],
        )
        for key, entry in entries.items()
    }
    results = [
        WriteResult(
            MetadataIndex(key, torch.Size(place.offset), number), place.length,
            _StorageInfo(place.file, place.start, place.length),
        )
        for key, entry in entries.items()
        for number, place in enumerate(entry.places)
    ]  # fmt: skip
    Writer(folder).finish(Metadata(kinds), [results])


class Writer(FileSystemWriter):
    """Writes torch's metadata without the name of a folder of this machine."""

    def storage_meta(self) -> StorageMeta:
        return StorageMeta()
