"""Stop when a metric no longer improves."""

from typing import Any

from pytorch_lightning.callbacks.callback import Callback, Run
from pytorch_lightning.callbacks.monitor import check_count, direction, is_better, worst
from pytorch_lightning.printing import tell


class EarlyStopping(Callback):
    """Stops training after ``patience`` checks in a row in which ``monitor`` didn't improve.

    A validation metric is checked after every validation, a training metric (``tng_loss``, or an entry of ``prog``)
    at the end of every epoch. A patience of 0 behaves like 1: the first check without an improvement stops training.

    ``min_delta``: the minimum change that counts as an improvement. ``mode``: 'min', 'max', or 'auto' (max if the name
    contains 'acc'). ``verbose``: 1 prints a line when it stops. It waits for the trainer's ``min_nb_epochs``.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
    ) -> None:
        check_count(self, "patience", patience, 0)
        self.monitor, self.min_delta, self.patience = monitor, abs(min_delta), patience
        self.verbose, self.mode = verbose, direction(monitor, mode)
        self.reset()

    def reset(self) -> None:
        self.best = worst(self.mode)
        self.wait = 0
        self.stopped_epoch: int | None = None

    def on_fit_start(self, run: Run) -> None:
        """A fit that resumes a run that this callback stopped stops at once, unless it has more patience now."""
        if self.stopped_epoch is not None:
            self.stopped_epoch = None
            self._look(run)

    def on_validation_end(self, run: Run, metrics: dict[str, float | int]) -> None:
        if self.monitor in metrics:
            self._check(run, metrics[self.monitor])

    def on_epoch_end(self, run: Run) -> None:
        if self.monitor not in run.metrics.validation:
            values = run.metrics.of_training()
            if self.monitor in values:
                self._check(run, values[self.monitor])

    def _check(self, run: Run, value: float) -> None:
        if is_better(value, self.best, self.mode, self.min_delta):
            self.best, self.wait = value, 0
            return
        self.wait += 1
        self._look(run)

    def _look(self, run: Run) -> None:
        if self.wait >= self.patience and run.nb_epochs_completed >= run.min_nb_epochs:
            self.stopped_epoch = run.progress.epoch
            reason = f"{self.monitor} didn't improve on {self.best:g} in {self.wait} checks"
            if self.verbose and not run.notices.quiet:
                tell(f"early stopping in epoch {run.progress.epoch + 1}: {reason}")
            run.stop(f"early stopping: {reason}")

    @property
    def state_name(self) -> str:
        return f"{type(self).__name__} {self.monitor}"

    def needed_metric(self) -> str | None:
        return self.monitor

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "wait": self.wait, "stopped_epoch": self.stopped_epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        epoch = state["stopped_epoch"]
        self.best, self.wait = float(state["best"]), int(state["wait"])
        self.stopped_epoch = None if epoch is None else int(epoch)
