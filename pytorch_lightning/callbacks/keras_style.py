"""Callbacks written for Keras, whose methods take an epoch or batch and a dict of logs."""

from typing import Any

from pytorch_lightning.callbacks.callback import Callback, Run

METHODS = ("on_train_begin", "on_epoch_begin", "on_batch_end", "on_epoch_end", "on_train_end")


class KerasStyle(Callback):
    """Calls another object's ``on_train_begin(logs)``, ``on_epoch_begin(epoch, logs)``, ``on_batch_end(batch,
    logs)``, ``on_epoch_end(epoch, logs)`` and ``on_train_end(logs)``, those of them that it has.

    ``logs`` holds every number by name. ``on_epoch_end`` is called after each epoch's last validation; where it
    returns True, or sets ``stop_training`` (on itself or on its ``model``), training stops. ``set_model(module)``
    and ``set_params(params)`` are called first.
    """

    def __init__(self, other: Any) -> None:
        self.other = other
        if callable(getattr(other, "on_batch_end", None)):
            self.on_batch_end = self._on_batch_end  # type: ignore[method-assign]

    def on_fit_start(self, run: Run) -> None:
        self._call("set_params", {"epochs": run.max_nb_epochs, "steps": run.nb_tng_batches})
        if callable(getattr(self.other, "set_model", None)):
            self.other.set_model(run.module)
        self._call("on_train_begin", {})

    def on_epoch_start(self, run: Run) -> None:
        self._call("on_epoch_begin", run.progress.epoch, {})

    def _on_batch_end(self, run: Run) -> None:
        self._call("on_batch_end", run.progress.batch_nb, run.metrics.all())

    def on_epoch_end(self, run: Run) -> None:
        stops = self._call("on_epoch_end", run.progress.epoch, run.metrics.all())
        told = getattr(self.other, "stop_training", False) is True
        if (stops is True or told) and run.nb_epochs_completed >= run.min_nb_epochs:
            run.stop(f"{type(self.other).__name__} asked to stop")

    def on_fit_end(self, run: Run) -> None:
        self._call("on_train_end", run.metrics.all())

    def _call(self, name: str, *arguments: Any) -> Any:
        method = getattr(self.other, name, None)
        return method(*arguments) if callable(method) else None


def as_callback(value: Any) -> Callback | None:
    """``value`` as a callback; None where it has no method that anybody would call."""
    if isinstance(value, Callback):
        return value
    return KerasStyle(value) if any(callable(getattr(value, name, None)) for name in METHODS) else None
