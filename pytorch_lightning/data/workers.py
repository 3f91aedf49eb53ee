"""Processes that make batches: signals are their parent's business."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

IGNORED = (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
HELD = (*IGNORED, signal.SIGTERM)


@dataclass(frozen=True)
class Shielded:
    """A ``worker_init_fn`` after which signals to the whole process group leave the worker alone.

    It ends with its parent, as torch's workers do, and by the SIGTERM of its parent.
    """

    then: Callable[[int], Any] | None
    """The user's own."""

    def __call__(self, worker_id: int) -> None:
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)
        if hasattr(signal, "sigwaitinfo"):
            # a handler can't see who sent it; the one that torch sets dies of anybody's
            signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
            threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED)
        else:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
        if self.then is not None:
            self.then(worker_id)


def _end_with_parent(parent: int) -> None:
    while signal.sigwaitinfo((signal.SIGTERM,)).si_pid != parent:
        pass
    os._exit(0)


@contextlib.contextmanager
def held_signals() -> Iterator[None]:
    """A scope in which workers may be started: a signal waits until they are shielded."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
