"""The progress bar in a terminal: one line, below everything that is printed meanwhile."""

import contextlib
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from tqdm.std import tqdm
from tqdm.utils import _supports_unicode

from pytorch_lightning.callbacks.bar_text import Shown, line
from pytorch_lightning.printing import Unfailing


class Below(Unfailing):
    """The stream where a bar is drawn, also while what others write there is printed above the bar."""

    def stream(self) -> Any:
        return under(super().stream())

    def __eq__(self, other: object) -> bool:
        return under(other) is self.stream()

    def __hash__(self) -> int:
        return hash(self._name)


def under(stream: Any) -> Any:
    """The stream that ``stream`` writes to in the end."""
    stream = getattr(stream, "_wrapped", stream)  # tqdm's
    return stream.below if isinstance(stream, Above) else stream.stream() if isinstance(stream, Below) else stream


STDERR = Below("stderr")


class Bar(tqdm):
    """A line that tqdm keeps below what is printed by ``tqdm.write``, and apart from other bars."""

    monitor_interval = 0
    text: Callable[[int], str] = staticmethod(lambda width: "")

    def __str__(self) -> str:
        return self.text(columns() - 1)  # a full line would be broken by some terminals

    @staticmethod
    def status_printer(file: Any) -> Callable[[str], None]:
        """What draws a line in place of the one before, also where the terminal was made narrower meanwhile."""
        length = 0

        def draw(text: str) -> None:
            nonlocal length
            width, rest = columns(), "\x1b[K"
            if length > width and _rewraps():
                text, rest = f"\x1b[{math.ceil(length / width) - 1}A\r{text}", "\x1b[J"
                length = 0
            length = len(text) if rest == "\x1b[K" else 0
            file.write(f"\r{text}{rest}")
            file.flush()

        return draw


def columns() -> int:
    """The width of the terminal."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        found = os.get_terminal_size(STDERR.fileno()).columns
        if found:
            return found
    text = os.environ.get("COLUMNS", "")
    return int(text) if text.isdecimal() and int(text) else 80


def _rewraps() -> bool:
    """Whether the terminal breaks a line anew that is wider than itself. Those that don't, cut it off."""
    kind = os.environ.get("TERM", "")
    return "TMUX" in os.environ or not (kind.startswith(("screen", "linux", "vt")) or "XTERM_VERSION" in os.environ)


class Above:
    """Stands for ``sys.stdout`` or ``sys.stderr`` while a bar is drawn: lines are printed above it, whole."""

    def __init__(self, below: Any) -> None:
        self.below, self._begun, self._process = below, "", os.getpid()

    def write(self, text: str) -> int:
        drawn = [bar for bar in getattr(tqdm, "_instances", ()) if isinstance(bar, Bar)]
        # what was forked has no bar; other bars, and tqdm.write, take care of this one
        is_tqdm = str(sys._getframe(1).f_globals.get("__name__")).startswith("tqdm.")
        if is_tqdm or not drawn or os.getpid() != self._process:
            self._print_begun()
            over = is_tqdm and drawn and text[:1] == "\r" and len(text) > 1  # a bar of others may be left here
            self.below.write(f"\r\x1b[K{text[1:]}" if over else text)
            return len(text)
        lines, end, rest = f"{self._begun}{text}".rpartition("\n")
        self._begun = rest
        if end:
            with tqdm.external_write_mode(file=STDERR):
                self.below.write(lines + end)
                self.below.flush()
        return len(text)

    def _print_begun(self) -> None:
        text, self._begun = self._begun, ""
        if text:
            self.below.write(text)

    def close(self) -> None:
        """What was begun, and not ended by a new line, is printed."""
        self._print_begun()

    def __eq__(self, other: object) -> bool:
        return under(other) is self.below

    def __hash__(self) -> int:
        return id(self)

    def __getattr__(self, name: str) -> Any:
        if name in ("below", "_begun", "_process"):  # a copy that isn't made yet
            raise AttributeError(name)
        return getattr(self.below, name)


@contextlib.contextmanager
def printing_above() -> Iterator[None]:
    """A scope in which whatever is printed to this terminal, or logged there, comes above the bar."""
    placed: dict[str, Above] = {}
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, Above) and Unfailing(name).isatty():
            placed[name] = Above(stream)
            setattr(sys, name, placed[name])
    below = {id(above.below): above for above in placed.values()}
    moved = [handler for handler in _handlers() if id(handler.stream) in below]
    for handler in moved:
        handler.setStream(below[id(handler.stream)])
    try:
        yield
    finally:
        for handler in moved:
            if isinstance(handler.stream, Above):
                handler.setStream(handler.stream.below)
        for name, above in placed.items():
            above.close()
            if getattr(sys, name) is above:  # otherwise somebody has put another one there
                setattr(sys, name, above.below)


def _handlers() -> Iterator[Any]:
    loggers = [logging.getLogger(), *logging.root.manager.loggerDict.values()]
    for logger in loggers:
        for handler in getattr(logger, "handlers", ()):
            if isinstance(handler, logging.StreamHandler):
                yield handler


class TerminalBar:
    """Draws one line at ``position``, counted from 0; without one, below the bars of others."""

    draw_seconds = 0.1

    def __init__(self, position: int | None) -> None:
        self._position = position
        self._bar: Any = None
        self._scope = contextlib.ExitStack()
        self._scope.enter_context(printing_above())
        self._ascii = not _supports_unicode(STDERR)

    def show(self, shown: Shown) -> None:
        """Draw this in place of what was drawn before."""
        text = lambda width: line(shown, width, self._ascii)  # noqa: E731
        if self._bar is None:
            bar = Bar(position=self._position, file=STDERR, leave=True, delay=1e-9)
            self._bar, bar.text = bar, text
            bar.delay = 0
        self._bar.text = text
        self._bar.refresh()

    def keep(self, shown: Shown) -> None:
        """Leave this as a line of its own."""
        self.show(shown)
        self._bar.close()
        self._bar = None

    def wipe(self) -> None:
        """Nothing is drawn any more."""
        if self._bar is not None:
            self._bar.leave = False
            self._bar.close()
            self._bar = None

    def close(self) -> None:
        """The end: prints go where they went before."""
        self.wipe()
        self._scope.close()
