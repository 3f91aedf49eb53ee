"""A checkpoint as a folder: each process writes the pieces of tensors that it holds.

A folder holds ``piece-00000.ckpt`` and so on, and ``manifest.ckpt``: the checkpoint with shapes in the place of
tensors, and size and checksum of every file. Both are files of ``torch.save`` that hold plain data only, so reading
them runs no code. The folder appears under its name when everything in it is on the disk.
"""

import os
import shutil
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pytorch_lightning.checkpoints.store import DamagedCheckpoint, read_checkpoint, sync, write_checkpoint
from pytorch_lightning.errors import CheckpointError
from pytorch_lightning.faults import fault
from pytorch_lightning.processes import Processes, own_piece

MANIFEST = "manifest.ckpt"
KEY = "sharded"


def write_sharded(checkpoint: dict[str, Any], path: str | Path, processes: Processes) -> Path:
    """Write ``checkpoint``, plain data whose tensors may be ``DTensor``s, to the folder ``path``.

    Every process calls it with its own pieces; all see the same file system. Raises ``CheckpointError``, in all of
    them, where one can't write; what was saved before is untouched. A folder of that name is replaced.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.tmp")
    if processes.is_first:
        shutil.rmtree(temporary, ignore_errors=True)
    processes.wait()
    tensors: list[Tensor] = []
    manifest = _replaced(checkpoint, lambda tensor: _noted(tensor, tensors))
    pieces = [piece for n, tensor in enumerate(tensors) for piece in _pieces(n, tensor, processes)]
    name = f"piece-{processes.rank:05d}.ckpt"

    def write_piece() -> dict[str, Any]:
        written = write_checkpoint({"pieces": pieces}, temporary / name)
        return {"name": name, "size": written.stat().st_size, "crc": _crc(written)}

    files = _together(write_piece, processes)

    def finish() -> None:
        if processes.is_first:
            write_checkpoint({**manifest, KEY: files}, temporary / MANIFEST)
            old = target.with_name(f".{target.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            if target.exists():
                os.replace(target, old)
            fault("pieces.complete")
            os.replace(temporary, target)
            fault("pieces.renamed")
            sync(target.parent)
            shutil.rmtree(old, ignore_errors=True)

    _together(finish, processes)
    return target


def is_sharded(path: str | Path) -> bool:
    """Whether ``path`` is a complete folder that ``write_sharded`` wrote."""
    return (Path(path) / MANIFEST).is_file()


def read_sharded(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """The checkpoint in the folder ``path``, its tensors whole, whatever the number of processes that wrote it.

    Raises ``DamagedCheckpoint`` where a file is missing, damaged, or of another save.
    """
    folder = Path(path)
    manifest = read_checkpoint(folder / MANIFEST)
    tensors: list[Tensor] = []

    def allocate(tensor: Tensor) -> Tensor:
        tensors.append(torch.empty(tensor.shape, dtype=tensor.dtype, device=map_location))
        return tensors[-1]

    checkpoint = _replaced({key: value for key, value in manifest.items() if key != KEY}, allocate)
    missing = [tensor.numel() for tensor in tensors]
    for file in manifest[KEY]:
        piece_path = folder / file["name"]
        if not piece_path.is_file() or piece_path.stat().st_size != file["size"] or _crc(piece_path) != file["crc"]:
            raise DamagedCheckpoint(f"{piece_path} is missing or damaged. Use an older checkpoint.")
        for number, dim, start, piece in read_checkpoint(piece_path)["pieces"]:
            place = tensors[number] if dim is None else tensors[number].narrow(dim, start, piece.shape[dim])
            place.copy_(piece)
            missing[number] -= piece.numel()
    if any(missing):
        raise DamagedCheckpoint(f"{path} lacks pieces of {sum(map(bool, missing))} tensors. Use an older checkpoint.")
    return checkpoint  # type: ignore[no-any-return]


def read_any(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """The checkpoint at ``path``: one file, or a folder of pieces."""
    return read_sharded(path, map_location) if is_sharded(path) else read_checkpoint(path, map_location)


def find_sharded(folder: str | Path) -> Path:
    """The newest complete folder of pieces: ``folder`` itself, or one in it or in its ``checkpoints``.

    Raises ``CheckpointError`` where there is none.
    """
    top = Path(folder)
    around = [top, *top.glob("*"), *top.glob("checkpoints/*")]
    # names hold the step: clocks may be set back
    found = sorted((p for p in around if is_sharded(p) and not p.name.startswith(".")), key=lambda p: p.name)
    if not found:
        raise CheckpointError(f"{folder} holds no checkpoint in pieces. Pass a run's folder, or one with a {MANIFEST}.")
    return found[-1]


def consolidate(folder: str | Path, output: str | Path | None = None) -> Path:
    """Write the newest checkpoint in pieces under ``folder`` as one plain file; returns its path.

    Without ``output`` it lies beside the pieces. Raises ``CheckpointError`` where there is nothing to read.
    """
    source = find_sharded(folder)
    target = source.parent / f"{source.name.removesuffix('.ckpt')}.whole.ckpt" if output is None else Path(output)
    return write_checkpoint(read_sharded(source), target)


def _replaced(data: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """A copy of nested plain data with ``function`` of each tensor, in the same order each time."""
    if isinstance(data, Tensor):
        return function(data)
    if isinstance(data, OrderedDict):
        copy = OrderedDict((key, _replaced(value, function)) for key, value in data.items())
        vars(copy).update(vars(data))  # the _metadata of a state_dict
        return copy
    if isinstance(data, dict):
        return {key: _replaced(value, function) for key, value in data.items()}
    return type(data)(_replaced(item, function) for item in data) if type(data) in (list, tuple) else data


def _noted(tensor: Tensor, tensors: list[Tensor]) -> Tensor:
    tensors.append(tensor)
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")


def _pieces(number: int, tensor: Any, processes: Processes) -> list[tuple[int, int | None, int, Tensor]]:
    """What this process writes of a tensor: (number, dimension that is cut, first index, values)."""
    placement = next(iter(getattr(tensor, "placements", ())), None)
    if placement is None or not placement.is_shard():
        return [(number, None, 0, own_piece(tensor).detach())] if processes.is_first else []
    dim, own = placement.dim, own_piece(tensor).detach()
    chunk = -(-tensor.shape[dim] // processes.nb)
    # a copy: the piece is a view of a padded buffer, which would be written whole
    return [(number, dim, chunk * processes.rank, own.cpu().clone())] if own.numel() else []


def _together(function: Callable[[], Any], processes: Processes) -> list[Any]:
    """What ``function`` gave in each process. Where it raises in one, all raise."""
    try:
        result, error = function(), ""
    except (CheckpointError, OSError) as failure:
        result, error = None, str(failure)
    told = processes.gather((result, error))
    errors = [error for _, error in told if error]
    if errors:
        raise CheckpointError(errors[0])
    return [result for result, _ in told]


def _crc(path: Path) -> int:
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return crc
