"""Save points: the places where state is whole. What was asked for is done here, and nowhere else."""

import contextlib
import copy
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from pytorch_lightning.checkpoints.writer import MOST_FAILURES
from pytorch_lightning.data.loader import ReplayableLoader
from pytorch_lightning.errors import CheckpointError, FitError, describe
from pytorch_lightning.options.config import Config
from pytorch_lightning.processes import Processes
from pytorch_lightning.resume.agreement import Agreement
from pytorch_lightning.resume.parts import Kept
from pytorch_lightning.resume.resuming import ResumedSave
from pytorch_lightning.resume.rolling import RollingSaves
from pytorch_lightning.resume.saver import UnwrittenCheckpoint
from pytorch_lightning.resume.window_start import WindowStart
from pytorch_lightning.run.files import keepers_of
from pytorch_lightning.run.metrics import at
from pytorch_lightning.run.progress import FORGOTTEN, NEVER
from pytorch_lightning.run.rows import Rows
from pytorch_lightning.run.run import FitRun
from pytorch_lightning.run.wishes import SaveRequest
from pytorch_lightning.steps.buffers import Snapshot
from pytorch_lightning.strategies.devices import note_full_memory

CHANGED_BY_VALIDATION = ("attributes", "callbacks", "random", "loggers")
"""Parts that a validation may change, though none of its state is to be kept where it is left before its end."""

SHORT, MANY = 0.1, 10
"""Seconds, and validations: after so many in a row that took no longer, the next one is completed where a signal comes.
Leaving it would save no time, and what it takes to be able to is as long as a short validation itself."""


