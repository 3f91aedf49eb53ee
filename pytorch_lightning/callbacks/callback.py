"""The interface of callbacks, and what they see of a run."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

from pytorch_lightning.errors import Notices


class RunMetrics(Protocol):
    """The metrics of a run, read from the device only on access."""

    @property
    def validation(self) -> dict[str, float | int]:
        """What ``validation_end`` returned last."""

    @property
    def validation_names(self) -> tuple[str, ...]:
        """The names of what ``validation_end`` returns, known from the sanity validation on."""

    @property
    def epoch_loss(self) -> float | None:
        """The mean loss of the epoch so far, weighted by ``loss_count`` where that is given; None where it isn't
        known."""

    @property
    def nb_items(self) -> float:
        """The sum of the ``loss_count`` of the epoch so far; 0 where there are none."""

    @property
    def epoch_names(self) -> set[str]:
        """The names of the metrics of an epoch (``tng_loss_epoch``, and those of ``prog_epoch``), as far as they are
        known."""

    def read_losses(self) -> list[float]:
        """The losses of the last 100 batches."""

    def of_training(self) -> dict[str, float | int]:
        """``tng_loss`` and the last batch's ``prog``, and the metrics of the last epoch that was completed."""

    def shown(self) -> dict[str, Any]:
        """What the progress bar shows."""

    def all(self) -> dict[str, float | int]:
        """Every metric by name."""


class RunProgress(Protocol):
    """The position of a run; everything is counted from 0."""

    epoch: int
    batch_nb: int
    global_step: int
    nb_optimizer_steps: int
    """Steps of the optimizers: windows of batches that ended in one."""
    epoch_started: bool
    nb_validations: int
    """Validations of this run, without the one before training."""
    validated_batch: int
    """After how many batches of this epoch the last validation ran; 0 if none did."""
    stop_reason: str


class Run(Protocol):
    """A callback's view of a run. A callback observes and requests; it never does the step.

    >>> from pytorch_lightning.callbacks import Callback, Run
    >>> class KeepEach(Callback):
    ...     def on_epoch_end(self, run: Run) -> None:
    ...         run.save(f"epochs/{run.progress.epoch}.ckpt", weights_only=True)
    """

    module: Any
    notices: Notices
    nb_tng_batches: int | None
    nb_val_batches: int | None
    min_nb_epochs: int
    max_nb_epochs: int
    fast_dev_run: bool
    version: int | str | None
    """The version of the run's folder, or of the user's Experiment."""
    folder: Path | None
    """The folder of the run's files; None if it writes none."""
    running: bool
    """Whether a fit is running; not in ``validate``, ``test`` and ``predict``."""

    @property
    def interrupted(self) -> bool:
        """Whether a signal ends the fit before training is complete."""

    @property
    def progress(self) -> RunProgress:
        """The position of the run."""

    @property
    def metrics(self) -> RunMetrics:
        """Its metrics."""

    @property
    def scratch(self) -> Path | None:
        """In a ``fast_dev_run``, the temporary folder for all files; None otherwise."""

    @property
    def nb_epochs_completed(self) -> int:
        """Epochs whose last batch was trained on, the current one included."""

    def nb_samples_in(self, nb_batches: int) -> int | None:
        """How many samples the first ``nb_batches`` of an epoch have, over all processes; None where the loader doesn't
        say."""

    def stop(self, reason: str) -> None:
        """Request that training stops at the next save point."""

    def save(
        self,
        path: str | Path,
        on_saved: Callable[[], None] | None = None,
        weights_only: bool = False,
        on_refused: Callable[[], None] | None = None,
    ) -> None:
        """Request a checkpoint, written at the next save point. ``on_saved`` is called once it is on disk,
        ``on_refused`` if it isn't written because a weight isn't finite and ``stop_on_nan`` is off."""


class Callback:
    """The base class: override the hooks that you need. ``run`` is a ``Run``.

    With several processes, each has its own copy, and all of them are called in the same way.

    >>> from pytorch_lightning import Trainer
    >>> class StopAtLoss(Callback):
    ...     def on_epoch_end(self, run):
    ...         if run.metrics.epoch_loss < 0.01:
    ...             run.stop("the loss is low enough")
    >>> trainer = Trainer(callbacks=[StopAtLoss()])
    """

    only_first = False
    """Whether it is called only in the first process."""

    def on_fit_start(self, run: Run) -> None:
        """Before the sanity validation and the first epoch."""

    def on_epoch_start(self, run: Run) -> None:
        """Before the first batch of an epoch."""

    def on_batch_start(self, run: Run, data_batch: Any) -> int | None:
        """Before each training step, with the batch as the loader yielded it. Return -1 to end the epoch here."""

    def on_batch_end(self, run: Run) -> None:
        """After each training batch."""

    def on_optimizer_step(self, run: Run) -> None:
        """After the optimizers of a window have stepped, and their schedules: once, also where several did."""

    def on_evaluation_start(self, run: Run, stage: str, nb_batches: int | None) -> None:
        """Before a pass over a data set. ``stage`` is 'sanity', 'validation', 'test' or 'predict'."""

    def on_evaluation_batch_end(self, run: Run, stage: str, batch_nb: int) -> None:
        """After each batch of such a pass; ``batch_nb`` is counted over all its loaders."""

    def on_evaluation_end(self, run: Run, stage: str) -> None:
        """After such a pass, also after an exception in it."""

    def on_validation_end(self, run: Run, metrics: dict[str, float | int]) -> None:
        """After each validation during training, with what ``validation_end`` returned."""

    def on_epoch_end(self, run: Run) -> None:
        """After the last batch and the last validation of an epoch."""

    def on_fit_end(self, run: Run) -> None:
        """Last of all, also if the fit was interrupted or failed."""

    def before_optimizers(self, module: Any) -> None:
        """Before ``configure_optimizers`` of a fit; ``module`` has its weights, and is on its device."""

    def after_optimizers(self, module: Any, optimizers: Sequence[Any], schedulers: Sequence[Any]) -> None:
        """``configure_optimizers`` has returned these. Also where it is called again while training runs."""

    def around_evaluation(self, run: Run, stage: str) -> AbstractContextManager[Any]:
        """A scope for the steps of a pass over a data set, and for ``validation_end``: it is left whatever happens in
        it. For other weights than those that are trained, say."""
        return nullcontext()

    def around_save(self, run: Run) -> AbstractContextManager[Any]:
        """A scope in which a checkpoint is made, and copied or written: in every process."""
        return nullcontext()

    def needed_metric(self) -> str | None:
        """The name of a metric that this callback needs; None if it needs none. A missing one is an error."""
        return None

    @property
    def state_name(self) -> str:
        """The name of this callback's state in a checkpoint. Several with the same name are matched by their order."""
        return type(self).__name__

    def reset(self) -> None:
        """Forget an earlier fit. Called before each fit; a resume restores the state afterwards."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint stores of this callback, as plain data."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
