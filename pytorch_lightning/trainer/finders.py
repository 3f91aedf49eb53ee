"""Trials of a copy of the model: which learning rate, and which batch size. What is tried leaves nothing behind."""

import contextlib
import copy
import functools
import gc
import logging
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from pytorch_lightning import seeding
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint, OptunaPruning, ProgressBar
from pytorch_lightning.data.generators import set_state_of, state_of
from pytorch_lightning.errors import MisconfigurationException, Notices
from pytorch_lightning.options.config import Config
from pytorch_lightning.processes import ALONE
from pytorch_lightning.resume.attributes import AttributesPart
from pytorch_lightning.resume.own_generators import generators_of_data, generators_of_model, leaving_generators
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.run.progress import NEVER
from pytorch_lightning.steps.counted import nb_samples
from pytorch_lightning.trainer.given_loaders import forget_loaders
from pytorch_lightning.trainer.memory import Memory, is_out_of_memory
from pytorch_lightning.trainer.replaying import twin_of

Fit = Callable[[Callback, int], None]
"""Trains the copy for so many optimizer steps, seen by a callback."""
HERE = SimpleNamespace(device=torch.device("cpu"), processes=ALONE)
SKIPPED = ("never-validated", "no-validation", "not-shuffled")
LEAST_POINTS = 10
"""Of a range test, for a suggestion."""


class Done(Exception):
    """A trial has seen enough."""


