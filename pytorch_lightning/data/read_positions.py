"""Open files that are read at a position of their own. A process that is forked shares it, so that two of them which
read on would get each other's bytes."""

import contextlib
import os
import stat
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where no process is forked
    fcntl = None  # type: ignore[assignment]

NUMBERS = ("/proc/self/fd", "/dev/fd")
"""Folders that list a process's descriptors."""

File = tuple[int, int]
"""Its device, and its number there."""
Positions = dict[int, tuple[File, int]]
"""By descriptor: its file, and the position."""


def read_positions() -> Positions:
    """The positions in all files that are open for reading; none where the system doesn't list them."""
    found: Positions = {}
    if fcntl is None:
        return found
    for folder in NUMBERS:
        with contextlib.suppress(OSError):
            for name in os.listdir(folder):
                with contextlib.suppress(OSError):  # closed by now, as that of the list itself is
                    found |= _position(int(name))
            break
    return found


def moved(before: Positions, with_opened: bool) -> dict[int, File]:
    """By descriptor the files whose position isn't as it was, also ``with_opened`` those opened and read since then."""
    found: dict[int, File] = {}
    for number, (file, position) in read_positions().items():
        earlier, was = before.get(number, (None, 0))
        if position != was if file == earlier else with_opened and position:
            found[number] = file
    return found


def still_open(files: dict[int, File]) -> list[str]:
    """The paths of those that haven't been closed since: a fork would share them."""
    now = read_positions()
    return [_path(number) for number, file in files.items() if number in now and now[number][0] == file]


def _position(number: int) -> Positions:
    status = os.fstat(number)
    if not stat.S_ISREG(status.st_mode) or fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
        return {}
    return {number: ((status.st_dev, status.st_ino), os.lseek(number, 0, os.SEEK_CUR))}


def _path(number: int) -> str:
    for folder in map(Path, NUMBERS):
        with contextlib.suppress(OSError):
            return os.readlink(folder / str(number))
    return f"file descriptor {number}"
