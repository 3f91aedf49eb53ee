"""Stop when a metric no longer improves."""

import math
from inspect import signature
from typing import Any

from pytorch_lightning.callbacks.callback import Callback, Run
from pytorch_lightning.callbacks.monitor import AfterEpochs, check_count, direction, is_better, say_guess, worst
from pytorch_lightning.errors import MisconfigurationException, describe
from pytorch_lightning.lightning2 import refuse_arguments
from pytorch_lightning.printing import tell


class EarlyStopping(Callback):
    """Stops training after ``patience`` checks in a row in which ``monitor`` didn't improve.

    A validation metric is checked at the end of every epoch in which a validation ran (``every='epoch'``), or after
    each validation (``every='validation'``); a metric that only training gives (``tng_loss``, or an entry of ``prog``)
    at the end of every epoch. A patience of 0 behaves like 1: the first check without an improvement stops training.

    ``min_delta``: the minimum change that counts as an improvement. ``mode``: 'min', 'max', or 'auto' (by the name: max
    for accuracy, F1, AUC and the like, otherwise min). ``stopping_threshold``: stop as soon as the metric is there, or
    better. ``divergence_threshold``: stop as soon as it is worse than this. ``check_finite``: stop as soon as it isn't
    finite; otherwise such a value counts as one without an improvement. ``verbose`` is accepted for compatibility: a
    fit that is stopped says so in one line anyway. It waits for the trainer's ``min_nb_epochs``.
    Raises ``MisconfigurationException`` for a value that none of these can have.

    >>> from pytorch_lightning import Trainer
    >>> trainer = Trainer(early_stop_callback=EarlyStopping("val_acc", min_delta=0.001, patience=3))
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        every: str = "epoch",
        stopping_threshold: float | None = None,
        divergence_threshold: float | None = None,
        check_finite: bool = False,
        **others: Any,
    ) -> None:
        refuse_arguments("EarlyStopping", "callback_arguments", others, signature(EarlyStopping).parameters)
        check_count(self, "patience", patience, 0)
        self.monitor, self.min_delta, self.patience = monitor, abs(min_delta), patience
        if every not in ("epoch", "validation"):
            raise MisconfigurationException(
                f"EarlyStopping: every must be 'epoch' or 'validation'; received {describe(every)}."
            )
        self.verbose, self.mode, self.every = verbose, direction(monitor, mode), every
        self.stopping_threshold, self.divergence_threshold = stopping_threshold, divergence_threshold
        self.check_finite = check_finite
        self._check_thresholds()
        self._is_guess = mode == "auto"
        self.reset()

    def _check_thresholds(self) -> None:
        stop, diverged = self.stopping_threshold, self.divergence_threshold
        for name, value in (("stopping_threshold", stop), ("divergence_threshold", diverged)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or value != value):
                raise MisconfigurationException(
                    f"EarlyStopping: {name} must be a number; received {describe(value)}. Leave it out for none."
                )
        if stop is not None and diverged is not None and not is_better(stop, diverged, self.mode):
            raise MisconfigurationException(
                f"EarlyStopping: stopping_threshold={stop:g} must be better than divergence_threshold={diverged:g} for"
                f" mode={self.mode!r}, or every value stops training. Exchange them, or pass another mode."
            )

    def reset(self) -> None:
        self.best = worst(self.mode)
        self.last: float | None = None
        """The value that was checked last."""
        self.wait = 0
        self.stopped_epoch: int | None = None
        self._after_epochs = AfterEpochs(self.monitor)

    def on_fit_start(self, run: Run) -> None:
        """A fit that resumes a run that this callback stopped stops at once, unless it has more patience now."""
        if self.stopped_epoch is not None:
            epoch, self.stopped_epoch = self.stopped_epoch, None
            self._look(run, epoch)

    def on_validation_end(self, run: Run, metrics: dict[str, float | int]) -> None:
        self._after_epochs.note_validation(metrics)
        if self.monitor in metrics and self.every == "validation":
            self._check(run, metrics[self.monitor])

    def on_epoch_end(self, run: Run) -> None:
        for value in self._after_epochs.values(run):
            self._check(run, value)
        if self.every == "epoch" and run.progress.validated_batch and self.monitor in run.metrics.validation:
            self._check(run, run.metrics.validation[self.monitor])

    def _check(self, run: Run, value: float) -> None:
        if self._is_guess:
            say_guess(run, self.monitor)
        self.last = value
        if is_better(value, self.best, self.mode, self.min_delta):
            self.best, self.wait = value, 0
        else:
            self.wait += 1
        self._look(run, run.progress.epoch)

    def _look(self, run: Run, epoch: int) -> None:
        reason = self._reason()
        if reason and run.nb_epochs_completed >= run.min_nb_epochs:
            self.stopped_epoch = epoch
            if not run.notices.quiet:
                tell(f"early stopping in epoch {epoch + 1}: {reason}")
            run.stop(f"early stopping: {reason}")

    def _reason(self) -> str | None:
        """Why to stop; None where there is nothing to say against the values so far."""
        last, stop, diverged = self.last, self.stopping_threshold, self.divergence_threshold
        if last is not None:
            if self.check_finite and not math.isfinite(last):
                return f"{self.monitor} is {last}, and isn't finite"
            if stop is not None and (last == stop or is_better(last, stop, self.mode)):
                return f"{self.monitor} is {last:g}, and has reached stopping_threshold={stop:g}"
            if diverged is not None and is_better(diverged, last, self.mode):
                return f"{self.monitor} is {last:g}, and worse than divergence_threshold={diverged:g}"
        if self.wait and self.wait >= self.patience:
            return f"{self.monitor} didn't improve on {self.best:g} in {self.wait} checks"
        return None

    @property
    def state_name(self) -> str:
        return f"{type(self).__name__} {self.monitor}"

    def needed_metric(self) -> str | None:
        return self.monitor

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "wait": self.wait,
            "stopped_epoch": self.stopped_epoch,
            "waiting": list(self._after_epochs.waiting),
            **({} if self.stopped_epoch is None else {"last": self.last}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        epoch = state["stopped_epoch"]
        self.best, self.wait = float(state["best"]), int(state["wait"])
        self.stopped_epoch = None if epoch is None else int(epoch)
        self._after_epochs.waiting = list(state.get("waiting", ()))
        last = state.get("last")
        self.last = None if last is None else float(last)
