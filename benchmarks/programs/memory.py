"""The memory of this process, as Linux counts it."""

import os
import subprocess
import sys
from pathlib import Path


def megabytes(name: str = "VmRSS") -> float:
    """``VmRSS``: what is resident now; ``VmHWM``: the most that it was; ``RssAnon``: without what is mapped from
    files."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise KeyError(name)


def forget_peak() -> None:
    """``VmHWM`` begins again."""
    Path("/proc/self/clear_refs").write_text("5")


WATCHER = """
import select, sys
most = 0
while not select.select([sys.stdin], [], [], 0.003)[0]:
    with open(f"/proc/{sys.argv[1]}/status") as file:
        for line in file:
            if line.startswith("RssAnon:"):
                most = max(most, int(line.split()[1]))
print(most / 1024)
"""


class Watch:
    """The most ``RssAnon`` from now on. The kernel doesn't keep that: another process looks every 3 ms."""

    def __init__(self) -> None:
        self._watcher = subprocess.Popen(
            [sys.executable, "-S", "-c", WATCHER, str(os.getpid())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def peak(self) -> float:
        """In MB; it is over then."""
        return max(float(self._watcher.communicate("\n")[0]), megabytes("RssAnon"))
