"""Checkpoint files: written whole or not at all, and verified before they are trusted."""

import contextlib
import errno
import os
import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from pytorch_lightning.errors import CheckpointError, describe
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
        target.parent.mkdir(parents=True, exist_ok=True)
        fault("write.begin")
        with _held(temporary, 0o600 if private else 0o666):
            _save(checkpoint, temporary)
            fault("write.written")
            sync(temporary)
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
        # torch reports a full disk as RuntimeError "unexpected pos"
        full = "unexpected pos" in str(error) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        raise CheckpointError(
            f"{target} can't be written: {str(error).splitlines()[0]}.{' The disk is full.' if full else ''}"
            " An older file of that name is untouched. Free some space or choose another folder."
        ) from error
    return target


@contextlib.contextmanager
def _held(path: Path, mode: int) -> Iterator[None]:
    """A scope in which others see that the writer of the file at ``path`` lives. It has ``mode`` at most."""
    import fcntl

    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        if os.fstat(handle).st_mode & 0o777 & ~mode:  # left over by a dead process of the same number
            os.fchmod(handle, os.fstat(handle).st_mode & mode)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not lockf: that ends when torch closes the file
        yield
    finally:
        os.close(handle)


def remove_leftovers(folder: str | Path, name: re.Pattern[str]) -> None:
    """Remove the temporary files in ``folder`` of checkpoints called ``name`` whose writers died.

    A file that somebody writes is left alone, on whatever machine that is, and so is each on a file system without
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
    own = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(True)  # verify needs the checksums
    try:
        torch.save(checkpoint, path)  # to a path: torch then writes without holding the GIL
    finally:
        torch.serialization.set_crc32_options(own)


def sync(path: str | Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """The dict in the file at ``path``, with tensors on ``map_location``.

    Raises ``CheckpointError`` where the file is missing, damaged (its checksums are compared), holds code, or
    isn't a dict. Code in a file is never run.
    """
    if not os.path.isfile(path):
        folder = Path(path) if os.path.isdir(path) else Path(path).parent
        there = sorted(p.name for p in folder.glob("*.ckpt"))[-5:] if folder.is_dir() else []
        found = f"{folder.absolute()} holds {', '.join(there) if there else 'no *.ckpt file'}"
        raise CheckpointError(f"there is no checkpoint at {str(path)!r}; {found}. Pass the path of one.")
    with open(path, "rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"  # as torch.load tells; zipfile.is_zipfile raises for some damage
    if is_zip:
        verify(path)
    return _load(path, map_location)


def verify(path: str | Path) -> None:
    """Compare the checksums in a file that ``torch.save`` wrote. Raises ``DamagedCheckpoint`` where one differs.

    ``torch.load`` accepts flipped bits silently.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except OSError as error:
        if error.errno != errno.EIO:  # not what the file holds, but whether it can be read now
            raise CheckpointError(f"{path} can't be read: {error.strerror}.") from error
        bad = str(error) or type(error).__name__
    except Exception as error:  # zipfile raises many kinds for a header that makes no sense
        bad = str(error) or type(error).__name__
    if bad is not None:
        raise DamagedCheckpoint(f"{path} is damaged (in {bad}). Use an older checkpoint.")


def peek_checkpoint(path: str | Path) -> dict[str, Any]:
    """The dict in the file at ``path`` without reading its tensors: they are mapped, and nothing is verified."""
    return _load(path, "cpu", mmap=True)


def _load(path: str | Path, map_location: Any, **options: Any) -> dict[str, Any]:
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True, **options)
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code is None:
            raise _not_readable(path, error) from error
        raise CheckpointError(
            f"{path} holds more than plain data ({code[1]}); it isn't loaded, since loading it could run code that it"
            " brings along. Save it anew as plain tensors, numbers and text: model.state_dict(), say."
        ) from error
    except Exception as error:  # whatever a stranger's bytes make of the reader
        raise _not_readable(path, error) from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f"{path} isn't a checkpoint; it holds {describe(checkpoint)}, not a dict. Pass a file that a Trainer wrote."
        )
    return checkpoint


def _not_readable(path: str | Path, error: Exception) -> CheckpointError:
    why = " ".join(str(error).split())[:100]
    return CheckpointError(
        f"{path} is damaged, or isn't a checkpoint ({os.path.getsize(path):,} bytes; {type(error).__name__}: {why})."
        " Use an older checkpoint."
    )
