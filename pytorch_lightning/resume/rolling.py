"""Rolling saves: when one is due, and what is saved at the end."""

import contextlib
import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.checkpoints.folders import is_remote
from pytorch_lightning.checkpoints.run_store import RunStore, step_of
from pytorch_lightning.checkpoints.sharded import Cut, cut
from pytorch_lightning.checkpoints.store import sync, sync_names
from pytorch_lightning.checkpoints.writer import Writer
from pytorch_lightning.errors import CheckpointError, Notices
from pytorch_lightning.faults import fault
from pytorch_lightning.launchers.slurm import is_batch_job, requeue
from pytorch_lightning.processes import ALONE, Processes
from pytorch_lightning.resume.resuming import resuming_option
from pytorch_lightning.resume.saver import Saver
from pytorch_lightning.run.progress import NEVER
from pytorch_lightning.run.run import FitRun
from pytorch_lightning.run.wishes import SaveRequest

MOST_OF_THE_TIME = 0.05
"""Saves before validations take at most this share of the time."""


class RollingSaves:
    """The newest state of a run in its folder: written in the background every ``every_minutes`` and every
    ``every_batches`` (None: by time only), before validations, and at the end.

    Every process has one; the first writes, or each its shard. ``folder`` is None if nothing can be saved.
    """

    def __init__(
        self,
        saver: Saver,
        run: FitRun,
        notices: Notices,
        *,
        folder: str | None,
        job: str | None,
        store: RunStore | None,
        every_minutes: float,
        every_batches: int | None,
        from_the_start: bool,
        keep: int | None,
    ) -> None:
        self.saver, self._run, self._notices = saver, run, notices
        self._processes = saver.strategy.processes
        self._is_first = self._processes.is_first
        self._writers: Processes | None = None
        self.folder, self._job, self._store, self._keep = folder, job, store, keep
        self._seconds, self._every = every_minutes * 60, every_batches
        self._from_the_start = from_the_start
        self._writer: Writer | None = None
        self._due = time.monotonic() + self._seconds if self._seconds else float("inf")
        self._next_number = NEVER if every_batches is None else every_batches
        self._looked = (time.monotonic(), 0)
        self._saved_at, self._cost, self._saved_step = time.monotonic(), 0.0, -1
        self._saved_last: tuple[int | None, bool] = (None, False)
        self.has_begun = False
        """Whether anything was saved, or is to be."""
        self.certificate: Any = None
        """Writes a line for each save; None without one."""

    def begin(self, step: int | None, finished: bool) -> None:
        """Before the first batch, which follows ``step`` of the run (None: a new one). ``finished``: so was its last
        save."""
        self._saved_last = (step, finished)
        self._looked = (time.monotonic(), self._run.progress.global_step)
        self.has_begun = self._from_the_start and self.folder is not None
        if self._every is not None:
            self._next_number = (self._run.progress.global_step // self._every + 1) * self._every
        if not self.has_begun:
            return
        if self._is_first or self.saver.saves_together:
            self._open(step)
        if self._run.progress.stop_reason == "" and step is None:
            self.save()

    def _open(self, step: int | None) -> Writer:
        if self._writer is None:
            if self._store is None:
                assert self.folder is not None
                self._store = RunStore(self.folder, self._keep, notices=self._notices, job=self._job)
                if self._is_first:
                    self._store.open()
            if self._is_first:
                self._store.begin(step)
            who, how = self._who_writes(), self.resuming()
            self._writer = Writer(self._store, self._notices, self._note_done, who, self._before_writing, how)
        return self._writer

    def resuming(self) -> str:
        """The option that resumes from these saves."""
        return resuming_option(os.environ, self.folder)

    def _who_writes(self) -> Processes:
        """``ALONE``, or all processes if each has a shard and all see the folder. All of them call it then."""
        if self._writers is None:
            self._writers = ALONE
            if self.saver.strategy.saves_shards and self.folder is not None and not is_remote(self.folder):
                if all_see(self.folder, self._processes):
                    self._writers = self._processes.apart()
                else:
                    self._notices.say(
                        "gathered-saves",
                        f"not all processes see {self.folder}, so saves are gathered into one file. For sharded saves"
                        " choose a default_save_path on a file system that all machines share.",
                    )
        return self._writers

    def _before_writing(self, checkpoint: Any, notes: Any) -> None:
        self._sync_others()
        if notes is not None:
            self.certificate.append(notes, checkpoint)

    def _sync_others(self) -> None:
        """Flush to the disk what a save counts on: rows of the logs, and the names of the folders that it lies in."""
        if not self._is_first:
            return
        logs: Any = self.saver.parts["loggers"]
        for folder in logs.folders:
            paths = [folder]
            with contextlib.suppress(OSError):  # rows that are missing at a resume are reported there
                paths[:0] = (*folder.glob("*.*"), *folder.glob("tf"), *folder.glob("tf/**/*"))
            for path in paths:
                with contextlib.suppress(OSError):
                    sync(path)
        if self.folder is not None and not is_remote(self.folder):
            with contextlib.suppress(OSError):
                sync_names(Path(self.folder))

    def _note_done(self) -> None:
        self._run.wishes.note()

    def request_if_due(self) -> None:
        """Ask for a save if one is due now."""
        step, now = self._run.progress.global_step, time.monotonic()
        by_number = step >= self._next_number
        if self._every is not None and by_number:
            self._next_number = (step // self._every + 1) * self._every
        if self._is_first and self.folder is not None and (by_number or now >= self._due):
            self._due = now + self._seconds if self._seconds else float("inf")
            self._run.wishes.to_save(SaveRequest(None))

    def next_step_to_check(self) -> int:
        """The step at which to look again: the next that is due by number or, if only the clock knows, after half of
        the time that is left."""
        step, now = self._run.progress.global_step, time.monotonic()
        if self.folder is None or self._due == float("inf") or not self._run.wishes.alone:
            return self._next_number
        if step == self._looked[1]:  # how long a step takes isn't known
            return min(self._next_number, step + 1)
        per_step = (now - self._looked[0]) / (step - self._looked[1])
        self._looked = (now, step)
        return min(self._next_number, step + max(1, int((self._due - now) / 2 / max(per_step, 1e-6))))

    def is_due_before_validation(self) -> bool:
        """Whether a save should be made first, so that a crash in validation costs only the validation."""
        if not self.has_begun or self._run.progress.global_step == self._saved_step:
            return False
        return time.monotonic() - self._saved_at >= max(1.0, self._cost / MOST_OF_THE_TIME)

    def wait_for_newest(self) -> str | None:
        """The path of the newest save, once that is written; None without one, and in other processes than the
        first."""
        if self._store is None or not self._is_first:
            return None
        if self._writer is not None:
            self._writer.wait()
        return self._store.newest_path

    @property
    def begun_here(self) -> bool:
        """Whether a save of the state after this batch is written, or being written."""
        return self.has_begun and self._saved_step == self._run.progress.global_step

    def save_before_leaving(self) -> None:
        """Save the state as it is now, unless the newest save is it."""
        path = self.wait_for_newest()
        if path is None or step_of(path.rsplit("/", 1)[-1]) != self._run.progress.global_step:
            self.save(wait=True)

    def why_no_way_back(self) -> str | None:
        """Why training couldn't go back to a save of this run exactly; None where it could."""
        if self._processes.nb > 1:
            return "several processes train"
        if not self.saver.module.automatic_optimization:
            return "training_step makes its own steps"
        if self.certificate is not None:
            return "a certificate has no place for a save that is changed. Leave certificate out"
        if self.folder is None or is_remote(self.folder):
            return "the run has no folder on this machine. Pass a default_save_path"
        return None if self._from_the_start else "there may be no save. Pass resume='auto'"

    def step_of_newest(self) -> int:
        """The step of the newest save, once that is written."""
        return step_of(str(self.wait_for_newest()).rpartition("/")[2])

    def rewind(self, left_out: tuple[int, int], callback: Any, state: dict[str, Any]) -> str:
        """Make the newest save the one that the next start resumes without the batches ``left_out``, and with the
        ``state`` of ``callback``; returns what is left out and how that start comes about, in words."""
        from pytorch_lightning.resume.fork import rewound, without

        store, path = self._store, self.wait_for_newest()
        assert store is not None
        callbacks: Any = self.saver.parts["callbacks"]
        name = next(name for name, each in callbacks.by_name.items() if each is callback)
        store.write(rewound(str(path), left_out, name, state), self.step_of_newest())
        how = f"run the same command with {self.resuming()} to resume from there"
        return f"{without(*left_out)}: {requeue(os.environ, how) if is_batch_job(os.environ) else how}"

    def poll(self) -> None:
        """Hear what became of the last save."""
        if self._writer is not None:
            self._writer.poll()

    def save(self, *, wait: bool = False, finished: bool = False) -> None:
        """Save the state as it is now."""
        if self.folder is None:
            return
        self.has_begun = True
        step = self._run.progress.global_step
        self.saver.check_replicas()
        if not self.saver.is_finite("the rolling save"):
            return
        began = time.monotonic()
        takes_part = self._is_first or self.saver.saves_together
        notes = None if self.certificate is None else self.certificate.entry()
        with self.saver.with_all():
            if takes_part and not self._write(self._open(None), step, wait, finished, notes):
                return
        self._saved_at, self._saved_step = time.monotonic(), step
        self._cost = self._saved_at - began

    def _write(self, writer: Writer, step: int, wait: bool, finished: bool, notes: Any) -> bool:
        """False where it was skipped, since another one is being written."""
        checkpoint: dict[str, Any] | Cut
        state: Mapping[str, Any] | Cut
        module, processes = self.saver.module, self._processes
        in_pieces = self._who_writes().nb > 1
        if in_pieces:
            if not wait and any(processes.gather(writer.is_busy())):
                writer.nb_skipped += 1
                return False
            checkpoint = cut(self.saver.checkpoint(whole=False), processes)
            state = cut(dict(module.state_dict()), processes)
        else:
            checkpoint, state = self.saver.checkpoint(), dict(self.saver.strategy.whole(module.state_dict()))
        if not in_pieces and not self._is_first:
            return True
        fault("rolling.save")
        return writer.save(checkpoint, step, wait=wait, finished=finished, module_state=state, notes=notes)

    def end(self, *, interrupted: bool) -> None:
        """Save for the last time: as finished, or, if the fit was interrupted, to resume from."""
        if interrupted:
            self.save(wait=True)
        elif self.has_begun and (self._run.progress.global_step, True) != self._saved_last:
            self.save(wait=True, finished=True)

    def close(self, failed: bool) -> None:
        """Wait for what is being written, then let others use the folder."""
        # where the fit failed, that is what is to be heard
        with contextlib.suppress(CheckpointError) if failed else contextlib.nullcontext():
            if self._writer is not None:
                self._writer.close()
        if self._store is not None:
            self._store.close()


def all_see(folder: str, processes: Processes) -> bool:
    """Whether every process sees ``folder``, which the first can make. Everybody calls it."""
    mark = Path(folder) / f".seen-{processes.from_first(uuid.uuid4().hex)}"
    if processes.is_first:
        with contextlib.suppress(OSError):
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
    processes.wait()
    seen = all(processes.gather(mark.exists()))
    if processes.is_first:
        mark.unlink(missing_ok=True)
    return seen
