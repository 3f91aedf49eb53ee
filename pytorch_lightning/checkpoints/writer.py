"""Rolling saves that training doesn't wait for."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

from pytorch_lightning.checkpoints.folders import megabytes
from pytorch_lightning.checkpoints.run_store import RunStore, Written
from pytorch_lightning.checkpoints.sharded import Cut, checksums_of, with_part
from pytorch_lightning.checkpoints.snapshot import Snapshot
from pytorch_lightning.errors import CheckpointError, Notices
from pytorch_lightning.faults import fault
from pytorch_lightning.processes import ALONE, Processes

MOST_FAILURES = 3
"""So many periodic saves in a row may fail."""


class Writer:
    """Saves to a ``RunStore``: a save that isn't waited for is copied at once and written by a thread.

    One such save is in flight at most; a save that falls due meanwhile is skipped, and counted in ``nb_skipped``.
    ``before`` is called, by that thread, before it writes, with the checkpoint and the ``notes`` that ``save`` got, and
    ``on_done`` when ``poll`` has something to say. Where each of several processes has a part of the checkpoint all
    have a writer, and ``processes`` talk over a group that only these use. ``resuming`` is the option that resumes from
    the saves.
    """

    def __init__(
        self,
        store: RunStore,
        notices: Notices | None = None,
        on_done: Callable[[], object] | None = None,
        processes: Processes = ALONE,
        before: Callable[[Any, Any], object] = lambda checkpoint, notes: None,
        resuming: str = "resume='auto'",
    ) -> None:
        self.nb_skipped = 0
        self._before = before
        self._processes, self._resuming = processes, resuming
        self._store, self._on_done = store, on_done
        self._notices = Notices() if notices is None else notices
        self._snapshot = Snapshot()
        self._thread: threading.Thread | None = None
        self._outcome: Written | BaseException | None = None
        self._nb_failures = 0

    def save(
        self,
        checkpoint: dict[str, Any] | Cut,
        step: int,
        *,
        wait: bool = False,
        finished: bool = False,
        module_state: Mapping[str, Any] | Cut | None = None,
        notes: Any = None,
    ) -> bool:
        """Save ``checkpoint`` as the state after ``step``; False where it was skipped.

        With ``wait`` it is on the disk on return, and what goes wrong is raised. ``finished`` marks a final save,
        which is always waited for. Checksums of ``module_state`` are stored with it, as ``parts['checksums']``.
        """
        if wait or finished:
            self.wait()
            if isinstance(self._outcome, BaseException):
                self._notices.report(str(self._outcome))
            self._outcome = None
            self._take(self._write(checkpoint, module_state, step, finished, notes))
            return True
        if self.is_busy():
            self.nb_skipped += 1
            return False
        fault("writer.copy")
        copies = self._snapshot.take((checkpoint, module_state))
        fault("writer.copied")
        # not a daemon: a program that ends meanwhile ends after the save
        self._thread = threading.Thread(target=self._run, args=(*copies, step, notes), name="checkpoint-writer")
        self._thread.start()
        return True

    def is_busy(self) -> bool:
        """Whether a save is in flight. Raises as ``poll``."""
        self.poll()
        return self._thread is not None

    def poll(self) -> Written | None:
        """What became of the last save, told once; None while nothing is known. Call it between steps.

        A save that failed is one line on stderr, and is tried again when the next one is due. Raises the third
        ``CheckpointError`` in a row, and anything else at once.
        """
        if self._outcome is None:
            return None
        self.wait()
        outcome, self._outcome = self._outcome, None
        if isinstance(outcome, BaseException):
            self._nb_failures += 1
            if not isinstance(outcome, CheckpointError) or self._nb_failures >= MOST_FAILURES:
                raise outcome
            self._notices.report(f"{outcome} Training continues; the next save tries again.")
            return None
        return self._take(outcome)

    def flush(self) -> Written | None:
        """Wait for the save in flight, then ``poll``."""
        self.wait()
        return self.poll()

    def close(self) -> None:
        """Wait for the save in flight, and give its memory back. Raises as ``poll``."""
        try:
            self.flush()
        finally:
            self._snapshot.release()

    def wait(self) -> None:
        """Wait for the save in flight; what became of it is still to be heard."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _take(self, written: Written | None) -> Written | None:
        if written is not None:
            self._nb_failures = 0
            self._notices.say(
                "first-save",
                f"saved {written.path} ({megabytes(written.size)}); {self._resuming} resumes from the newest",
                key="",
            )
        return written

    def _run(
        self, checkpoint: dict[str, Any] | Cut, module_state: dict[str, Any] | Cut | None, step: int, notes: Any
    ) -> None:
        try:
            fault("writer.thread")
            self._snapshot.wait()
            self._outcome = self._write(checkpoint, module_state, step, False, notes)
        except BaseException as error:
            self._outcome = error
        if self._on_done is not None:
            self._on_done()

    def _write(
        self,
        checkpoint: dict[str, Any] | Cut,
        module_state: Mapping[str, Any] | Cut | None,
        step: int,
        finished: bool,
        notes: Any,
    ) -> Written:
        self._before(checkpoint, notes)
        if module_state is not None:
            checkpoint = with_part(checkpoint, "checksums", checksums_of(module_state, self._processes))
        try:
            return self._store.write(checkpoint, step, finished, self._processes)
        except OSError as error:
            raise CheckpointError(f"{self._store.folder} can't be written: {error.strerror}.") from error
