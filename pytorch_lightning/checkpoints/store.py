"""Checkpoint files: written whole or not at all, and verified before they are trusted."""

import contextlib
import copy
import errno
import io
import os
import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch

from pytorch_lightning.errors import CheckpointError, one_line
from pytorch_lightning.faults import fault


class DamagedCheckpoint(CheckpointError):
    """A file whose bytes aren't those that were written."""


def write_checkpoint(checkpoint: dict[str, Any], path: str | Path, private: bool = False) -> Path:
    """Write ``checkpoint`` to ``path``: to a temporary file beside it, flushed to the disk, then renamed.

    A kill at any moment leaves the old file or the new one. The umask decides who may read it; ``private``: nobody
    but the user, whatever the umask. Raises ``CheckpointError`` where it can't be written; the old file is then
    untouched.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        if not os.path.isdir(target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
        fault("write.begin")
        with _held(temporary, 0o600 if private else 0o666) as handle:
            _save(checkpoint, temporary)
            fault("write.written")
            os.fsync(handle)
            fault("write.synced")
            os.replace(temporary, target)
            fault("write.renamed")
        sync(target.parent)
        fault("write.durable")
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if not isinstance(error, (OSError, RuntimeError)):
            raise
        # torch reports a full disk as a RuntimeError: "unexpected pos", or "iostream error" where it closes the file
        by_torch = re.search("unexpected pos|iostream error", str(error)) is not None
        full = by_torch or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        raise CheckpointError(
            f"{target} can't be written: {str(error).splitlines()[0]}.{' The disk is full.' if full else ''}"
            " An older file of that name is untouched. Free some space or choose another folder."
        ) from error
    return target


@contextlib.contextmanager
def _held(path: Path, mode: int) -> Iterator[int]:
    """A scope in which others see that the writer of the file at ``path`` lives, with a handle of that file. It has
    ``mode`` at most."""
    import fcntl

    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        if os.fstat(handle).st_mode & 0o777 & ~mode:  # left over by a dead process of the same number
            os.fchmod(handle, os.fstat(handle).st_mode & mode)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not lockf: that ends when torch closes the file
        yield handle
    finally:
        os.close(handle)


def remove_leftovers(folder: str | Path, name: re.Pattern[str]) -> None:
    """Remove the temporary files in ``folder`` of checkpoints called ``name`` whose writers died.

    A file that is being written, on any machine, is left alone, and so is each on a file system without
    locks.
    """
    import fcntl

    for path in Path(folder).glob(".*.tmp"):
        called = re.fullmatch(r"\.(.+)\.\d+\.tmp", path.name)
        if called is None or name.fullmatch(called[1]) is None:
            continue
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(handle)


def _save(checkpoint: dict[str, Any], path: Path) -> None:
    with checksums_on():
        torch.save(checkpoint, path)  # to a path: torch then writes without holding the GIL


class _Counter(io.RawIOBase):
    """A file that only counts what is written to it."""

    size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        nb = memoryview(data).nbytes
        self.size += nb
        return nb


def size_of(checkpoint: dict[str, Any]) -> int:
    """How many bytes the file of ``checkpoint`` would have. Nothing is written."""
    counter = _Counter()
    with checksums_on():
        torch.save(checkpoint, cast("Any", counter))
    return counter.size


@contextlib.contextmanager
def checksums_on() -> Iterator[None]:
    """A scope in which ``torch.save`` writes the checksums that ``verify`` needs."""
    own = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(True)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(own)


def sync(path: str | Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would wait for its writer
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_synced: set[tuple[int, int]] = set()
"""Folders, by device and number, whose own names are on the disk."""


def sync_names(folder: Path) -> None:
    """Flush the names of ``folder`` and of the folders that lead to it to the disk, once for each folder."""
    found = folder.stat()
    if (found.st_dev, found.st_ino) not in _synced:
        for parent in folder.absolute().parents:
            with contextlib.suppress(OSError):  # one that may be passed through and not be read
                sync(parent)
        _synced.add((found.st_dev, found.st_ino))


def read_checkpoint(
    path: str | Path, map_location: Any = "cpu", ours: bool = False, maps_weights: bool = False
) -> dict[str, Any]:
    """The dict in the file at ``path``, with tensors on ``map_location``.

    Raises ``CheckpointError`` where the file is missing, damaged (its checksums are compared), holds code, would take
    much more memory than it has bytes, or isn't a dict. Code in a file is never run. ``ours``: it is a file of this
    library, not one of an old torch, say; such files have checksums. ``maps_weights``: the tensors of ``state_dict``
    aren't copied but mapped from the file, so that a module that takes them over needs its own memory only.
    """
    _find(path)
    _look_at(path, contents=True, ours=ours)
    if not maps_weights or not (ours or zipfile.is_zipfile(path)):
        return _load(path, map_location)
    mapped = _load(path, "cpu", mmap=True)
    weights = {key: mapped.pop(key) for key in ("state_dict",) if key in mapped}
    # what was verified is read once more, and nothing of it stays in the file, whatever becomes of that
    return weights | copy.deepcopy(mapped)


def _find(path: str | Path) -> None:
    if not os.path.isfile(path):
        folder = Path(path) if os.path.isdir(path) else Path(path).parent
        there = sorted(p.name for p in folder.glob("*.ckpt"))[-5:] if folder.is_dir() else []
        found = f"{folder.absolute()} holds {', '.join(there) if there else 'no *.ckpt file'}"
        raise CheckpointError(f"there is no checkpoint at {str(path)!r}; {found}. Pass the path of one.")


def verify(path: str | Path) -> None:
    """Compare the checksums in a file that this library wrote. Raises ``DamagedCheckpoint`` where one differs, and
    ``CheckpointError`` for a file that isn't to be read.

    ``torch.load`` accepts flipped bits silently.
    """
    _look_at(path, contents=True, ours=True)


def peek_checkpoint(path: str | Path) -> dict[str, Any]:
    """The dict in the file at ``path`` without reading its tensors: they are mapped, and nothing is verified."""
    _find(path)
    _look_at(path, ours=True)
    return _load(path, "cpu", mmap=True)


def _look_at(path: str | Path, contents: bool = False, ours: bool = False) -> None:
    """Raises ``CheckpointError`` where ``torch.load`` would do more than read plain data. ``contents``: compare
    checksums too, which ``ours`` have."""
    from pytorch_lightning.checkpoints.guard import BadArchive, Refused, is_archive, look_at

    try:
        with open(path, "rb") as file:
            if ours and not is_archive(file):
                raise BadArchive("its first bytes")
            found = look_at(file, contents)
    except OSError as error:
        if error.errno != errno.EIO:  # not what the file holds, but whether it can be read now
            raise CheckpointError(f"{path} can't be read: {error.strerror}.") from error
        raise _damaged(path, error) from error
    except BadArchive as error:
        raise _damaged(path, error) from error
    except Refused as error:
        raise _refused(path, str(error), error.name) from error
    if not found.is_a("dict"):
        raise CheckpointError(
            f"{path} isn't a checkpoint; it holds {found}, not a dict. Pass a file that a Trainer wrote."
        )


def _load(path: str | Path, map_location: Any, **options: Any) -> dict[str, Any]:
    try:
        return torch.load(path, map_location=map_location, weights_only=True, **options)  # type: ignore[no-any-return]
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        raise _refused(path, str(error), code and code[1]) from error
    except Exception as error:  # whatever a stranger's bytes make of the reader
        raise _refused(path, f"{type(error).__name__}: {error}") from error


def _damaged(path: str | Path, error: Exception) -> DamagedCheckpoint:
    return DamagedCheckpoint(
        f"{path} is damaged (in {one_line(str(error) or type(error).__name__, 100)}). Use an older checkpoint."
    )


def _refused(path: str | Path, why: str, code: str | None = None) -> CheckpointError:
    if code is not None:
        return CheckpointError(
            f"{path} holds more than plain data ({one_line(code, 100)}); it isn't loaded, since loading it could run"
            " code that it brings along. Save it anew as plain tensors, numbers and text: model.state_dict(), say."
        )
    size = f"{os.path.getsize(path):,} bytes; " if os.path.exists(path) else ""
    return CheckpointError(
        f"{path} is damaged, or isn't a checkpoint ({size}{one_line(why, 200)}). Use an older checkpoint."
    )
