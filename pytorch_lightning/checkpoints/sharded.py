"""A checkpoint as a folder: each process writes the shards of tensors that it holds.

A folder holds a file of each process, ``__0_0.distcp`` and so on, ``shards.json``, which says where in them each shard
lies, and ``manifest.ckpt``: the rest of the checkpoint, with shapes in the place of sharded tensors, and size
and checksum of every file. The folder appears under its name when everything in it is on the disk. Reading it runs no
code, and reads no file but those that lie in it.
"""

import os
import shutil
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from pytorch_lightning.checkpoints.snapshot import checksum, state_checksums
from pytorch_lightning.checkpoints.store import DamagedCheckpoint, read_checkpoint, sync, write_checkpoint
from pytorch_lightning.errors import CheckpointError
from pytorch_lightning.faults import fault
from pytorch_lightning.nested import like_mapping
from pytorch_lightning.processes import ALONE, Processes, own_piece

if TYPE_CHECKING:
    from pytorch_lightning.checkpoints.shard_files import Shard

MANIFEST = "manifest.ckpt"
KEY = "sharded"


class Cut(NamedTuple):
    """A checkpoint of which each process holds a part."""

    checkpoint: dict[str, Any]
    """The first process's, with shapes in the place of sharded tensors."""
    shards: dict[str, "Shard"]
    """What this process holds of those, by the path of their key."""


def cut(data: dict[str, Any], processes: Processes) -> Cut:
    """``data``, nested plain data, without the sharded tensors (``DTensor``s), and this process's shards of those."""
    from pytorch_lightning.checkpoints.shard_files import Shard

    shards: dict[str, Shard] = {}

    def take(key: str, tensor: Any) -> Tensor:
        if not hasattr(tensor, "full_tensor"):
            return tensor  # type: ignore[no-any-return]
        own, offset = own_piece(tensor).detach(), [0] * tensor.dim()
        shard = next((p for p in tensor.placements if p.is_shard()), None)
        if shard is not None:
            chunk = -(-tensor.shape[shard.dim] // processes.nb)
            offset[shard.dim] = chunk * processes.rank
        if own.numel() and (shard is not None or processes.is_first):
            shards[key] = Shard(tensor.shape, tuple(offset), own)
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")

    return Cut(_replaced(data, take), shards)


def is_cut(checkpoint: Any) -> bool:
    """Whether each process holds a part of it, so that it becomes a folder."""
    return isinstance(checkpoint, Cut)


def own_part(checkpoint: dict[str, Any] | Cut, processes: Processes) -> Any:
    """What this process writes of ``checkpoint``."""
    return checkpoint.shards if isinstance(checkpoint, Cut) and not processes.is_first else checkpoint


def with_part(checkpoint: dict[str, Any] | Cut, name: str, part: Any) -> dict[str, Any] | Cut:
    """``checkpoint`` with one part more."""
    if isinstance(checkpoint, Cut):
        return Cut(_with_part(checkpoint.checkpoint, name, part), checkpoint.shards)
    return _with_part(checkpoint, name, part)


def _with_part(checkpoint: dict[str, Any], name: str, part: Any) -> dict[str, Any]:
    return {**checkpoint, "parts": {**checkpoint["parts"], name: part}}


def write_any(checkpoint: dict[str, Any] | Cut, path: Path, processes: Processes, private: bool = False) -> int:
    """Write ``checkpoint`` to ``path``, as one file or as a folder of shards; returns its size in bytes."""
    if isinstance(checkpoint, Cut):
        return write_sharded(checkpoint, path, processes)
    return write_checkpoint(checkpoint, path, private).stat().st_size


def checksums_of(state: Mapping[str, Any] | Cut, processes: Processes) -> dict[str, Any]:
    """``state_checksums``; those of a sharded tensor are a list of (offset, shape, checksum) of its shards."""
    return shard_checksums(state, processes) if isinstance(state, Cut) else state_checksums(state)


def shard_checksums(state: Cut, processes: Processes) -> dict[str, Any]:
    """``checksums_of`` a sharded state."""
    found: dict[str, Any] = {k: v for k, v in state_checksums(state.checkpoint).items() if not _is_shape(state, k)}
    own = {k: (p.offset, tuple(p.values.shape), checksum(p.values)) for k, p in state.shards.items()}
    for theirs in processes.gather(own):
        for key, shard in theirs.items():
            found.setdefault(key, []).append(shard)
    return found


def _is_shape(state: Cut, key: str) -> bool:
    return bool(state.checkpoint[key].device.type == "meta")


def write_sharded(checkpoint: Cut, path: str | Path, processes: Processes) -> int:
    """Write ``checkpoint`` to the new folder ``path``; returns its size in bytes.

    Every process calls it with its own shards; all see the same file system. Raises ``CheckpointError``, in all of
    them, where one can't write; what was saved before is untouched.
    """
    from pytorch_lightning.checkpoints.shard_files import finish as finish_shards
    from pytorch_lightning.checkpoints.shard_files import write_shards
    from pytorch_lightning.checkpoints.shard_index import INDEX, METADATA

    target = Path(path)
    temporary = target.with_name(f".{target.name}.tmp")

    def begin() -> None:
        if processes.is_first:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)

    try:
        _together(begin, target, processes)
        fault("pieces.begin")
        own = temporary / f"__{processes.rank}_0.distcp"

        def write_own() -> tuple[Any, dict[str, Any]]:
            results = write_shards(own, checkpoint.shards)
            fault("pieces.written")
            sync(temporary)
            return results, _noted(own)

        written = _together(write_own, target, processes)

        def finish() -> int:
            if not processes.is_first:
                return 0
            finish_shards(temporary, [results for results, _ in written])
            noted = [*(note for _, note in written), _noted(temporary / INDEX), _noted(temporary / METADATA)]
            fault("pieces.noted")
            manifest = {**checkpoint.checkpoint, KEY: {"files": noted, "tensors": _shapes(checkpoint.checkpoint)}}
            size = write_checkpoint(manifest, temporary / MANIFEST).stat().st_size
            fault("pieces.complete")
            os.rename(temporary, target)
            fault("pieces.renamed")
            sync(target.parent)
            return size + sum(int(note["size"]) for note in noted)

        return int(_together(finish, target, processes)[0])
    except CheckpointError:
        if processes.is_first:
            shutil.rmtree(temporary, ignore_errors=True)
        raise


