"""All output of the library goes through one logger, ``logging.getLogger("pytorch_lightning")``.

Its default handler prints: information to stdout, notices to stderr. A program that wants them elsewhere removes that
handler, adds one of its own, or sets a level.
"""

import contextlib
import logging
import sys

LOGGER = logging.getLogger("pytorch_lightning")


class PrintingHandler(logging.Handler):
    """Prints information (the summary, where the time went) as it is, and notices after the library's name."""

    def emit(self, record: logging.LogRecord) -> None:
        is_notice = record.levelno >= logging.WARNING
        text = f"{LOGGER.name}: {record.getMessage()}" if is_notice else record.getMessage()
        # looked up each time, since they may be redirected; one that is closed or full mustn't end a fit
        with contextlib.suppress(OSError, ValueError, AttributeError):
            print(text, file=sys.stderr if is_notice else sys.stdout, flush=True)


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
