"""What was decided about a fit: all that the loop reads."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch.optim import Optimizer

from pytorch_lightning.data.loader import ReplayableLoader
from pytorch_lightning.loggers.logger import LoggerGroup
from pytorch_lightning.options.config import Config
from pytorch_lightning.resume.attributes import AttributesPart
from pytorch_lightning.resume.epoch_length import EpochLength
from pytorch_lightning.resume.modes import ModesPart
from pytorch_lightning.resume.resuming import ResumedSave
from pytorch_lightning.resume.rolling import RollingSaves
from pytorch_lightning.resume.save_points import SavePoints
from pytorch_lightning.resume.saver import Saver
from pytorch_lightning.resume.window_start import WindowStart
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.run.hooks import Hooks
from pytorch_lightning.run.metrics import at
from pytorch_lightning.run.progress import NEVER, Progress, accumulation_at, next_due, next_multiple, validation_batches
from pytorch_lightning.run.rows import Rows
from pytorch_lightning.run.run import FitRun
from pytorch_lightning.steps.current_step import CurrentStep
from pytorch_lightning.steps.gradients import Gradients
from pytorch_lightning.steps.optimizers import Schedule
from pytorch_lightning.steps.schedules import EpochSchedules
from pytorch_lightning.strategies import Strategy
from pytorch_lightning.trainer.evaluation import EvaluationPlan
from pytorch_lightning.trainer.optimization import Optimization, Windows
from pytorch_lightning.trainer.skipping import Skips


@dataclass(frozen=True, kw_only=True)
class FitPlan:
    """What the loop reads. Nothing in it is decided while training runs; the loaders may be read again."""

    config: Config
    module: LightningModule
    run: FitRun
    hooks: Hooks
    loader: ReplayableLoader
    length: EpochLength
    optimization: Optimization
    windows: Windows
    attributes: AttributesPart
    modes: ModesPart
    random: Any
    validation: EvaluationPlan | None
    sanity: EvaluationPlan | None
    epoch_schedules: EpochSchedules
    rows: Rows
    loggers: LoggerGroup
    saver: Saver
    rolling: RollingSaves
    resumed: ResumedSave | None
    seed: int
    optimizers: Sequence[Optimizer]
    schedules: Sequence[Schedule]
    gradients: Gradients
    strategy: Strategy
    current: CurrentStep
    window_start: WindowStart
    save_points: SavePoints
    skips: Skips
    averages: Sequence[Any] = ()
    """The callbacks that average the weights."""
    reloading: Any = None
    """Reads the loaders again every n epochs; None: they are read once."""
    progress: Progress = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "progress", self.run.progress)

    @property
    def folder_of_saves(self) -> str | None:
        """The folder of the rolling saves; None if nothing is written."""
        return self.rolling.folder

    def get_optimizers(self) -> Sequence[Optimizer]:
        """The optimizers, those of now."""
        return self.optimizers

    def get_schedules(self) -> Sequence[Schedule]:
        """The schedules of these optimizers."""
        return self.schedules

    def call(self, name: str, *arguments: Any) -> None:
        """Call everybody who overrides the hook ``name``."""
        for hook in self.hooks[name]:
            hook(*arguments)

    def begin_loaders(self) -> None:
        """An epoch begins: read the loaders again, where this one is told to."""
        if self.reloading is not None:
            self.reloading.begin_epoch()

    def is_complete(self) -> bool:
        """Whether training is to end here, between two epochs."""
        return bool(self.progress.stop_reason)

    def validates(self, epoch: int) -> bool:
        """Whether ``epoch`` has validations."""
        return self.validation is not None and (epoch + 1) % self.config.check_val_every_n_epoch == 0

    def window_size(self, epoch: int) -> int:
        """The most batches of a window in ``epoch``."""
        config = self.config
        return NEVER if config.accumulate_nb_samples else accumulation_at(epoch, config.accumulate_grad_batches)

    def next_validation(self) -> int:
        """The ``batch_nb`` after which to look whether a validation is due: the next one of this epoch; a huge number
        if there is none."""
        progress, every = self.progress, self.config.val_every_nb_batches
        if not self.validates(progress.epoch):
            return NEVER
        if every is not None:  # batches that are skipped aren't counted, so this may be too early
            return progress.batch_nb + next_multiple(every, progress.validated_step) - progress.global_step
        batches = validation_batches(self.run.nb_tng_batches, self.config.val_check_interval)
        return next_due(batches, progress.validated_batch)

    def is_validation_due(self) -> bool:
        """Whether to validate now, where it was time to look."""
        progress, every = self.progress, self.config.val_every_nb_batches
        return every is None or progress.global_step >= next_multiple(every, progress.validated_step)

    def validation_follows(self, next_validation: int) -> bool:
        """Whether a validation comes before the next batch."""
        if self.progress.batch_nb >= next_validation and self.is_validation_due():
            return True
        return self.progress.epoch_over and self.ended_unchecked()

    def end_workers(self) -> None:
        """End the processes that made batches."""
        for each in (self.loader, self.sanity, self.validation):
            if each is not None:
                each.close()

    def begin_training(self) -> None:
        """The hooks before training have run: what a checkpoint holds of the user's own state comes last."""
        self.attributes.restore()
        self.modes.restore()
        self.attributes.begin(self.optimizers, self.schedules)
        self.random.begin()

    def end_metrics(self) -> None:
        """The batches of an epoch, and its last validation, are over: compute its metrics, and write their row."""
        from pytorch_lightning.run.epoch_metrics import end_epoch

        values = end_epoch(self.run.metrics, self.strategy.processes, at(self.progress))
        if values:
            self.rows.write_epoch(values)

    def ended_unchecked(self) -> bool:
        """Whether an epoch that ended early, or whose length wasn't known, still has its validation to come. Where they
        come every n batches there is none at the end, unless it is the only one."""
        progress = self.progress
        if self.config.val_every_nb_batches is not None:
            return False
        is_last = self.config.val_check_interval <= 1 or not progress.validated_batch
        return is_last and progress.batch_nb > progress.validated_batch and self.validates(progress.epoch)
