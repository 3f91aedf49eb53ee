"""Fits and tests inside others, and beside others."""

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pytorch_lightning.errors import MisconfigurationException
from pytorch_lightning.root_module.root_module import LightningModule

if TYPE_CHECKING:
    from pytorch_lightning.trainer.attributes import ReadAttributes

_lock = threading.Lock()
_busy: list[int] = []
"""The thread of each run that is going on, the outermost first."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_busy.clear)

_forbidden: list[str] = []
"""What may not start a fit while it is imported."""

KEPT = ("module", "_run", "_plan", "_strategy", "_nb_started", "interrupted")


@contextlib.contextmanager
def in_one_thread() -> Iterator[None]:
    """The scope of a run. Runs inside each other are all in one thread; raises ``MisconfigurationException`` where
    another thread's run is going on: both would draw from the same random streams, each at its own moments."""
    me = threading.get_ident()
    with _lock:
        if _busy and _busy[0] != me:
            raise MisconfigurationException(
                "two runs in two threads at once can't be reproducible, since python's, numpy's and torch's random"
                " streams are one for all threads; received a second one. Use processes (n_jobs=1 and several programs,"
                " or multiprocessing with the 'spawn' method), or run one after the other."
            )
        _busy.append(me)
    try:
        yield
    finally:
        with _lock:
            _busy.pop()


@contextlib.contextmanager
def without_fits(name: str | None) -> Iterator[None]:
    """A scope in which a fit, at the top level of ``name``, which is imported, is an error."""
    _forbidden.append(str(name))
    try:
        yield
    finally:
        _forbidden.pop()


def refuse_at_import() -> None:
    """Raise ``MisconfigurationException`` in a scope of ``without_fits``."""
    if _forbidden:
        raise MisconfigurationException(
            f"{_forbidden[-1]} starts a fit when it is imported. Put those lines under `if __name__ == '__main__':`, or"
            " pass another file."
        )


@contextlib.contextmanager
def given_back(trainer: "ReadAttributes", model: LightningModule) -> Iterator[None]:
    """A scope that may be inside a hook: afterwards ``model.trainer`` and what ``trainer`` knows of its own fit are
    those of the surrounding fit, if any."""
    outer = model.trainer if is_running(getattr(model, "trainer", None)) else None
    kept = {name: getattr(trainer, name) for name in KEPT} if is_running(trainer) else {}
    try:
        yield
    finally:
        if outer is not None:
            model.trainer = outer
        for name, value in kept.items():
            setattr(trainer, name, value)


def is_running(trainer: object) -> bool:
    """Whether ``trainer`` is in the middle of a fit."""
    return bool(getattr(getattr(trainer, "_run", None), "running", False))
