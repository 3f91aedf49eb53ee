"""What callbacks see of a run."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytorch_lightning.errors import Notices
from pytorch_lightning.launchers.signals import Stopped
from pytorch_lightning.printing import tell
from pytorch_lightning.processes import ALONE
from pytorch_lightning.run.metrics import Metrics
from pytorch_lightning.run.progress import INTERRUPTED, Progress
from pytorch_lightning.run.wishes import SaveRequest, Wishes
from pytorch_lightning.timings import Timings


@dataclass(kw_only=True)
class FitRun:
    """The read view of a fit; see ``callbacks.callback.Run``."""

    module: Any
    notices: Notices
    progress: Progress = field(default_factory=Progress)
    metrics: Metrics = field(default_factory=Metrics)
    nb_tng_batches: int | None = None
    nb_val_batches: int | None = 0
    min_nb_epochs: int = 1
    max_nb_epochs: int = 1
    fast_dev_run: bool = False
    scratch: Path | None = None
    version: int | str | None = None
    folder: Path | None = None
    wishes: Wishes = field(default_factory=Wishes)
    on_failed_plan: Callable[[], object] = bool
    """Lets go of what a plan that fails has opened."""
    leaves_validation: bool = True
    """Whether a signal may end a validation: in that before training, and where the state before it can be saved."""
    when_stopped: str = "ends before training begins"
    """What the fit does where a signal comes now."""
    from_first: Callable[[Any], Any] = ALONE.from_first
    """What the first process has of a value."""
    counting: Any = None
    """Tells how many batches there will be, until the plan knows it."""
    samples: tuple[int, int] | None = None
    """Of a full batch, or of a round of them, and of an epoch; None where the loader doesn't say."""
    has_several_loaders: bool = False
    """Whether a training batch is made of one of each of several loaders."""
    order_of_data: Callable[[], int] = lambda: 1
    """The version of the order of the training batches."""
    nb_in_last_epoch: int | None = None
    """Batches of the epoch that ended last."""
    running: bool = False
    """Whether a fit is running."""
    timings: Timings = field(default_factory=Timings)
    began: float = field(default_factory=time.monotonic)
    """When this process began to count wall time."""

    @contextlib.contextmanager
    def fitting(self) -> Iterator[None]:
        """The scope of a fit."""
        self.running = True
        try:
            yield
        finally:
            self.running = False

    def note_lengths(self, nb_tng_batches: int | None, nb_val_batches: int | None) -> None:
        """The plan knows how many batches there are."""
        self.counting, self.nb_tng_batches, self.nb_val_batches = None, nb_tng_batches, nb_val_batches

    def begin_epoch(self, nb_batches: int | None) -> None:
        """An epoch of ``nb_batches`` begins: the next thing is its hook."""
        self.nb_tng_batches, self.progress.epoch_started = nb_batches, True
        self.metrics.begin_epoch()

    def end_epoch(self) -> None:
        """Everything of an epoch was done."""
        metrics = self.metrics
        if self.progress.batch_nb and metrics.has_no_loss and self.module.automatic_optimization:
            text = f"no batch of epoch {self.progress.epoch} contributed a loss, so nothing was trained in it"
            self.notices.say("no-loss", f"{text}; did training_step return None by mistake?")
        metrics.note_extremes({k: v for k, v in metrics.of_training().items() if k not in metrics.validation})
        self.nb_in_last_epoch = self.progress.batch_nb
        self.progress.next_epoch()

    def tick(self) -> float:
        """Bring ``progress.seconds`` up to date and return it."""
        now = time.monotonic()
        self.progress.seconds += now - self.began
        self.began = now
        return self.progress.seconds

    @property
    def interrupted(self) -> bool:
        """Whether a signal ends the fit before training is complete."""
        return self.progress.interrupted

    def note_signal(self, number: int) -> None:
        """Ask that training ends at the next save point, and is saved there."""
        if number == signal.SIGINT and not self.wishes.stop.startswith(INTERRUPTED) and not self.notices.quiet:
            again = " (again: ends at once)" if self.wishes.alone else ""
            tell(f"Ctrl-C: the fit {self.when_stopped}{again}")
        self.stop(f"{INTERRUPTED}{signal.Signals(number).name}")

    def leave_validation_if_stopped(self, *_: Any) -> None:
        """After each batch of a validation. Raises ``Stopped`` to end it where a signal came."""
        if self.leaves_validation and self.wishes.alone and self.wishes.stop.startswith(INTERRUPTED):
            raise Stopped

    @property
    def nb_epochs_completed(self) -> int:
        """Epochs whose last batch was trained on, the current one included."""
        progress = self.progress
        over = progress.epoch_over or (self.nb_tng_batches is not None and progress.batch_nb >= self.nb_tng_batches)
        return progress.epoch + bool(over)

    def nb_samples_in(self, nb_batches: int) -> int | None:
        """How many samples the first ``nb_batches`` of an epoch have, over all processes; None where that isn't
        known."""
        return None if self.samples is None else min(nb_batches * self.samples[0], self.samples[1])

    def stop(self, reason: str) -> None:
        """Ask that training ends at the next save point."""
        self.wishes.to_stop(reason)

    def save(
        self,
        path: str | Path,
        on_saved: Callable[[], None] | None = None,
        weights_only: bool = False,
        on_refused: Callable[[], None] | None = None,
    ) -> None:
        """Ask for a checkpoint at the next save point."""
        self.wishes.to_save(SaveRequest(Path(path), on_saved, weights_only, on_refused))
