"""All output of the library goes through one logger, ``logging.getLogger("pytorch_lightning")``.

Its default handler prints: information to stdout, notices to stderr. A program that wants them elsewhere removes that
handler, adds one of its own, or sets a level.
"""

import contextlib
import logging
import sys
from typing import Any

LOGGER = logging.getLogger("pytorch_lightning")


class Unfailing:
    """``sys.stderr`` or ``sys.stdout``, whichever that is now: one that is closed or full mustn't end a fit."""

    def __init__(self, name: str) -> None:
        self._name = name

    def stream(self) -> Any:
        """What it stands for now."""
        return getattr(sys, self._name)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError, AttributeError, RuntimeError):
            self.stream().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError, RuntimeError):
            self.stream().flush()

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            return bool(self.stream().isatty())
        return False

    def __eq__(self, other: object) -> bool:
        return other is self or other is self.stream()  # tqdm.write clears the bars that are drawn there

    def __hash__(self) -> int:
        return hash(self._name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.stream(), name)


STDOUT, STDERR = Unfailing("stdout"), Unfailing("stderr")


class PrintingHandler(logging.Handler):
    """Prints information (the summary, where the time went) as it is, and notices after the library's name."""

    def emit(self, record: logging.LogRecord) -> None:
        is_notice = record.levelno >= logging.WARNING
        text = f"{LOGGER.name}: {record.getMessage()}" if is_notice else record.getMessage()
        print(text, file=STDERR if is_notice else STDOUT, flush=True)


def tell(text: object) -> None:
    """Say something that is as expected."""
    LOGGER.info("%s", text)


def detail(text: object) -> None:
    """Say something for those who set the logger's level to ``logging.DEBUG``."""
    LOGGER.debug("%s", text)


def warn(text: object) -> None:
    """Say something that a user may want to change."""
    LOGGER.warning("%s", text)


if not LOGGER.handlers:
    LOGGER.addHandler(PrintingHandler())
    LOGGER.propagate = False
    LOGGER.setLevel(logging.INFO)
