"""What was decided about a fit: all that the loop reads."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.optim import Optimizer

from pytorch_lightning.data.loader import ReplayableLoader
from pytorch_lightning.errors import CheckpointError, FitError, describe
from pytorch_lightning.loggers.logger import LoggerGroup
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.strategies import Strategy
from pytorch_lightning.strategies.devices import note_full_memory
from pytorch_lightning.trainer.agreement import Agreement
from pytorch_lightning.trainer.config import Config
from pytorch_lightning.trainer.evaluation import EvaluationPlan
from pytorch_lightning.trainer.hooks import Hooks
from pytorch_lightning.trainer.metrics import at
from pytorch_lightning.trainer.optimizers import Schedule
from pytorch_lightning.trainer.progress import FORGOTTEN, NEVER, Progress, validation_batches
from pytorch_lightning.trainer.resuming import Continued
from pytorch_lightning.trainer.rolling import RollingSaves
from pytorch_lightning.trainer.rows import Rows
from pytorch_lightning.trainer.run import FitRun
from pytorch_lightning.trainer.saving import Saver
from pytorch_lightning.trainer.schedules import EpochSchedules
from pytorch_lightning.trainer.step import TrainWindow
from pytorch_lightning.trainer.window_start import WindowStart


@dataclass(frozen=True, kw_only=True)
class FitPlan:
    """What the loop reads. Nothing in it is decided while training runs."""

    config: Config
    module: LightningModule
    run: FitRun
    hooks: Hooks
    loader: ReplayableLoader
    nb_batches: int | None
    train_window: TrainWindow
    sampled_window: TrainWindow
    """The same, its phases timed."""
    validation: EvaluationPlan | None
    sanity: EvaluationPlan | None
    epoch_schedules: EpochSchedules
    rows: Rows
    loggers: LoggerGroup
    saver: Saver
    rolling: RollingSaves
    continued: Continued | None
    seed: int
    optimizers: Sequence[Optimizer]
    schedules: Sequence[Schedule]
    strategy: Strategy
    agreement: Agreement | None
    window_start: WindowStart
    progress: Progress = field(init=False)
    most_steps: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "progress", self.run.progress)
        object.__setattr__(self, "most_steps", self.config.max_nb_steps or NEVER)

    def call(self, name: str, *arguments: Any) -> None:
        """Call everybody who overrides the hook ``name``."""
        for hook in self.hooks[name]:
            hook(*arguments)

    def is_complete(self) -> bool:
        """Whether training is to end here, between two epochs."""
        if self.progress.epoch >= self.config.max_nb_epochs and not self.progress.stop_reason:
            self.progress.stop_reason = "max_nb_epochs reached"
        return bool(self.progress.stop_reason)

    def validates(self, epoch: int) -> bool:
        """Whether ``epoch`` has validations."""
        return self.validation is not None and (epoch + 1) % self.config.check_val_every_n_epoch == 0

    def validation_batches(self, epoch: int) -> Sequence[int]:
        """The values of ``batch_nb`` after which to validate in ``epoch``."""
        if not self.validates(epoch):
            return ()
        return validation_batches(self.nb_batches, self.config.val_check_interval)

    def ended_unchecked(self) -> bool:
        """Whether an epoch that ended early, or whose length wasn't known, still has its validation to come."""
        return self.progress.batch_nb > self.progress.validated_batch and self.validates(self.progress.epoch)

    def learn_names(self, metrics: dict[str, float | int]) -> None:
        """Take note of what a sanity validation gave; its numbers aren't kept."""
        self.rows.validation_names = tuple(metrics)

    def take_validation(self, metrics: dict[str, float | int]) -> None:
        """Keep the numbers of a validation, log them, and step the schedules that watch them."""
        self.run.metrics.validation = metrics
        self.rows.write_validation(metrics)
        self.epoch_schedules.note_validation()

    def step_epoch_schedules(self) -> None:
        """Step the schedules that count epochs."""
        self.epoch_schedules.step(self.run.metrics)

    def at_save_point(self) -> None:
        """State is whole here: write what was asked for, and see whether a limit is reached."""
        run, progress = self.run, self.progress
        run.asked = False
        if progress.nb_optimizer_steps >= self.most_steps:
            run.stop(f"max_nb_steps reached ({self.most_steps})")
            run.asked = False
        self.rolling.look()
        run.look_at = self.rolling.next_look()
        wanted = run.stop_wanted
        if self.agreement is not None:
            wanted, again = self.agreement.settle()
            run.look_at = min(run.look_at, again)
        progress.stop_reason = progress.stop_reason or wanted
        self.rolling.poll()
        if run.requests:
            self.rows.check_losses()
            with run.timings.measuring("saving"):
                self._save_requested()

    def _save_requested(self) -> None:
        requests, self.run.requests[:] = list(self.run.requests), []
        for request in requests:
            if request.path is None:
                self.rolling.save()
                continue
            is_saved = self.saver.save(request.path, request.weights_only)
            tell = request.on_saved if is_saved else request.on_refused
            if tell is not None:
                tell()

    def save_before(self, error: Exception) -> None:
        """A window raised ``error``: save the state after the last one that was finished, where that is still here.

        After a loss that isn't finite nothing is saved: older saves may be better ones."""
        note_full_memory(error)
        if at(self.progress) not in str(error):
            error.add_note(f"raised while fitting {type(self.module).__name__} {at(self.progress)}")
        if self.run.metrics.nb_nonfinite and self.config.stop_on_nan:
            self.note_samples(error)
        elif self.run.alone and self.loader.takes_back and self.rolling.has_begun and self.window_start.go_back(error):
            self.save_for(error)

    def save_for(self, error: Exception) -> None:
        """State is whole, and ``error`` ends the fit: save it."""
        note_full_memory(error)
        if not (self.run.alone and self.rolling.has_begun):
            return
        with contextlib.suppress(CheckpointError, FitError, torch.OutOfMemoryError):
            self.rolling.save(wait=True)
            step = self.progress.global_step
            error.add_note(f"the state at global_step {step} is saved; resume='auto' goes on from there")

    def note_samples(self, error: Exception) -> None:
        """Add to ``error`` which samples were in the batch, and which save is the newest, where that is known."""
        share, batch_nb = self.loader.share, self.progress.batch_nb
        indices = self.loader.indices_at(self.progress.epoch, batch_nb) if share.nb == 1 else None
        if indices is not None:
            error.add_note(f"samples of the batch: {describe(indices)}")
        if self.rolling.newest_path is not None:
            error.add_note(f"the newest save, from before, is {self.rolling.newest_path}")

    def begin_saving(self) -> None:
        """Before the first batch: what is saved from now on follows this."""
        if self.continued is None:
            self.rolling.begin(None, finished=False)
        else:
            reason = self.progress.stop_reason or self.run.stop_wanted
            if reason and not reason.startswith(FORGOTTEN):
                text = f"training had been ended by a callback, and isn't gone on with: {reason}"
                self.run.notices.say("already-stopped", text)
            run = self.continued.checkpoint["parts"].get("run", {})
            self.rolling.begin(self.progress.global_step, finished=bool(run.get("finished")))

    def before_validation(self) -> None:
        """Save first, where a crash in validation would cost more than the validation."""
        if self.strategy.processes.from_first(self.rolling.before_validation()):
            with self.run.timings.measuring("saving"):
                self.rolling.save()
        self.run.leaves_validation = self.rolling.has_begun
