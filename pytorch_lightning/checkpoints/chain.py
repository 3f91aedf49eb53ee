"""A chain of lines in a file: each holds the hash of the one before it, and its own.

So a line that is edited, removed, swapped or put in between is found. Who writes all hashes anew can write any chain:
the hashes show that a file is whole, not who wrote it.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.checkpoints.store import sync, sync_names
from pytorch_lightning.errors import CheckpointError
from pytorch_lightning.faults import fault

NAME = "certificate.jsonl"
"""The file in a run's folder."""
FIRST = "0" * 64
"""What the first line has in the place of the hash of the one before it."""
_KEY = ', "hash": "'


class BrokenChain(CheckpointError):
    """A line that doesn't follow from the one before it."""


def line_of(entry: Mapping[str, Any], previous: str) -> str:
    """The line of ``entry`` after the one with the hash ``previous``.

    >>> line = line_of({"global_step": 3}, FIRST)
    >>> line[:28], line[80:106]
    ('{"previous": "00000000000000', ' "global_step": 3, "hash":')
    """
    text = json.dumps({"previous": previous, **entry})
    return f'{text[:-1]}{_KEY}{_hash(text)}"}}'


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def lines_in(data: bytes, path: str | Path, fits: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """The lines of a chain, the oldest first. Raises ``BrokenChain`` at the first that isn't as it was written, or
    doesn't fit."""
    found: list[dict[str, Any]] = []
    previous = FIRST
    for number, line in enumerate(data.splitlines(), 1):
        head, key, tail = line.decode(errors="replace").rpartition(_KEY)
        if not key or tail != f'{_hash(head + "}")}"}}':
            raise BrokenChain(f"line {number} of {path} was changed: its hash is another one.")
        try:
            entry = json.loads(head + "}")
        except (ValueError, RecursionError) as error:
            raise BrokenChain(f"line {number} of {path} isn't JSON.") from error
        if not isinstance(entry, dict) or entry.get("previous") != previous:
            raise BrokenChain(
                f"line {number} of {path} doesn't follow the line before it: a line was removed, added or moved."
            )
        if not fits(entry):
            raise BrokenChain(f"line {number} of {path} isn't one of a certificate.")
        previous = tail[:64]
        found.append({**entry, "hash": previous})
    return found


def read_chain(path: str | Path, fits: Callable[[dict[str, Any]], bool] = bool) -> list[dict[str, Any]]:
    """The lines of the file at ``path``, apart from one that wasn't written to its end. Raises as ``lines_in``."""
    try:
        return lines_in(_whole(Path(path).read_bytes()), path, fits)
    except OSError as error:
        raise CheckpointError(
            f"{path} can't be read: {error.strerror}. Pass the folder of a run with certificate=True."
        ) from error


def _whole(data: bytes) -> bytes:
    """``data`` up to the end of its last whole line."""
    return data[: data.rfind(b"\n") + 1]


class Chain:
    """The file of a run, to which lines are appended. A line that a kill left half written is removed first; a file
    that was removed or cut meanwhile is written anew, with all its lines.

    Raises ``BrokenChain`` where what is there isn't whole, and ``CheckpointError`` where it can't be read or written.
    """

    def __init__(self, path: str | Path, fits: Callable[[dict[str, Any]], bool] = bool) -> None:
        self._path = Path(path)
        self.lines = read_chain(path, fits) if self._path.exists() else []
        self._last = self.lines[-1]["hash"] if self.lines else FIRST
        self._written = _whole(self._path.read_bytes()) if self.lines else b""

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write a line, and flush it to the disk."""
        line = line_of(entry, self._last)
        data = f"{line}\n".encode()
        try:
            is_new = self._write(data)
            if is_new:
                sync(self._path.parent)
                sync_names(self._path.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.truncate(self._path, min(len(self._written), self._path.stat().st_size))
            raise CheckpointError(f"{self._path} can't be written: {error.strerror}.") from error
        self._written, self._last = self._written + data, line[-66:-2]

    def _write(self, data: bytes) -> bool:
        """Whether the file had to be made, or made anew."""
        size = len(self._written)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if lacks := os.fstat(handle).st_size < size:
                data, size = self._written + data, 0
            os.ftruncate(handle, size)
            os.lseek(handle, size, os.SEEK_SET)
            fault("chain.begin")
            half = len(data) // 2
            for part in (data[:half], data[half:]):
                while part:
                    part = part[os.write(handle, part) :]
                fault("chain.written")
            os.fsync(handle)
        finally:
            os.close(handle)
        return lacks or not size