def is_sharded(path: str | Path) -> bool:
    """Whether ``path`` is a complete folder that ``write_sharded`` wrote."""
    return (Path(path) / MANIFEST).is_file()


def verify_sharded(path: str | Path) -> dict[str, Any]:
    """The manifest of the folder ``path``. Raises ``DamagedCheckpoint`` where a file isn't what was written."""
    manifest = _manifest(Path(path))
    _verify(Path(path), _notes(manifest, Path(path)))
    return manifest


def _manifest(folder: Path) -> dict[str, Any]:
    if not is_sharded(folder):
        raise DamagedCheckpoint(f"{folder} is damaged (it has no {MANIFEST}). Use an older checkpoint.")
    return read_checkpoint(folder / MANIFEST, ours=True)


def _verify(folder: Path, notes: list[dict[str, Any]]) -> None:
    for note in notes:
        file = folder / note["name"]
        # the size first: what is no file of that size, a device say, isn't read
        if not file.is_file() or file.stat().st_size != note["size"] or _noted(file) != note:
            raise DamagedCheckpoint(f"{file} is missing or damaged. Use an older checkpoint.")


def _notes(manifest: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Name, size and checksum of each file, which must lie in the folder itself."""
    sharded = manifest.get(KEY)
    notes = sharded.get("files") if isinstance(sharded, dict) else None
    if isinstance(notes, list) and all(map(_is_note, notes)) and len({n["name"] for n in notes}) == len(notes):
        return notes
    raise DamagedCheckpoint(f"{folder / MANIFEST} is damaged (in the names of its files). Use an older checkpoint.")


def _is_note(note: Any) -> bool:
    return (
        isinstance(note, dict)
        and is_file_name(note.get("name"))
        and type(note.get("size")) is type(note.get("crc")) is int
    )


def is_file_name(name: Any) -> bool:
    """Whether ``name`` is that of a file in a folder, and no path.

    >>> [is_file_name(name) for name in ("a.data", ".metadata", "..", "../a", "/a", "", "a\\0b", 3)]
    [True, True, False, False, False, False, False, False]
    """
    is_name = type(name) is str and name not in ("", ".", "..") and not set(name) & {"/", "\\", "\0"}
    return is_name and len(name.encode(errors="replace")) <= 255


def read_sharded(
    path: str | Path,
    map_location: Any = "cpu",
    processes: Processes = ALONE,
    shard: Callable[[Tensor, int, torch.Size], Tensor] | None = None,
) -> dict[str, Any]:
    """The checkpoint in the folder ``path``, its tensors whole, whatever the number of processes that wrote it.

    Several ``processes``, which all call it, read a part each: ``shard(part, dim, shape)`` is what stands in the place
    of a tensor of that shape, whose dimension ``dim`` is shared out. Each byte is read once, and verified. Raises
    ``DamagedCheckpoint``, in all of them, where a file is missing, damaged, or of another save.
    """
    from pytorch_lightning.checkpoints.shard_reader import Found, read_parts, read_together

    folder = Path(path)

    def read() -> Found:
        manifest = _manifest(folder)
        notes = _notes(manifest, folder)
        return Found(manifest, notes, *read_parts(folder, notes, _meta_tensors(manifest), processes))

    def verify(notes: list[dict[str, Any]] | None) -> None:
        verify_sharded(folder) if notes is None else _verify(folder, notes)

    found = read_together(read, verify, folder, processes)

    def whole(key: str, tensor: Tensor) -> Tensor:
        if tensor.device.type != "meta":
            return tensor.to(map_location)
        if key not in found.parts:
            return torch.empty(tensor.shape, dtype=tensor.dtype, device=map_location)
        part = found.parts[key]
        return part.values.to(map_location) if shard is None else shard(*part, tensor.shape)

    del found.manifest[KEY]
    checkpoint: dict[str, Any] = _replaced(found.manifest, whole)
    return checkpoint


def _meta_tensors(manifest: dict[str, Any]) -> dict[str, Tensor]:
    shapes: dict[str, Tensor] = {}

    def look(key: str, tensor: Tensor) -> Tensor:
        if tensor.device.type == "meta" and tensor.numel():
            shapes[key] = tensor
        return tensor

    _replaced({key: value for key, value in manifest.items() if key != KEY}, look)
    return shapes


def read_any(path: str | Path, map_location: Any = "cpu", maps_weights: bool = False) -> dict[str, Any]:
    """The checkpoint at ``path``: one file, or a folder of shards. ``maps_weights``: see ``read_checkpoint``."""
    if is_sharded(path):
        return read_sharded(path, map_location)
    return read_checkpoint(path, map_location, maps_weights=maps_weights)


def _replaced(data: Any, function: Callable[[str, Tensor], Tensor]) -> Any:
    """A copy of nested plain data with ``function`` of each tensor and its key, in the same order each time."""
    seen: dict[str, int] = {}

    def copied(data: Any, path: tuple[str, ...]) -> Any:
        if isinstance(data, Tensor):
            key = ".".join(path)
            seen[key] = seen.get(key, 0) + 1
            return function(key if seen[key] == 1 else f"{key}#{seen[key]}", data)  # {"a.b": x, "a": {"b": y}}
        if isinstance(data, dict):
            return like_mapping(data, {key: copied(value, (*path, str(key))) for key, value in data.items()})
        if type(data) in (list, tuple):
            return type(data)(copied(item, (*path, str(i))) for i, item in enumerate(data))
        return data

    return copied(data, ())


def _shapes(data: dict[str, Any]) -> list[str]:
    keys: list[str] = []

    def look(key: str, tensor: Tensor) -> Tensor:
        if tensor.device.type == "meta":
            keys.append(key)
        return tensor

    _replaced(data, look)
    return keys


def _together(function: Callable[[], Any], target: Path, processes: Processes) -> list[Any]:
    """What ``function`` gave in each process. Where it raises in one, all raise."""
    try:
        result, error = function(), ""
    except CheckpointError as failure:
        result, error = None, str(failure)
    except (OSError, RuntimeError) as failure:  # torch reports a full disk as a RuntimeError
        error = f"{target} can't be written: {str(failure).splitlines()[0]}. What was saved before is untouched."
        result = None
    told = processes.gather((result, error))
    errors = [error for _, error in told if error]
    if errors:
        raise CheckpointError(errors[0])
    return [result for result, _ in told]


def _noted(path: Path) -> dict[str, Any]:
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return {"name": path.name, "size": path.stat().st_size, "crc": crc}
