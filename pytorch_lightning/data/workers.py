"""Processes that make batches: signals are their parent's business."""

import contextlib
import multiprocessing
import os
import re
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any

import torch
from torch.utils.data import DataLoader

from pytorch_lightning.processes import held

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
        if multiprocessing.get_start_method(allow_none=True) != "fork":
            # torch looks whether its parent is another than at first: one that died while this began isn't
            threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
        if self.then is not None:
            self.then(worker_id)


def are_forked(loader: Any) -> bool:
    """Whether the workers of a ``DataLoader`` are, or would be, forked from this process."""
    given = loader.multiprocessing_context
    # to ask for the default's name would settle it for the rest of the program
    name = given.get_start_method() if given is not None else multiprocessing.get_start_method(allow_none=True)
    return bool((name or multiprocessing.get_all_start_methods()[0]) == "fork")


def _end_with_parent(parent: int) -> None:
    while signal.sigwaitinfo((signal.SIGTERM,)).si_pid != parent:
        pass
    os._exit(0)


def _end_with(parent: Any) -> None:
    connection.wait([parent.sentinel])
    os._exit(0)


SECONDS_TO_DIE = 5.0
OF_MEMORY = "Was it killed for memory? Look at /dev/shm, and at num_workers times what one of them holds."

OF_SILENCE = "a thread or a lock that they wait for may be that of this process, which a worker has no part in"


def is_death(error: BaseException, iterator: Any) -> bool:
    """Whether ``error`` says that a worker of a loader's ``iterator`` is dead, or lies in its half-sent batch."""
    if re.match(r"DataLoader worker \(pid.*(exited unexpectedly|is killed by signal)", str(error)):
        return True
    workers = [worker.sentinel for worker in getattr(iterator, "_workers", ())]
    sending = isinstance(error, (ConnectionError, EOFError, FileNotFoundError))
    # its end of the connection is closed a moment before it is known to be dead
    return sending and bool(workers) and bool(connection.wait(workers, timeout=SECONDS_TO_DIE))


def without_signal(iterator: Any) -> Any:
    """``iterator``, with a check for dead workers each time a batch is requested.

    torch would raise it in a signal handler, so in the middle of whatever is being done: of an optimizer's step, say.
    """
    with contextlib.suppress(ImportError, AttributeError, ValueError):
        from torch._C import _remove_worker_pids, _set_worker_pids

        if iterator._worker_pids_set:
            _remove_worker_pids(id(iterator))
            _set_worker_pids(id(iterator), ())
    return iterator


class SilentWorkersError(Exception):
    """Workers that live, and make no batch."""


def with_patience(iterator: Any, seconds: float) -> Any:
    """``iterator``, which raises ``SilentWorkersError`` once its workers have made no batch for ``seconds``.

    torch's own ``timeout`` would find a worker that died no sooner than that.
    """
    ask, waits_since = getattr(type(iterator), "_try_get_data", None), list[float]()
    if ask is None or "_try_get_data" in vars(iterator):  # those of an earlier epoch
        return iterator
    itself = weakref.ref(iterator)  # it ends where it is left, and not when garbage is collected, in a fork perhaps

    def try_get_data(*arguments: Any, **options: Any) -> Any:
        waits_since[:] = waits_since or [time.monotonic()]
        found = ask(itself(), *arguments, **options)
        if found[0]:
            waits_since.clear()
        elif time.monotonic() - waits_since[0] > seconds:
            raise SilentWorkersError(f"made no batch in {seconds:.0f} s: {OF_SILENCE}")
        return found

    iterator._try_get_data = try_get_data
    return iterator


def options_of(loader: DataLoader[Any], nb_workers: int | None = None) -> dict[str, Any]:
    """What a private loader takes over from the user's."""
    nb_workers = loader.num_workers if nb_workers is None else nb_workers
    options: dict[str, Any] = {
        "num_workers": nb_workers,
        "collate_fn": loader.collate_fn,
        # pinning without an accelerator only warns
        "pin_memory": loader.pin_memory and torch.accelerator.is_available(),
        "timeout": loader.timeout if nb_workers else 0,
        "worker_init_fn": Shielded(loader.worker_init_fn) if nb_workers else loader.worker_init_fn,
        "multiprocessing_context": loader.multiprocessing_context if nb_workers else None,
        "persistent_workers": loader.persistent_workers and bool(nb_workers),
        "in_order": True,
        # iter() draws a base seed from this generator, so that it draws nothing from the global stream
        "generator": torch.Generator().manual_seed(0),
    }
    if loader.num_workers and not nb_workers:
        options |= {"timeout": 0, "persistent_workers": False, "multiprocessing_context": None}
    if nb_workers:
        options["prefetch_factor"] = loader.prefetch_factor
    return options


def starts_workers(loader: Any) -> bool:
    """Whether ``iter(loader)`` starts workers: it doesn't where those of an earlier epoch live on."""
    return bool(getattr(loader, "num_workers", 0)) and getattr(loader, "_iterator", None) is None


def end_workers(loader: Any, iterator: Any) -> None:
    """End the workers of ``loader``: those of its ``iterator``, and those that live on between epochs."""
    running: Any
    for running in {id(each): each for each in (iterator, getattr(loader, "_iterator", None))}.values():
        if hasattr(running, "_shutdown_workers"):
            running._shutdown_workers()
            loader._iterator = None


def started(loader: Any) -> Iterator[Any]:
    """``iter(loader)``, signals to its workers held back until they can take them."""
    if not (isinstance(loader, DataLoader) and loader.num_workers and isinstance(loader.worker_init_fn, Shielded)):
        return iter(loader)
    with held(HELD):  # a signal waits until the workers are shielded
        return iter(loader)