class SavePoints:
    """Writes what was asked for, decides whether a limit is reached, and saves what can be saved of a fit that fails.

    The loop comes to ``reach`` after a window where something is due, after each validation and after each epoch.
    """

    def __init__(
        self,
        config: Config,
        run: FitRun,
        rows: Rows,
        rolling: RollingSaves,
        loader: ReplayableLoader,
        window_start: WindowStart,
        processes: Processes,
        resumed: ResumedSave | None,
    ) -> None:
        self._keepers = [keeper for keeper in keepers_of(config) if keeper.is_timed or keeper.named_metrics]
        self._run, self._rows, self._rolling, self._loader = run, rows, rolling, loader
        self._window_start, self._resumed = window_start, resumed
        self._agreement = None if run.wishes.alone else Agreement(run, processes)
        self._stop_on_nan, self._max_nb_epochs = config.stop_on_nan, config.max_nb_epochs
        self.most_steps = config.max_nb_steps or NEVER
        """Optimizer steps after which training ends."""
        self._before: dict[str, Any] = {}
        self._nb_failures: Counter[Path] = Counter()
        self._buffers: Snapshot | None = None
        self._began, self._nb_short = 0.0, 0

    def begin(self) -> None:
        """Before the first batch: what is saved from now on follows the save that was resumed, if one was."""
        if self._resumed is None:
            self._rolling.begin(None, finished=False)
        else:
            reason = self._run.progress.stop_reason or self._run.wishes.stop
            if reason and not reason.startswith(FORGOTTEN):
                text = f"a callback had stopped this run, so it isn't trained further: {reason}"
                self._run.notices.say("already-stopped", text)
            run = self._resumed.checkpoint["parts"].get("run", {})
            self._rolling.begin(self._run.progress.global_step, finished=bool(run.get("finished")))
        self._say_later("completes this step", False)
        for keeper in self._keepers:
            keeper.begin(self._run)
        self.reach(validates=True)  # perhaps: one that is due comes next

    def _say_later(self, first: str, leaves_validation: bool) -> None:
        """What a signal makes of the fit from now on."""
        saves = "saves the state" if self._rolling.folder is not None else "saves nothing, since it has no folder"
        self._run.leaves_validation, self._run.when_stopped = leaves_validation, f"{first} and {saves}"

    def reach(self, validates: bool = False) -> None:
        """State is whole here: write what was asked for, and see whether a limit is reached. ``validates``: before the
        next batch a validation follows."""
        run, progress, wishes = self._run, self._run.progress, self._run.wishes
        if not progress.epoch_started:
            self._rolling.saver.check_replicas()
        if progress.nb_optimizer_steps >= self.most_steps:
            run.stop(f"max_nb_steps reached ({self.most_steps})")
        wishes.pending = False
        for keeper in () if validates else self._keepers:
            keeper.look(run)
        self._rolling.request_if_due()
        wishes.next_save_point = self._rolling.next_step_to_check()
        for keeper in self._keepers:
            wishes.next_save_point = min(wishes.next_save_point, keeper.next_look(run, wishes.alone))
        stop = wishes.stop
        if self._agreement is not None:
            stop, again = self._agreement.settle()
            wishes.next_save_point = min(wishes.next_save_point, again)
        progress.stop_reason = progress.stop_reason or stop
        self._rolling.poll()
        if wishes.saves:
            self._rows.check_losses()
            with run.timings.measuring("saving"):
                self._save_requested()
        if progress.epoch >= self._max_nb_epochs and not progress.epoch_started and not progress.stop_reason:
            progress.stop_reason = "max_nb_epochs reached"

    def _save_requested(self) -> None:
        wishes = self._run.wishes
        requests, wishes.saves[:] = list(wishes.saves), []
        for request in requests:
            if request.path is None:
                self._rolling.save()
                continue
            is_saved = self._save_to(request)
            tell = request.on_saved if is_saved else request.on_refused
            if tell is not None:
                tell()

    def _save_to(self, request: SaveRequest) -> bool:
        """Write a file; False where it wasn't written. One that will be asked for again may fail twice in a row."""
        assert request.path is not None
        folder = request.path.parent
        try:
            is_saved = self._rolling.saver.save(request.path, request.weights_only)
        except UnwrittenCheckpoint as error:
            self._nb_failures[folder] += 1
            comes_again = self._rolling.saver.strategy.processes.from_first(request.on_refused is not None)
            if not comes_again or self._nb_failures[folder] >= MOST_FAILURES:
                raise
            self._run.notices.report(f"{error} Training continues; the next save tries again.")
            return False
        self._nb_failures[folder] = 0
        return is_saved

    def before_validation(self) -> None:
        """Save first, where a crash in validation would cost more than the validation."""
        rolling, run = self._rolling, self._run
        if rolling.saver.strategy.processes.from_first(rolling.is_due_before_validation()):
            with run.timings.measuring("saving"):
                rolling.save()
        can_leave = run.wishes.alone and (rolling.begun_here or self._window_start.is_whole_in_validation)
        can_leave = can_leave and self._keep_for_leaving()
        self._began = time.monotonic()
        self._say_later("leaves the validation" if can_leave else "completes the validation", can_leave)

    def _keep_for_leaving(self) -> bool:
        """Copy what a validation may change, unless it is being saved; False where that can't be copied or
        isn't worth it."""
        rolling, notices = self._rolling, self._run.notices
        self._before, self._buffers = {}, None
        if rolling.folder is None or rolling.begun_here:
            return True
        if self._nb_short >= MANY:
            return False
        parts, quiet = rolling.saver.parts, notices.quiet
        notices.quiet = True  # what a checkpoint can't hold is said where one is written
        try:
            self._before = copy.deepcopy({name: parts[name].state_dict() for name in CHANGED_BY_VALIDATION})
            self._buffers = Snapshot(rolling.saver.module)
        except Exception:  # a user's state, or memory that is full
            self._before = {}
        finally:
            notices.quiet = quiet
        return bool(self._before)

    def leave_validation(self) -> None:
        """A signal ended the validation: save the state from before it."""
        rolling, parts = self._rolling, self._rolling.saver.parts
        if not self._run.leaves_validation or rolling.folder is None:
            return
        if self._buffers is None:  # what is being written since before the validation is that state
            rolling.wait_for_newest()
            return
        self._buffers.put_back()
        now = {name: parts[name] for name in self._before}
        now["attributes"].state_dict()
        folders = {name: getattr(part, "folders", ()) for name, part in now.items()}
        parts.update({name: Kept(state, folders[name]) for name, state in self._before.items()})
        try:
            rolling.save_before_leaving()
        finally:
            parts.update(now)

    def after_validation(self) -> None:
        """A validation has ended, and its numbers are there."""
        self._nb_short = self._nb_short + 1 if time.monotonic() - self._began < SHORT else 0
        self._say_later("completes this step", False)
        self.reach()

    def save_before(self, error: Exception) -> None:
        """A window raised ``error``: save the state after the last one that was finished, where that is still here.

        After a loss that isn't finite nothing is saved: older saves may be better ones."""
        run = self._run
        note_full_memory(error)
        if at(run.progress) not in str(error):
            error.add_note(f"raised while fitting {type(run.module).__name__} {at(run.progress)}")
        if run.metrics.nb_nonfinite and self._stop_on_nan:
            self._note_samples(error)
        elif self._can_save_after_error() and self._loader.takes_back and self._window_start.go_back():
            self.save_for(error)

    def save_for(self, error: Exception) -> None:
        """State is whole, and ``error`` ends the fit: save it."""
        note_full_memory(error)
        if not self._can_save_after_error():
            return
        with contextlib.suppress(CheckpointError, FitError, torch.OutOfMemoryError):
            self._rolling.save(wait=True)
            step = self._run.progress.global_step
            error.add_note(f"the state at global_step {step} is saved; {self._rolling.resuming()} resumes from there")

    def _can_save_after_error(self) -> bool:
        return self._run.wishes.alone and self._rolling.has_begun

    def _note_samples(self, error: Exception) -> None:
        """Add to ``error`` which samples were in the batch, and which save is the newest, where that is known."""
        share, progress = self._loader.share, self._run.progress
        indices = self._loader.indices_at(progress.epoch, progress.batch_nb) if share.nb == 1 else None
        if indices is not None:
            error.add_note(f"samples of the batch: {describe(indices)}")
        newest = self._rolling.wait_for_newest()
        if newest is not None:
            error.add_note(f"the newest save from before this is {newest}")
