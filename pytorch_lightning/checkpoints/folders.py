"""Where rolling saves lie: a folder of this machine, or a remote one.

Both have the same methods, and know a save by its file name. It appears whole or not at all.
"""

import contextlib
import datetime
import errno
import json
import os
import re
import shutil
import socket
import struct
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from pytorch_lightning.checkpoints.sharded import (
    MANIFEST,
    Cut,
    is_sharded,
    own_part,
    read_sharded,
    verify_sharded,
    write_any,
)
from pytorch_lightning.checkpoints.snapshot import nb_bytes
from pytorch_lightning.checkpoints.store import (
    DamagedCheckpoint,
    peek_checkpoint,
    read_checkpoint,
    verify,
    write_checkpoint,
)
from pytorch_lightning.errors import CheckpointError, Problem, one_line
from pytorch_lightning.faults import fault
from pytorch_lightning.processes import ALONE, Processes

LOCK = ".lock"
_locked: dict[str, int] = {}
"""Folders that this process holds, and the open files by which it does."""


def _let_go() -> None:
    """In a forked process: a loader's worker would hold the folder after a kill of the process that trains."""
    for handle in _locked.values():
        with contextlib.suppress(OSError):  # the process closed what it had open, to become a daemon, say
            os.close(handle)
    _locked.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _lock(handle: int) -> None:
    """Lock an open file, not the process, which would lose the lock as soon as anything in it closes that file.

    Raises ``BlockingIOError`` or ``PermissionError`` where another has it, another ``OSError`` if there are no locks.
    """
    import fcntl

    command = getattr(fcntl, "F_OFD_SETLK", None)
    try:
        if command is not None:
            fcntl.fcntl(handle, command, struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
            return
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # macOS, some file systems


def _is_the_file(handle: int, path: Path) -> bool:
    return path.exists() and os.path.samestat(os.fstat(handle), path.stat())


def open_folder(folder: str | os.PathLike[str]) -> "Folder":
    """The folder at a path, or at an address such as ``s3://bucket/run``."""
    return RemoteFolder(str(folder)) if is_remote(folder) else LocalFolder(folder)


def is_remote(folder: str | os.PathLike[str]) -> bool:
    """Whether ``folder`` is an address of another machine's storage.

    >>> is_remote("s3://bucket/run"), is_remote("./runs")
    (True, False)
    """
    return "://" in os.fspath(folder)


def megabytes(size: float) -> str:
    """A size for people.

    >>> megabytes(300_000_000), megabytes(1234)
    ('300 MB', '0.0 MB')
    """
    return f"{size / 1e6:.0f} MB" if size >= 1e7 else f"{size / 1e6:.1f} MB"


class LocalFolder:
    """A folder of a file system of this machine."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._key: str | None = None

    def __str__(self) -> str:
        return str(self._path)

    def names(self) -> list[str]:
        """What is there."""
        try:
            return os.listdir(self._path)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def is_folder(self, name: str) -> bool:
        """Whether a save is a folder, in which several processes wrote."""
        return (self._path / name).is_dir()

    def write(
        self, checkpoint: dict[str, Any] | Cut, name: str, processes: Processes = ALONE, private: bool = False
    ) -> int:
        """Write a save; returns its size in bytes. Raises ``CheckpointError`` where it can't be.

        Every process calls it where each has a part of the ``checkpoint``; ``name`` is then a new one. ``private``: a
        file that only the user may read.
        """
        needed = sum(processes.gather(nb_bytes(own_part(checkpoint, processes))))
        free, problem = processes.from_first(self._room() if processes.is_first else (0, ""))
        if problem:
            raise CheckpointError(problem)
        if needed > free:
            raise CheckpointError(
                f"{self._path / name} can't be written: it needs {megabytes(needed)} and {megabytes(free)} are free."
                " The disk is full. Older saves are untouched. Free some space."
            )
        return write_any(checkpoint, self._path / name, processes, private)

    def _room(self) -> tuple[int, str]:
        """The bytes that are free, and why nothing can be written. A folder that was removed is made again."""
        try:
            self._lock_again()
            return shutil.disk_usage(self._path).free, ""
        except CheckpointError as error:
            return 0, str(error)
        except OSError as error:
            return 0, f"{self._path} can't be written: {error.strerror}. Make it writable, or free some space."

    def _lock_again(self) -> None:
        """Where the file of the lock is another one now, or couldn't be locked since: nothing is written without it."""
        if self._key is None:
            return
        handle = _locked.get(self._key)
        if handle is None or not _is_the_file(handle, self._path / LOCK):
            key = self._key
            self.unlock()
            self._key = key  # for the next try
            self.lock(0)

    def read(self, name: str) -> dict[str, Any]:
        """A save, verified. Raises ``DamagedCheckpoint`` where its bytes changed."""
        if (self._path / name).is_dir():
            return read_sharded(self._path / name)
        return read_checkpoint(self._path / name, ours=True, maps_weights=True)

    def peek(self, name: str) -> dict[str, Any]:
        """A save, unverified, without reading what is large in it."""
        path = self._path / name
        return peek_checkpoint(path / MANIFEST if is_sharded(path) else path)

    def verify(self, name: str) -> None:
        """Raise ``DamagedCheckpoint`` where a save isn't what was written."""
        path = self._path / name
        verify_sharded(path) if path.is_dir() else verify(path)

    def rename(self, name: str, new: str) -> None:
        if (self._path / name).is_dir():
            self.remove(new)  # a folder replaces an empty one at most
        os.replace(self._path / name, self._path / new)

    def remove(self, name: str) -> None:
        path = self._path / name
        if not path.is_dir():
            path.unlink(missing_ok=True)
            return
        if not name.endswith(".tmp"):  # it's never half a save
            path = path.rename(self._path / f".{name}.removed.tmp")
        shutil.rmtree(path, ignore_errors=True)

    def problem(self) -> Problem | None:
        """Why nothing can be written here; None where it can."""
        trial, new = self._path / f".trial.{os.getpid()}", not self._path.exists()
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            trial.write_bytes(b"x")
            trial.unlink()
            if new:
                with contextlib.suppress(OSError):  # others may begin there too
                    self._path.rmdir()
        except OSError as error:
            return Problem(
                f"checkpoints can't be written to {self._path}", str(error.strerror), "Choose another default_save_path"
            )
        return None

    def lock(self, patience: float) -> None:
        """Keep other runs out. Raises ``CheckpointError``, naming the holder, after ``patience`` seconds."""
        self._path.mkdir(parents=True, exist_ok=True)
        key = os.path.realpath(self._path)
        if key in _locked:
            raise CheckpointError(f"{self._path} is in use by another fit of this process. Give each its own folder.")
        handle = os.open(self._path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        until = time.monotonic() + patience  # a process that was just killed may hold it for a moment
        while True:
            try:
                _lock(handle)
                break
            except (BlockingIOError, PermissionError):
                if time.monotonic() >= until:
                    holder = os.pread(handle, 1000, 0).decode(errors="replace") or "an unknown process"
                    os.close(handle)
                    raise CheckpointError(
                        f"{self._path} is in use by {holder}. Wait for its end, or give this run another folder."
                    ) from None
                time.sleep(0.05)
            except OSError:  # a file system without locks
                os.close(handle)
                return
        since = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
        os.truncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()} since {since}".encode(), 0)
        self._key, _locked[key] = key, handle
        for name in self.names():  # of processes that died while they wrote
            if name.startswith(".step-") and name.endswith(".tmp"):
                self.remove(name)

    def unlock(self) -> None:
        handle = None if self._key is None else _locked.pop(self._key, None)
        if handle is not None:
            os.close(handle)
        self._key = None


DATA = re.compile(r"([^/\\\x00-\x1f]+)\.[0-9a-f]{8}\.data")
"""The name of a save's data, without a folder; the name of the save is its first part."""
MOST_OF_A_MANIFEST = 2**20
"""Bytes. A manifest has a few hundred."""


class RemoteFolder:
    """A folder behind an address that fsspec knows (``s3://``, ``gs://``, ``memory://``, ...).

    A save is two objects: its data, and a small manifest that is written last and makes it one. There is no lock:
    two runs must not share a remote folder.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        self._url = url
        self._system, self._path = fsspec.core.url_to_fs(url)

    def __str__(self) -> str:
        return self._url

    def _at(self, name: str) -> str:
        return f"{self._path.rstrip('/')}/{name}"

    def _list(self) -> list[str]:
        self._system.invalidate_cache()
        try:
            return [path.rstrip("/").rsplit("/", 1)[-1] for path in self._system.ls(self._path, detail=False)]
        except FileNotFoundError:
            return []

    def names(self) -> list[str]:
        return [name.removesuffix(".json") for name in self._list() if not name.endswith(".data")]

    def _manifest(self, name: str) -> dict[str, Any]:
        try:
            manifest = self._read_manifest(name)
            size = self._system.info(self._at(manifest["data"]))["size"]
        except (ValueError, FileNotFoundError) as error:
            why = one_line(f"{type(error).__name__}: {error}", 100)
            raise DamagedCheckpoint(f"{self._url}/{name} is damaged ({why}). Use an older checkpoint.") from error
        if size != manifest["size"]:
            raise DamagedCheckpoint(
                f"{self._url}/{name} is damaged ({size} bytes of {manifest['size']}). Use an older checkpoint."
            )
        return manifest

    def _read_manifest(self, name: str) -> dict[str, Any]:
        """What a save's manifest says, as far as it may be believed: it can't name a file of anybody else. Raises
        ``ValueError`` or ``FileNotFoundError``."""
        path = self._at(f"{name}.json")
        if self._system.info(path)["size"] > MOST_OF_A_MANIFEST:
            raise ValueError("its manifest is too large")
        try:
            manifest = json.loads(self._system.cat_file(path))
        except RecursionError as error:
            raise ValueError("its manifest is nested too deeply") from error
        kinds = {"data": str, "size": int, "checkpoint": dict}
        if not isinstance(manifest, dict) or any(type(manifest.get(key)) is not kind for key, kind in kinds.items()):
            raise ValueError("its manifest isn't one of this library")
        made = DATA.fullmatch(manifest["data"])
        if made is None or not f"{name}.".startswith(f"{made[1]}."):  # a damaged one keeps its data under the old name
            raise ValueError(f"its manifest names {manifest['data']!r}, which isn't its data")
        return manifest

    def is_folder(self, name: str) -> bool:
        return False

    def write(
        self, checkpoint: dict[str, Any] | Cut, name: str, processes: Processes = ALONE, private: bool = False
    ) -> int:
        assert isinstance(checkpoint, dict)  # who may read it is that service's to say
        data = f"{name}.{uuid.uuid4().hex[:8]}.data"  # never the name that an existing save of this name uses
        small = {key: checkpoint[key] for key in ("epoch", "global_step", "format")}
        small["parts"] = {key: checkpoint["parts"][key] for key in ("run", "progress") if key in checkpoint["parts"]}
        try:
            self._system.makedirs(self._path, exist_ok=True)
            old = self._data_of(name)
            with tempfile.TemporaryDirectory(prefix="checkpoint_") as scratch:
                local = write_checkpoint(checkpoint, Path(scratch) / name)
                size = local.stat().st_size
                fault("remote.begin")
                self._system.put_file(str(local), self._at(data))
            fault("remote.data")
            manifest = json.dumps({"data": data, "size": size, "checkpoint": small})
            self._system.pipe_file(self._at(f"{name}.json"), manifest.encode())
            fault("remote.manifest")
            if old is not None:
                self._system.rm_file(self._at(old))
        except Exception as error:  # each service has its own
            raise CheckpointError(
                f"{self._url}/{name} can't be written: {error}. Older saves are untouched."
            ) from error
        return size

    def read(self, name: str) -> dict[str, Any]:
        manifest = self._manifest(name)
        with tempfile.TemporaryDirectory(prefix="checkpoint_") as scratch:
            self._system.get_file(self._at(manifest["data"]), str(Path(scratch) / name))
            return LocalFolder(scratch).read(name)

    def peek(self, name: str) -> dict[str, Any]:
        return self._manifest(name)["checkpoint"]  # type: ignore[no-any-return]

    def verify(self, name: str) -> None:
        self._manifest(name)

    def rename(self, name: str, new: str) -> None:
        self._system.mv(self._at(f"{name}.json"), self._at(f"{new}.json"))

    def remove(self, name: str) -> None:
        data = self._data_of(name)
        for gone in (f"{name}.json", data):
            with contextlib.suppress(FileNotFoundError):
                if gone is not None:
                    self._system.rm_file(self._at(gone))

    def _data_of(self, name: str) -> str | None:
        """The name of the data of a save, in this folder; None if there is none, or a manifest that can't be
        believed."""
        with contextlib.suppress(ValueError, FileNotFoundError):
            return str(self._read_manifest(name)["data"])
        return None

    def problem(self) -> Problem | None:
        try:
            self._system.makedirs(self._path, exist_ok=True)
            self._system.pipe_file(self._at(".trial"), b"x")
            self._system.rm_file(self._at(".trial"))
        except Exception as error:  # each service has its own
            return Problem(f"checkpoints can't be written to {self._url}", str(error), "Choose another folder")
        return None

    def lock(self, patience: float) -> None:
        there = self._list()
        saves = {name.removesuffix(".json"): name for name in there if name.endswith(".json")}
        named = {self._data_of(save) for save in saves}
        for name in there:  # data of processes that died before the manifest
            made = DATA.fullmatch(name)
            if made is None or name in named:
                continue
            if (
                made[1] not in saves or self._data_of(made[1]) is not None
            ):  # not what a damaged manifest no longer names
                self._system.rm_file(self._at(name))

    def unlock(self) -> None:
        pass


Folder = LocalFolder | RemoteFolder
