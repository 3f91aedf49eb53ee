"""Signals: noted when they come, acted upon where the state of a fit is whole."""

import contextlib
import functools
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

RUN_AGAIN = 75
"""The exit code that means: saved, run me again."""
SAVING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""After these the program ends; after SIGINT ``fit`` returns."""
ALL = (signal.SIGINT, *SAVING)


class Stopped(SystemExit):
    """Ends a fit that a signal stopped, and the program around it."""

    def __init__(self, code: int = RUN_AGAIN) -> None:
        super().__init__(code)


class Watch:
    """The handler of a fit: keeps the first signal that comes, and passes it on to ``note``.

    The second SIGINT raises KeyboardInterrupt, unless it is ``patient``: what starts several processes may send each
    of them the Ctrl-C that they had already.
    """

    def __init__(self, note: Callable[[int], object], *, patient: bool = False) -> None:
        self.number = 0
        """The first signal; 0 where none came."""
        self._note, self._patient = note, patient
        self._before: dict[int, Any] = {}
        self._process = os.getpid()

    def __call__(self, number: int, frame: Any) -> None:
        if os.getpid() != self._process:  # one that was forked a moment ago
            _let_go()
            os.kill(os.getpid(), number)
            return
        if self.number and number == signal.SIGINT and not self._patient:
            raise KeyboardInterrupt
        for outer in self._outer():
            outer.keep(number)
        self.keep(number)

    def keep(self, number: int) -> None:
        """Note a signal."""
        self.number = self.number or number
        self._note(number)

    def _outer(self) -> "set[Watch]":
        return {handler for handler in self._before.values() if isinstance(handler, Watch) and handler is not _early}

    @property
    def is_inner(self) -> bool:
        """Whether this fit runs inside another one."""
        return bool(self._outer())

    def install(self, numbers: tuple[int, ...]) -> None:
        """Take the place of the handlers that there are. What is ignored stays ignored."""
        _let_go_in_forks()
        for number in numbers:
            if signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self)

    def restore(self) -> None:
        """Put back the handlers that there were."""
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def chain(self, number: int) -> None:
        """Call the handler that ``number`` had before, unless it is one of test-tube's, which ends the process and
        requeues the job from each of its tasks."""
        handler = self._before.get(number)
        is_own = isinstance(handler, Watch) or handler is signal.default_int_handler
        owner = type(getattr(handler, "__self__", None)).__mro__
        if callable(handler) and not is_own and not any(c.__module__.startswith("test_tube") for c in owner):
            handler(number, None)

    def deliver(self) -> None:
        """Send this process again what came too late to matter to the fit."""
        if self.number:
            os.kill(os.getpid(), self.number)

    def before(self, number: int) -> Any:
        """The handler that there was."""
        return self._before.get(number, signal.SIG_DFL)


_early: Watch | None = None


@functools.cache
def _let_go_in_forks() -> None:
    """What user code forks isn't the fit: a signal ends it, as a ``Pool`` expects of its workers."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_let_go)


def _let_go() -> None:
    for number in ALL:
        handler = signal.getsignal(number)
        while isinstance(handler, Watch):
            handler = handler.before(number)
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def is_in_main_thread() -> bool:
    """Whether handlers can be set here."""
    return threading.current_thread() is threading.main_thread()


def watch_early(numbers: tuple[int, ...] = SAVING) -> None:
    """From now on keep signals for the next fit: a cluster may send one while the program still prepares."""
    global _early
    if is_in_main_thread() and not any(isinstance(signal.getsignal(number), Watch) for number in numbers):
        _early = Watch(lambda number: None, patient=True)
        _early.install(numbers)


@contextlib.contextmanager
def watching(note: Callable[[int], object], *, patient: bool = False) -> Iterator[Watch]:
    """A scope in which signals are noted; also one that came early. Outside the main thread nothing changes."""
    watch = Watch(note, patient=patient)
    if not is_in_main_thread():
        yield watch
        return
    watch.install(ALL)
    try:
        if _early is not None and _early.number:
            number, _early.number = _early.number, 0
            watch.keep(number)
        yield watch
    finally:
        watch.restore()


def begin_child() -> None:
    """In a process that was started while signals were ``held``: keep them for its fit."""
    for number in ALL:
        signal.signal(number, signal.SIG_DFL)  # a forked process has its parent's
    watch_early(ALL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ALL)


def pass_on(number: int, processes: Iterable[Any]) -> None:
    """Send a signal to processes that were started here."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