@dataclass
class LrRange:
    """What ``Trainer.find_lr`` found."""

    rows: list[dict[str, float]] = field(default_factory=list)
    """For each optimizer step ``lr``, ``loss`` (the mean over its batches) and ``smoothed`` (a running mean of it)."""

    @property
    def suggestion(self) -> float | None:
        """The learning rate at which the smoothed loss falls fastest, per decade of the rate; None where it never
        falls, or where there are fewer than 10 rows."""
        if len(self.rows) < LEAST_POINTS:
            return None
        losses = [row["smoothed"] for row in self.rows]
        width = max(2, len(losses) // 12)  # a slope over several rows: that of two is noise
        first = min(LEAST_POINTS, len(losses) // 4)  # the means before are of few losses
        last = losses.index(min(losses[first:]), first)
        slopes = {i: losses[i + width] - losses[i - width] for i in range(first + width, last - width + 1)}
        best = min(slopes, key=lambda i: slopes[i], default=None)
        return None if best is None or slopes[best] >= 0 else self.rows[best]["lr"]

    def plot(self) -> Any:
        """A matplotlib figure: loss by learning rate, the suggestion marked. Needs matplotlib."""
        from matplotlib.figure import Figure

        axes = (figure := Figure(layout="constrained")).add_subplot()
        rates, losses, smoothed = ([row[name] for row in self.rows] for name in ("lr", "loss", "smoothed"))
        axes.plot(rates, losses, color="0.8", label="loss")
        axes.plot(rates, smoothed, label="smoothed")
        before = losses[: smoothed.index(min(smoothed)) + 1]  # what comes behind the lowest one may be huge
        if self.suggestion is not None:
            axes.axvline(self.suggestion, color="0.3", linestyle=":", label=f"{self.suggestion:.2g}")
        axes.set(xscale="log", xlabel="learning rate", ylabel="loss", ylim=(min(0.0, *before), 1.2 * max(before)))
        axes.legend()
        return figure


@dataclass
class BatchSizes:
    """What ``Trainer.find_batch_size`` found."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    """For each trial ``batch_size``, ``fits``, ``peak_bytes`` (the most memory; None where the size wasn't run) and
    ``samples_per_second`` (None where it didn't fit)."""

    @property
    def suggestion(self) -> int | None:
        """The largest batch size that fits; None where none does."""
        return max((row["batch_size"] for row in self.rows if row["fits"]), default=None)


class Smoothed:
    """A running mean without the bias of its first values."""

    def __init__(self, keeps: float) -> None:
        self._keeps, self._sum, self._weight = keeps, 0.0, 0.0

    def add(self, value: float) -> float:
        """The mean with ``value``."""
        self._sum = self._keeps * self._sum + (1 - self._keeps) * value
        self._weight = self._keeps * self._weight + 1 - self._keeps
        return self._sum / self._weight


class RisingRate(Callback):
    """Gives each optimizer step a higher rate than the one before, and notes its loss."""

    def __init__(self, rates: list[float], smoothing: float, diverges: float) -> None:
        self.found, self._losses = LrRange(), list[float]()
        self._rates, self._smoothed, self._diverges = rates, Smoothed(smoothing), diverges
        self._ratios: list[list[float]] | None = None

    def note(self, output: Any) -> None:
        """``training_step`` returned this."""
        loss = output.get("loss") if isinstance(output, Mapping) else output
        if isinstance(loss, Tensor):
            self._losses.append(float(loss.detach()))

    def on_batch_start(self, run: Any, data_batch: Any) -> None:
        """Set the rate of the step that this batch belongs to."""
        if run.progress.nb_optimizer_steps > len(self.found.rows):
            self.end_step()
        (optimizer,) = run.module.trainer.optimizers
        if self._ratios is None:
            first = float(optimizer.param_groups[0]["lr"]) or 1.0
            self._ratios = [[float(group["lr"]) / first or 1.0] for group in optimizer.param_groups]
        rate = self._rates[min(run.progress.nb_optimizer_steps, len(self._rates) - 1)]
        for group, (ratio,) in zip(optimizer.param_groups, self._ratios, strict=False):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate * ratio)
            else:
                group["lr"] = rate * ratio

    def end_step(self) -> None:
        """A step was made: note it. Raises ``Done`` where the loss went up too far."""
        losses, self._losses = self._losses, []
        rows = self.found.rows
        if not losses or len(rows) >= len(self._rates):
            return
        loss = sum(losses) / len(losses)
        if not math.isfinite(loss):
            raise Done
        smoothed = self._smoothed.add(loss)
        rows.append({"lr": self._rates[len(rows)], "loss": loss, "smoothed": smoothed})
        settled = [row["smoothed"] for row in rows[LEAST_POINTS - 1 :]]
        if settled and smoothed > self._diverges * min(settled):
            raise Done


class Measured(Callback):
    """Notes the sizes of batches, and how long those after the first took."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.times: list[float] = []

    def on_batch_start(self, run: Any, data_batch: Any) -> None:
        """A batch is there."""
        self.sizes.append(nb_samples(data_batch, "find_batch_size"))
        self.times.append(time.perf_counter())

    def on_fit_end(self, run: Any) -> None:
        """The last one is trained on."""
        self.times.append(time.perf_counter())

    @property
    def samples_per_second(self) -> float | None:
        """Without the first batch, which warms up."""
        first = min(1, len(self.sizes) - 1)
        seconds = self.times[-1] - self.times[first]
        return sum(self.sizes[first:]) / seconds if seconds > 0 else None


class Maker(NamedTuple):
    """What makes the Trainers of trials: a class, and the options of the Trainer that was asked."""

    make: Callable[..., Any]
    options: Mapping[str, Any]
    config: Config


class Trials:
    """Copies of a model in fits that write nothing."""

    def __init__(self, maker: Maker, name: str, model: LightningModule, loader: Any) -> None:
        config = maker.config
        if config.nb_processes > 1 or config.distributed_backend in ("ddp", "ddp2", "fsdp"):
            raise MisconfigurationException(
                f"{name} runs in one process; received distributed_backend={config.distributed_backend!r} and"
                f" nb_processes={config.nb_processes}. Call it on a Trainer for one process."
            )
        if not model.automatic_optimization:
            raise MisconfigurationException(
                f"{name} steps the optimizer itself; received a {type(model).__name__} with automatic_optimization ="
                " False. Train some short runs instead."
            )
        self._maker, self._name, self._model, self._loader = maker, name, model, loader

    @contextlib.contextmanager
    def twin(self) -> Iterator[tuple[Any, Fit]]:
        """A copy of the model, and what trains it. The data that it shares with the model are put back afterwards."""
        try:
            twin, loader = twin_of(self._model, self._loader)
        except Exception as error:
            raise MisconfigurationException(
                f"{self._name} trains a copy of {type(self._model).__name__}, which can't be copied:"
                f" {type(error).__name__}: {error}. Keep what can't be copied outside of the module."
            ) from error
        with leaving_generators(self._model), self._leaving_data(twin, loader):
            yield twin, functools.partial(self._fit, twin, loader)

    @contextlib.contextmanager
    def _leaving_data(self, twin: Any, loader: Any) -> Iterator[None]:
        with seeding.preserved():
            given = twin.tng_dataloader if loader is None else loader
        forget_loaders(twin)  # it may be made of another batch size when it is trained on
        attributes = AttributesPart(twin, (), Notices(), cast("Any", HERE))
        attributes.note_loader(given)
        before = attributes.data.copied()
        generators = [*generators_of_data(given, self._loader), *generators_of_model(self._model, (), given)]
        states = [copy.deepcopy(state_of(generator)) for generator in generators]
        try:
            yield
        finally:
            attributes.data.apply(before)
            for generator, state in zip(generators, states, strict=True):
                set_state_of(generator, state)

    def _fit(self, twin: Any, loader: Any, seen_by: Callback, nb_steps: int) -> None:
        make, logger = self._maker.make, logging.getLogger("pytorch_lightning")
        level = logger.level
        with tempfile.TemporaryDirectory(prefix="trial_") as scratch, contextlib.suppress(Done):
            twins_own = make(**self._options(seen_by, nb_steps, scratch))
            logger.setLevel(logging.ERROR)
            try:
                twins_own.fit(twin, loader)
            finally:
                logger.setLevel(level)

    def _options(self, seen_by: Callback, nb_steps: int, scratch: str) -> dict[str, Any]:
        options, left_out = self._maker.options, (ModelCheckpoint, EarlyStopping, OptunaPruning, ProgressBar)
        # those that change what is trained; a user's own may write files
        kept = [c for c in options["callbacks"] if type(c).__module__.startswith("pytorch_lightning.")]
        return {
            **options,
            "experiment": False,
            "early_stop_callback": None,
            "enable_early_stop": False,
            "checkpoint_callback": None,
            "callbacks": [*(copy.deepcopy(c) for c in kept if not isinstance(c, left_out)), seen_by],
            "progress_bar": False,
            "print_weights_summary": False,
            "profile": False,
            "resume": None,
            "default_save_path": scratch,
            "save_every_minutes": 0,
            "save_every_nb_batches": None,
            "max_nb_epochs": NEVER,
            "min_nb_epochs": 1,
            "max_nb_steps": nb_steps,
            "max_time": None,
            "fast_dev_run": False,
            "check_val_every_n_epoch": NEVER,
            "val_check_interval": 1.0,
            "val_every_nb_batches": None,
            "nb_sanity_val_steps": 0,
            "stop_on_nan": False,
            "crash_bundle": False,
            "silence": SKIPPED,
        }


def find_lr(
    maker: Maker,
    model: LightningModule,
    loader: Any,
    *,
    min_lr: float,
    max_lr: float,
    nb_steps: int,
    smoothing: float,
    diverges: float,
) -> LrRange:
    """See ``Trainer.find_lr``."""
    if not 0 < min_lr < max_lr or nb_steps < 2:
        raise MisconfigurationException(
            f"find_lr needs 0 < min_lr < max_lr and nb_steps of 2 or more; received min_lr={min_lr}, max_lr={max_lr},"
            f" nb_steps={nb_steps}. Pass min_lr=1e-7, max_lr=1.0, nb_steps=100, say."
        )
    factor = (max_lr / min_lr) ** (1 / (nb_steps - 1))
    probe = RisingRate([min_lr * factor**i for i in range(nb_steps)], smoothing, diverges)
    with Trials(maker, "find_lr", model, loader).twin() as (twin, fit):
        configure, training_step = twin.configure_optimizers, twin.training_step

        @functools.wraps(training_step)
        def noting(*arguments: Any) -> Any:
            output = training_step(*arguments)
            probe.note(output)
            return output

        twin.__dict__["training_step"] = noting
        twin.__dict__["configure_optimizers"] = lambda: _only_optimizer(configure())
        fit(probe, nb_steps)
        with contextlib.suppress(Done):
            probe.end_step()
    return probe.found


def _only_optimizer(configured: Any) -> Any:
    """The optimizer alone: a schedule would have rates of its own."""
    if isinstance(configured, Mapping):
        configured = configured.get("optimizer")
    elif isinstance(configured, (list, tuple)) and configured and isinstance(configured[0], (list, tuple)):
        configured = configured[0]
    each = list(configured) if isinstance(configured, (list, tuple)) else [configured]
    each = [one.get("optimizer") if isinstance(one, Mapping) else one for one in each]
    if len(each) != 1:
        raise MisconfigurationException(
            f"find_lr tries one optimizer; received {len(each)} from configure_optimizers. Train some short runs"
            " instead."
        )
    return each


def find_batch_size(
    maker: Maker, model: LightningModule, *, attribute: str, start: int, most: int | None, nb_steps: int, memory: Any
) -> BatchSizes:
    """See ``Trainer.find_batch_size``."""
    if not hasattr(model, attribute) and attribute not in _holder(model, attribute):
        raise MisconfigurationException(
            f"find_batch_size sets an attribute of the module, or an entry of hparams; received {attribute=}, which"
            f" {type(model).__name__} doesn't have. Read it in tng_dataloader: DataLoader(..., self.{attribute})."
        )
    found, limit = BatchSizes(), Memory(maker.config, memory)
    trials = Trials(maker, "find_batch_size", model, None)

    def fits(size: int) -> bool:
        if limit.is_too_much(size):
            found.rows.append({"batch_size": size, "fits": False, "peak_bytes": None, "samples_per_second": None})
            return False
        measured = Measured()
        row: dict[str, Any] = {"batch_size": size, "fits": True, "peak_bytes": None, "samples_per_second": None}
        with trials.twin() as (twin, fit):
            _holder(twin, attribute)[attribute] = size
            limit.begin()
            try:
                fit(measured, nb_steps)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                row["fits"] = False
            row["peak_bytes"] = limit.peak(size)
            row["fits"] = row["fits"] and not limit.is_over
        del twin, fit
        gc.collect()
        if row["fits"]:
            row["samples_per_second"] = measured.samples_per_second
            largest = max(measured.sizes)
            if largest > size or (largest < size and not found.rows):
                raise MisconfigurationException(
                    f"find_batch_size set {attribute} to {size}, and a batch had {largest} samples. Read it in"
                    f" tng_dataloader: DataLoader(..., batch_size=self.{attribute})."
                )
            row["batch_size"] = largest
        found.rows.append(row)
        if row["batch_size"] < size:  # there are no more samples
            raise Done
        return bool(row["fits"])

    with contextlib.suppress(Done):
        _search(fits, start, most)
    return found


def _search(fits: Callable[[int], bool], start: int, most: int | None) -> None:
    """Double while it fits, then halve the gap to what didn't."""
    size, largest = start, most or NEVER
    while size <= largest and fits(size):
        size *= 2
    low, high = size // 2, min(size, largest + 1)
    if size == start:
        low = 0
    while high - low > max(1, low // 16):
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle


def _holder(model: Any, attribute: str) -> dict[str, Any]:
    """The namespace that has the attribute: the module's own, or that of hparams."""
    hparams = getattr(model, "hparams", None)
    of_hparams = hparams if isinstance(hparams, dict) else getattr(hparams, "__dict__", {})
    return of_hparams if attribute in of_hparams and not hasattr(model, attribute) else vars(model)
