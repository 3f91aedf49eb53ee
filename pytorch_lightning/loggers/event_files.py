"""TensorBoard's event files of a run: how long each is, and cut back to that, so that no point is there twice."""

import os
import struct
from pathlib import Path

NAMES = "*tfevents*"


def event_sizes(folder: Path) -> dict[str, int]:
    """The event files in ``folder`` and in the folders in it, and their sizes in bytes."""
    return {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob(NAMES))}


def cut_events(folder: Path, sizes: dict[str, int], since: float | None = None) -> None:
    """Remove what was written after ``event_sizes`` gave ``sizes``, and from the time ``since`` on. No writer may be
    open."""
    for name, size in event_sizes(folder).items():
        if name not in sizes:
            (folder / name).unlink()
        elif size > sizes[name]:
            os.truncate(folder / name, sizes[name])
        if since is not None and (folder / name).exists():
            os.truncate(folder / name, _size_before(folder / name, since))


def _size_before(path: Path, since: float) -> int:
    """The bytes before the first event of that time. A record is its length, a checksum of that, the event, and a
    checksum of the event, which begins with its time."""
    place, size = 0, path.stat().st_size
    with open(path, "rb") as file:
        while len(head := file.read(21)) == 21:
            length, key, seconds = struct.unpack("<Q4xBd", head)
            if (key == 9 and seconds >= since) or place + length + 16 > size:  # 9: field 1, a double
                return place
            place += length + 16
            file.seek(place)
    return place
