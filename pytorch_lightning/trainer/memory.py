"""How much memory a trial needs, and how much there is."""

import contextlib
import gc
from pathlib import Path
from typing import Any

import torch

from pytorch_lightning.errors import MisconfigurationException

SHARE = 0.9
"""Of the memory that is free."""
WORDS = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that there wasn't enough memory.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(ValueError("no"))
    (True, False)
    """
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in WORDS)


class Memory:
    """The memory of trials: on a GPU what torch's allocator counts, on the CPU what this process has.

    On the CPU a size that would need more than the limit isn't tried: the system would kill the program.
    """

    def __init__(self, config: Any, limit_gb: float | None) -> None:
        self._on_gpu = bool(config.gpus) and torch.accelerator.is_available()
        self._peaks: dict[int, int] = {}
        self.is_over = False
        """Whether the last trial needed more than the limit."""
        if limit_gb is not None:
            self._limit: int | None = int(limit_gb * 1e9)
        elif self._on_gpu:
            self._limit = None
        else:
            self._limit = int(_status("VmRSS") + SHARE * _info("MemAvailable"))

    def is_too_much(self, size: int) -> bool:
        """Whether a batch of ``size`` would need too much, by what smaller ones needed."""
        known = sorted(self._peaks.items())
        if self._limit is None or self._on_gpu or not known:
            return False
        if len(known) == 1:
            return known[0][1] > self._limit
        (small, least), (large, most) = known[-2:]
        slope = max(0.0, (most - least) / (large - small))
        return most + slope * (size - large) > self._limit

    def begin(self) -> None:
        """A trial begins."""
        gc.collect()
        if self._on_gpu:
            torch.accelerator.empty_cache()
            torch.accelerator.reset_peak_memory_stats()
            return
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on

    def peak(self, size: int) -> int:
        """The most that it needed, in bytes."""
        found = int(torch.accelerator.max_memory_allocated()) if self._on_gpu else _status("VmHWM")
        self._peaks[size], self.is_over = found, self._limit is not None and found > self._limit
        return found


def _status(name: str) -> int:
    return _read("/proc/self/status", name)


def _info(name: str) -> int:
    return _read("/proc/meminfo", name)


def _read(path: str, name: str) -> int:
    """A size in bytes from a file of Linux."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        raise MisconfigurationException(
            "find_batch_size on the CPU reads the memory of this process from /proc, which this system doesn't have."
            " Run it on Linux, or on a GPU."
        ) from None
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
