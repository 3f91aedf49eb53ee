"""Programs whose saves don't depend on how fast a disk is."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def every_save_written() -> Iterator[None]:
    """Wait for the save that is being written where the next one is due: on a slow disk that one would be left out."""
    from pytorch_lightning.checkpoints.writer import Writer

    def is_busy(writer: Writer) -> bool:
        writer.wait()
        return asked(writer)

    asked, Writer.is_busy = Writer.is_busy, is_busy  # type: ignore[method-assign]
    try:
        yield
    finally:
        Writer.is_busy = asked  # type: ignore[method-assign]
