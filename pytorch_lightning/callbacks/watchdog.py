"""Report where a process hangs, if there are several."""

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, Self

from pytorch_lightning.callbacks.callback import Callback, Run

TOLD_AFTER = 0.8
"""The share of the time that processes wait for each other after which stacks are shown."""


class Watchdog(Callback):
    """Shows the stacks of all threads where no batch has ended for a long time, before the others give up waiting.

    ``seconds`` is how long processes wait for each other. A process that is still busy after that ends, with exit
    code 1, once ``another_failed()``: one that hangs in a user's code never notices that the others are gone. It is
    a context: watching begins and ends with it.
    """

    def __init__(self, rank: int, seconds: float, another_failed: Callable[[], bool]) -> None:
        self._rank, self._seconds, self._another_failed = rank, seconds, another_failed
        self._at = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def on_fit_start(self, run: Run) -> None:
        self._at = time.monotonic()

    def on_epoch_start(self, run: Run) -> None:
        self._at = time.monotonic()

    def on_batch_end(self, run: Run) -> None:
        self._at = time.monotonic()

    def on_evaluation_start(self, run: Run, stage: str, nb_batches: int | None) -> None:
        self._at = time.monotonic()

    def on_evaluation_batch_end(self, run: Run, stage: str, batch_nb: int) -> None:
        self._at = time.monotonic()

    def on_evaluation_end(self, run: Run, stage: str) -> None:
        self._at = time.monotonic()

    def on_epoch_end(self, run: Run) -> None:
        self._at = time.monotonic()

    def _watch(self) -> None:
        told_of = None
        while not self._over.wait(min(1.0, self._seconds / 20)):
            at = self._at
            idle = time.monotonic() - at
            if idle >= TOLD_AFTER * self._seconds and told_of != at:
                told_of = at
                _show(f"[rank {self._rank}] ", stacks(idle))
            if idle >= self._seconds and self._another_failed():
                _show(f"[rank {self._rank}] ", ["another process failed while this one was busy, so this one exits"])
                os._exit(1)


def stacks(idle: float) -> list[str]:
    """Where each thread is, the main thread last."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    lines = [f"no batch has ended for {idle:.0f} s; this is where each thread is:"]
    frames: list[tuple[int, Any]] = sorted(
        sys._current_frames().items(), key=lambda item: item[0] == threading.main_thread().ident
    )
    for ident, frame in frames:
        if ident != threading.get_ident():
            lines.append(f"thread {names.get(ident, ident)}:")
            lines += "".join(traceback.format_stack(frame)).splitlines()
    return lines


def _show(prefix: str, lines: list[str]) -> None:
    # to the stream that began as stderr: the one in its place may be held by the thread that hangs
    os.write(2, "".join(f"{prefix}{line}\n" for line in lines).encode())
