"""Pieces of tensors as files of ``torch.distributed.checkpoint``, which its own tools read too.

Importing torch's part takes a while: import this module where it is used.
"""

import pickle
from collections.abc import Mapping
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed.checkpoint import metadata as metadata_kinds
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter, _StorageInfo
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, Metadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import SavePlan, TensorWriteData, WriteItem, WriteItemType
from torch.distributed.checkpoint.storage import WriteResult

from pytorch_lightning.checkpoints.store import DamagedCheckpoint
from pytorch_lightning.processes import Processes, Subject

METADATA = ".metadata"
TOLD = Subject(
    "plans of shards",
    types=(SavePlan, WriteItem, WriteItemType, TensorWriteData, ChunkStorageMetadata, TensorProperties,
                   MetadataIndex, WriteResult, _StorageInfo),
)  # fmt: skip
"""What processes tell each other of their files: a process without a piece knows these types too."""
PLAIN = {
    ("torch", "Size"),
    ("torch", "_get_layout"),
    ("pathlib", "PosixPath"),
    ("pathlib", "PurePosixPath"),
    ("pathlib", "WindowsPath"),
    ("pathlib", "PureWindowsPath"),
}
"""What may be made while metadata is read: (package, name)."""


class Piece(NamedTuple):
    """What one process holds of a tensor."""

    whole: torch.Size
    """The tensor's shape."""
    offset: tuple[int, ...]
    """The first index in each dimension."""
    values: Tensor


class Planner(DefaultSavePlanner):
    """Plans to write ``pieces``; the default one would need a tensor that knows of the other processes."""

    def __init__(self, pieces: Mapping[str, Piece]) -> None:
        super().__init__(flatten_state_dict=False)
        self._pieces = pieces

    def create_local_plan(self) -> SavePlan:
        return SavePlan([_item(key, piece) for key, piece in self._pieces.items()])

    def lookup_object(self, index: MetadataIndex) -> Tensor:
        return self._pieces[index.fqn].values


def _item(key: str, piece: Piece) -> WriteItem:
    chunk = ChunkStorageMetadata(torch.Size(piece.offset), piece.values.size())
    properties = TensorProperties(dtype=piece.values.dtype)
    data = TensorWriteData(chunk=chunk, properties=properties, size=piece.whole)
    return WriteItem(index=MetadataIndex(key, piece.offset), type=WriteItemType.SHARD, tensor_data=data)


class PieceFiles:
    """One checkpoint's shards in ``folder``, which exists and is empty. Every process calls the methods in turn."""

    def __init__(self, folder: Path, pieces: Mapping[str, Piece], processes: Processes) -> None:
        self._planner, self._writer = Planner(pieces), FileSystemWriter(folder)
        plans = processes.gather(self._planner.create_local_plan(), TOLD)
        plans, self._metadata = self._planner.create_global_plan(plans)
        self._plan = self._writer.prepare_global_plan(plans)[processes.rank]
        self.name = f"__{processes.rank}_0.distcp"
        """The file of this process."""

    def write(self) -> list[WriteResult]:
        """Write this process's file, flushed to the disk; returns what ``finish`` wants."""
        return self._writer.write_data(self._plan, self._planner).wait()

    def finish(self, results: list[list[WriteResult]]) -> None:
        """Write what says where everything is; called by one process, with everybody's results."""
        self._writer.finish(self._metadata, results)


class Reader(FileSystemReader):
    """Reads shards without running code that a file brings along."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        with open(Path(self.path) / METADATA, "rb") as file:
            metadata = DataUnpickler(file).load()
        if not isinstance(metadata, Metadata):
            raise pickle.UnpicklingError(f"{type(metadata).__name__} instead of Metadata")
        return metadata


class DataUnpickler(pickle.Unpickler):
    """Makes what a checkpoint's metadata is made of, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if module in (metadata_kinds.__name__, FileSystemReader.__module__) and "." not in name:
            found = super().find_class(module, name)
            if isinstance(found, type) and (is_dataclass(found) or issubclass(found, Enum)):
                return found
        if (module.split(".")[0], name) in PLAIN:
            return super().find_class(module, name)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        raise pickle.UnpicklingError(f"{module}.{name} is more than plain data")


def read_pieces(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Fill ``tensors``, which are whole, from the shards in ``folder``. Raises ``DamagedCheckpoint``."""
    reader, planner = Reader(folder), DefaultLoadPlanner(flatten_state_dict=False)
    try:
        metadata = reader.read_metadata()
        planner.set_up_planner(tensors, metadata, is_coordinator=True)
        reader.set_up_storage_reader(metadata, is_coordinator=True)
        reader.read_data(planner.create_local_plan(), planner).wait()
    except Exception as error:  # whatever a stranger's bytes make of the reader
        raise DamagedCheckpoint(f"{folder} is damaged ({error}). Use an older checkpoint.") from error
