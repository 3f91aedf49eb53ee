"""The interface of callbacks, and what they see of a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from pytorch_lightning.errors import Notices


class RunMetrics(Protocol):
    """The numbers of a run, read when asked for."""

    @property
    def validation(self) -> dict[str, float | int]:
        """What ``validation_end`` returned last."""

    def of_training(self) -> dict[str, float | int]:
        """``tng_loss`` and the last batch's ``prog``."""

    def shown(self) -> dict[str, Any]:
        """What a bar shows."""

    def all(self) -> dict[str, float | int]:
        """Every number by name."""


class RunProgress(Protocol):
    """Where a run is: all counted from 0."""

    epoch: int
    batch_nb: int
    global_step: int
    epoch_started: bool
    stop_reason: str


class Run(Protocol):
    """What a callback sees of a run. It watches and asks; it never does the step."""

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
    """Where the run's files are; None where there are none."""

    @property
    def progress(self) -> RunProgress:
        """Where the run is."""

    @property
    def metrics(self) -> RunMetrics:
        """Its numbers."""

    @property
    def scratch(self) -> Path | None:
        """Where everything is to be written in a ``fast_dev_run``; None otherwise."""

    @property
    def nb_epochs_completed(self) -> int:
        """Epochs whose last batch was trained on, the current one included."""

    def stop(self, reason: str) -> None:
        """Ask that training ends at the next save point."""

    def save(
        self,
        path: str | Path,
        on_saved: Callable[[], None] | None = None,
        weights_only: bool = False,
        on_refused: Callable[[], None] | None = None,
    ) -> None:
        """Ask for a checkpoint, written at the next save point. ``on_saved`` is called once it is on the disk,
        ``on_refused`` where it is left out, since a weight isn't finite and ``stop_on_nan`` is off."""


class Callback:
    """Does nothing; override what you need. ``run`` is a ``Run``.

    Where there are several processes, each has its own copy, and all are called alike.
    """

    only_first = False
    """Whether only the first process has any use for this."""

    def on_fit_start(self, run: Run) -> None:
        """Before the sanity validation and the first epoch."""

    def on_epoch_start(self, run: Run) -> None:
        """Before the first batch of an epoch."""

    def on_batch_start(self, run: Run, data_batch: Any) -> int | None:
        """Before each training step, with the batch as the loader gave it. Return -1 to end the epoch here."""

    def on_batch_end(self, run: Run) -> None:
        """After each training batch."""

    def on_evaluation_start(self, run: Run, stage: str, nb_batches: int | None) -> None:
        """Before a pass over a data set. ``stage`` is 'sanity', 'validation', 'test' or 'predict'."""

    def on_evaluation_batch_end(self, run: Run, stage: str, batch_nb: int) -> None:
        """After each batch of such a pass, ``batch_nb`` counted over all its loaders."""

    def on_evaluation_end(self, run: Run, stage: str) -> None:
        """After such a pass, also after an exception in it."""

    def on_validation_end(self, run: Run, metrics: dict[str, float | int]) -> None:
        """After each validation during training, with what ``validation_end`` returned."""

    def on_epoch_end(self, run: Run) -> None:
        """After the last batch and the last validation of an epoch."""

    def on_fit_end(self, run: Run) -> None:
        """After everything, also where the fit was interrupted or failed."""

    def needed_metric(self) -> str | None:
        """The name of a metric without which this callback can't work; None where it needs none."""
        return None

    @property
    def state_name(self) -> str:
        """What a checkpoint calls this callback's state. Several of one name are told apart by their order."""
        return type(self).__name__

    def reset(self) -> None:
        """Forget an earlier fit. Called before each fit; a resume puts its state back afterwards."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of this callback, as plain data."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what ``state_dict`` gave."""
