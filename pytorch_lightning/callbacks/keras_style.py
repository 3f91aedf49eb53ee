"""Callbacks written for Keras, whose methods take an epoch or batch and a dict of logs."""

import inspect
import re
from typing import Any

from pytorch_lightning.callbacks.callback import Callback, Run

METHODS = ("on_train_begin", "on_epoch_begin", "on_batch_begin", "on_batch_end", "on_epoch_end", "on_train_end")


NEWER = ("begin", "end")
HERE = {"begin": "on_batch_start", "end": "on_batch_end"}
NEVER = re.compile(r"on_(test|predict)_(batch_)?(begin|end)")


class KerasCallback:
    """What callbacks of 2019 derive from (``pytorch_lightning.callbacks.pt_callbacks.Callback``); does nothing."""

    validation_data: Any = None
    model: Any = None
    params: Any = None

    def set_params(self, params: dict[str, Any]) -> None:
        self.params = params

    def set_model(self, model: Any) -> None:
        self.model = model

    def on_train_begin(self, logs: Any = None) -> Any: ...
    def on_epoch_begin(self, epoch: int, logs: Any = None) -> Any: ...
    def on_batch_begin(self, batch: int, logs: Any = None) -> Any: ...
    def on_batch_end(self, batch: int, logs: Any = None) -> Any: ...
    def on_epoch_end(self, epoch: int, logs: Any = None) -> Any: ...
    def on_train_end(self, logs: Any = None) -> Any: ...


class KerasStyle(Callback):
    """Calls another object's ``on_train_begin(logs)``, ``on_epoch_begin(epoch, logs)``, ``on_batch_begin(batch,
    logs)``, ``on_batch_end(batch, logs)``, ``on_epoch_end(epoch, logs)`` and ``on_train_end(logs)``, those of them
    that it has.

    ``logs`` holds every number by name. ``on_epoch_end`` is called after each epoch's last validation; where it
    returns True, or sets ``stop_training`` (on itself or on its ``model``), training stops. ``set_model(module)``
    and ``set_params(params)`` are called first. ``save_function(path)`` is there to ask for a checkpoint, written
    at the next save point.
    """

    def __init__(self, other: Any) -> None:
        self.other = other
        for name in NEWER:  # what Keras calls them today
            if callable(getattr(other, f"on_train_batch_{name}", None)) and not _has(other, f"on_batch_{name}"):
                setattr(self, f"_other_batch_{name}", getattr(other, f"on_train_batch_{name}"))
                setattr(self, HERE[name], getattr(self, f"_{HERE[name]}"))
        if _has(other, "on_batch_begin"):
            self.on_batch_start = self._on_batch_start  # type: ignore[method-assign]
        if _has(other, "on_batch_end"):
            self.on_batch_end = self._on_batch_end  # type: ignore[method-assign]

    @property
    def state_name(self) -> str:
        return type(self.other).__name__

    def on_fit_start(self, run: Run) -> None:
        for told in (self.other, run.module):
            if getattr(told, "stop_training", False) is True:  # by an earlier fit
                told.stop_training = False
        if getattr(self.other, "save_function", None) is None:
            self.other.save_function = run.save
        for name in filter(NEVER.fullmatch, dir(self.other)):
            hook = "on_evaluation_start" if name.endswith("begin") else "on_evaluation_end"
            text = f"{type(self.other).__name__}.{name} is never called. Write a Callback with {hook}"
            run.notices.say(f"near-hook-{name}", text)
        self._call("set_params", {"epochs": run.max_nb_epochs, "steps": run.nb_tng_batches})
        self._call("set_model", run.module)
        self._call("on_train_begin", {})

    def on_epoch_start(self, run: Run) -> None:
        self._call("on_epoch_begin", run.progress.epoch, {})

    def _on_batch_start(self, run: Run, data_batch: Any) -> None:
        self._batch("begin")(run.progress.batch_nb, {})

    def _on_batch_end(self, run: Run) -> None:
        self._batch("end")(run.progress.batch_nb, run.metrics.all())

    def _batch(self, name: str) -> Any:
        own = getattr(self, f"_other_batch_{name}", None)
        return own or getattr(self.other, f"on_batch_{name}")

    def on_epoch_end(self, run: Run) -> None:
        stops = self._call("on_epoch_end", run.progress.epoch, run.metrics.all())
        told = any(getattr(who, "stop_training", False) is True for who in (self.other, run.module))
        if (stops is True or told) and run.nb_epochs_completed >= run.min_nb_epochs:
            run.stop(f"{type(self.other).__name__} requested a stop")

    def on_fit_end(self, run: Run) -> None:
        self._call("on_train_end", run.metrics.all())

    def _call(self, name: str, *arguments: Any) -> Any:
        method = getattr(self.other, name, None)
        return method(*arguments) if callable(method) else None


def _has(value: Any, name: str) -> bool:
    """Whether ``name`` has been recorded for ``value``."""
    mine = inspect.getattr_static(value, name, None)
    return mine is not None and mine is not inspect.getattr_static(KerasCallback, name, None)


def as_callback(value: Any) -> Callback | None:
    """``value`` as a callback; None where it has no method that anybody would call."""
    if isinstance(value, Callback):
        return value
    names = (*METHODS, "on_train_batch_begin", "on_train_batch_end")
    return KerasStyle(value) if any(callable(getattr(value, name, None)) for name in names) else None
