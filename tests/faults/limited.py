"""A limit on memory that the kernel enforces by killing: a control group, where one can be made."""

import contextlib
import os
import uuid
from pathlib import Path

MOUNTS = Path("/sys/fs/cgroup")


class Limited:
    """A control group of its own. Needs root, and a file system of control groups that can be written."""

    def __init__(self, folder: Path, limit: str, count: str) -> None:
        self.folder, self._limit, self._count = folder, limit, count

    @classmethod
    def make(cls) -> "Limited | None":
        """An empty group; None where the system lets nobody make one."""
        name, first = f"plc_{uuid.uuid4().hex[:8]}", MOUNTS / "memory"
        places = [(first, "memory.limit_in_bytes", "memory.oom_control"), (MOUNTS, "memory.max", "memory.events")]
        for mount, limit, count in places:
            made = cls(mount / name, limit, count)
            with contextlib.suppress(OSError):
                made.folder.mkdir()
                if (made.folder / limit).exists() and os.access(made.folder / limit, os.W_OK):
                    return made
            made.close()
        return None

    def limit_to(self, megabytes: int) -> None:
        (self.folder / self._limit).write_text(f"{megabytes * 2**20}")
        with contextlib.suppress(OSError):  # or it would be swapped out
            (self.folder / "memory.swap.max").write_text("0")

    @property
    def members(self) -> str:
        """The file that a process writes 0 to, to be in it with what it starts and uses from then on."""
        return str(self.folder / "cgroup.procs")

    @property
    def nb_killed(self) -> int:
        """How many processes the kernel has killed in it."""
        lines = (self.folder / self._count).read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.folder.rmdir()
