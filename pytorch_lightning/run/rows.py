"""Rows of numbers: when they are due, and what is in them."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch.optim import Optimizer

from pytorch_lightning.errors import FitError, describe, near
from pytorch_lightning.loggers.logger import MEDIA, LoggerGroup
from pytorch_lightning.run.hooks import Hooks
from pytorch_lightning.run.metrics import at, numbers_of, to_number
from pytorch_lightning.run.run import FitRun

MOST_UNREAD = 10_000
"""Losses that may wait for being read."""


class Rows:
    """Writes a row every ``every`` batches of an epoch, starting with the first, and one after every validation.

    The loggers flush every ``save_every`` batches. ``needed`` are the metrics that something depends on: names
    that don't exist are an error as soon as that is known. ``writes``: whether this is the process that logs.
    """

    def __init__(
        self,
        run: FitRun,
        loggers: LoggerGroup,
        optimizers: Sequence[Optimizer],
        hooks: Hooks,
        *,
        every: int,
        save_every: int,
        needed: dict[str, str],
        device: torch.device,
        stop_on_nan: bool,
        writes: bool = True,
    ) -> None:
        self._run, self._loggers, self._optimizers = run, loggers, optimizers
        self._change, self._replace = hooks["on_tng_metrics"], hooks["update_tng_log_metrics"]
        self._every, self._save_every, self._needed, self._device = every, save_every, needed, device
        self._stop_on_nan, self._reads_late, self._writes = stop_on_nan, device.type != "cpu", writes
        self._look_every = save_every if min(every, save_every) <= MOST_UNREAD else math.gcd(save_every, MOST_UNREAD)
        self.validation_names: tuple[str, ...] | None = None
        """What a sanity validation gave; None where there was none."""

    def after_batch(self) -> None:
        """Write a row if one is due after this batch."""
        progress = self._run.progress
        if self._reads_late and self._run.metrics.must_be_read:
            self.check_losses()
        if not progress.batch_nb % self._every:
            with self._run.timings.measuring("logging"):
                self._write_training()
        if not (progress.global_step + 1) % self._look_every:
            self._look()

    def _look(self) -> None:
        self._run.metrics.read()  # where rows are rare, so that little is kept unread
        if not (self._run.progress.global_step + 1) % self._save_every:
            with self._run.timings.measuring("logging"):
                self._loggers.save()

    def _write_training(self) -> None:
        run = self._run
        progress = run.progress
        self.check_losses()
        if not self._writes:
            return
        row: dict[str, Any] = {
            "epoch": progress.epoch,
            "batch_nb": progress.batch_nb,
            "global_step": progress.global_step,
        }
        row.update(self.rates())
        row.update(run.metrics.grad_norms)
        run.metrics.grad_norms.clear()  # a row inside a window has no norms of its own
        row.update(self._memory())
        row.update(run.metrics.of_batches())
        for change in self._change:
            change(row)
        for replace in self._replace:
            row = replace(row)
            if not isinstance(row, dict):
                raise FitError(
                    f"update_tng_log_metrics returned {describe(row)}; expected the dict to log."
                    f" Return logs. {at(progress)}"
                )
        if self._needed and (there := run.metrics.of_batches()):  # empty before the first batch that counts
            self._check_needed(there, validated=bool(progress.nb_validations))
        self._loggers.log_metrics(numbers_of(row, "the row to log"), progress.global_step)

    def learn_names(self, metrics: dict[str, float | int]) -> None:
        """Take note of what a sanity validation gave; its numbers aren't kept."""
        self.validation_names = self._run.metrics.validation_names = tuple(metrics)

    def write_validation(self, metrics: dict[str, float | int]) -> None:
        """Write the row of a validation that has just ended."""
        step = max(0, self._run.progress.global_step - 1)
        self._loggers.log_metrics({**self._last_place(), "global_step": step, **metrics}, step)
        if self._needed:
            self._check_needed({**metrics, **self._run.metrics.of_training()}, validated=True)

    def write_epoch(self, metrics: dict[str, float | int]) -> None:
        """Write the row of an epoch whose batches are over."""
        step = max(0, self._run.progress.global_step - 1)
        self._loggers.log_metrics({**self._last_place(), "global_step": step, **metrics}, step)

    def _last_place(self) -> dict[str, int]:
        """The epoch and the number of the batch that was trained on last."""
        run, progress = self._run, self._run.progress
        if progress.batch_nb:
            return {"epoch": progress.epoch, "batch_nb": progress.batch_nb - 1}
        nb = run.nb_tng_batches if run.nb_in_last_epoch is None else run.nb_in_last_epoch
        return {"epoch": max(0, progress.epoch - 1), **({"batch_nb": nb - 1} if nb else {})}

    def writes(self, name: str) -> Any:
        """The method ``name`` of a logger's SummaryWriter, for images and the like; None without one. One that logs a
        figure, an image, a text or a file reaches every logger."""
        if name in MEDIA:
            return partial(self._loggers.log_media, name, self._run.progress)
        writers = (getattr(logger, "writer", None) for logger in self._loggers.loggers)
        return next((getattr(writer, name) for writer in writers if hasattr(writer, name)), None)

    def log_by_hand(self, metrics: dict[str, Any], step: int | None) -> None:
        """Log a row that a user's own code made, with its place; what is no number is left out, as an Experiment's rows
        do."""
        progress = self._run.progress
        step = progress.global_step if step is None else step
        row: dict[str, float | int] = {"epoch": progress.epoch, "batch_nb": progress.batch_nb, "global_step": step}
        for key, value in metrics.items():
            for name, entry in value.items() if isinstance(value, dict) else [(key, value)]:
                number = to_number(entry)
                if number is None:
                    text = f"{name!r} isn't logged: it is a {type(entry).__name__}, not one number"
                    self._run.notices.say(f"not-logged-{name}", text)
                else:
                    row[str(name)] = number
        self._loggers.log_metrics(row, step)

    def rates(self) -> dict[str, float]:
        """The learning rates of now, by the names that rows have."""
        rates = {}
        for i, optimizer in enumerate(self._optimizers):
            for g, group in enumerate(optimizer.param_groups):
                if "lr" in group:
                    rates[f"lr_{i}" + (f"_{g}" if g else "")] = float(group["lr"])
        return rates

    def _memory(self) -> dict[str, float]:
        """Memory in use on the GPU, in MB."""
        module: Any = None if self._device.type == "cpu" else torch.get_device_module(self._device)
        if not hasattr(module, "mem_get_info"):
            return {}
        free, total = module.mem_get_info(self._device)
        return {f"gpu_{self._device.index or 0}": (total - free) / 2**20}

    def _check_needed(self, there: dict[str, Any], *, validated: bool) -> None:
        metrics = self._run.metrics
        names = {*(self.validation_names or ()), *metrics.validation, *metrics.epoch_names}
        known = sorted({*there, *names})
        absent = {name: who for name, who in self._needed.items() if name not in known}
        if not absent:
            self._needed = {}
        elif validated or self._run.nb_val_batches == 0 or self.validation_names is not None:
            what = " and ".join(f"{who} needs the metric {name!r}" for name, who in absent.items())
            hints = "".join(near(name, known) for name in absent)
            raise FitError(
                f"{what}, which doesn't exist. Available: {', '.join(known)}.{hints}"
                f" Return {next(iter(absent))!r} from validation_end, or monitor one of these. {at(self._run.progress)}"
            )

    def check_losses(self) -> None:
        """Check the losses that haven't been checked. On the CPU each is checked as soon as it is computed."""
        if self._reads_late and self._run.metrics.nonfinite_since_read():
            self.nonfinite(math.nan)

    def nonfinite(self, loss: float) -> None:
        """A loss isn't finite: stop with everything that helps to find out why, or count it."""
        run = self._run
        run.metrics.nb_nonfinite += 1
        rates = ", ".join(f"{name}={rate:g}" for name, rate in self.rates().items())
        if self._stop_on_nan:
            since = " in one of the batches since the last row" if self._reads_late else f" ({loss})"
            raise FitError(
                f"the loss isn't finite{since}, global_step {run.progress.global_step}, {rates}. {at(run.progress)}"
                " Lower the learning rate, clip gradients (gradient_clip=1.0), or pass stop_on_nan=False to continue."
            )
        run.notices.say_again("loss-not-finite", f"a loss isn't finite; training continues {at(run.progress)}")
