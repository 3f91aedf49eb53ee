"""TensorBoard's event files of a run: how long each is, and cut back to that, so that no point is there twice."""

import os
from pathlib import Path

NAMES = "*tfevents*"


def event_sizes(folder: Path) -> dict[str, int]:
    """The event files in ``folder`` and in the folders in it, and their sizes in bytes."""
    return {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob(NAMES))}


def cut_events(folder: Path, sizes: dict[str, int]) -> None:
    """Remove what was written after ``event_sizes`` gave ``sizes``. No writer may be open."""
    for name, size in event_sizes(folder).items():
        if name not in sizes:
            (folder / name).unlink()
        elif size > sizes[name]:
            os.truncate(folder / name, sizes[name])
