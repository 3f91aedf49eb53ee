"""A fit without its steps: the loop itself runs on a copy of the model, and what it would do is noted instead."""

import contextlib
import copy
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from types import SimpleNamespace
from typing import Any, cast

import torch

from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.checkpoints.run_store import superfluous
from pytorch_lightning.checkpoints.store import size_of
from pytorch_lightning.loggers.logger import LoggerGroup
from pytorch_lightning.options.config import Config
from pytorch_lightning.processes import ALONE
from pytorch_lightning.resume.fork import ranges_of
from pytorch_lightning.resume.rolling import RollingSaves
from pytorch_lightning.resume.save_points import SavePoints
from pytorch_lightning.run.hooks import Hooks
from pytorch_lightning.run.rows import Rows
from pytorch_lightning.run.run import FitRun
from pytorch_lightning.seeding import MODEL, build_seeder
from pytorch_lightning.steps.step_inputs import TrainWindow
from pytorch_lightning.trainer.basis import Basis, FitRequest
from pytorch_lightning.trainer.evaluation import EvaluationPlan
from pytorch_lightning.trainer.fit_plan import FitPlan
from pytorch_lightning.trainer.loop import run_fit
from pytorch_lightning.trainer.optimization import Windows, build_step_schedules
from pytorch_lightning.trainer.plan import Restored
from pytorch_lightning.trainer.skipping import Skips

MOST_BATCHES = 2_000_000
"""Training batches that a dry run counts."""
CUT = "not counted further"


class Nothing:
    """Stands for a part of a fit that has nothing to do in a dry run."""

    is_whole_in_validation = False

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


class Noted:
    """What fell due, in order, each with its place."""

    def __init__(self, run: FitRun) -> None:
        self._progress, self._count = run.progress, run.nb_samples_in
        self.events: list[dict[str, Any]] = []
        self.rates: list[dict[str, float]] = []
        self._last_rates: dict[str, float] = {}
        self.epochs: list[dict[str, int | None]] = []
        self.nb_scheduled: dict[int, int] = {}
        """How often each schedule steps, by its place."""

    def add(self, event: str, **more: Any) -> None:
        """``event`` is due now."""
        p = self._progress
        place = {"epoch": p.epoch, "batch_nb": p.batch_nb, "global_step": p.global_step}
        self.events.append({"event": event, **place, "nb_optimizer_steps": p.nb_optimizer_steps, **more})

    def begin_epoch(self) -> None:
        """An epoch begins, or goes on."""
        p = self._progress
        self._start = p.batch_nb, p.nb_optimizer_steps, p.nb_validations
        self.epochs.append({"epoch": p.epoch})

    def end_epoch(self) -> None:
        """It has come as far as it will."""
        p, (batch, steps, validations) = self._progress, self._start
        ends = self._count(p.batch_nb), self._count(batch)
        self.epochs[-1] |= {
            "nb_batches": p.batch_nb - batch,
            "nb_optimizer_steps": p.nb_optimizer_steps - steps,
            "nb_samples": None if ends[0] is None or ends[1] is None else ends[0] - ends[1],
            "nb_validations": p.nb_validations - validations,
        }

    def note_rates(self, rates: dict[str, float]) -> None:
        """The next step is made with these."""
        if rates != self._last_rates:
            self._last_rates = rates
            self.rates.append({"nb_optimizer_steps": self._progress.nb_optimizer_steps, **rates})


class NotedLoggers(LoggerGroup):
    """Notes the rows that loggers would get."""

    def __init__(self, noted: Noted, request: FitRequest) -> None:
        super().__init__([], request.notices)
        self._noted = noted

    def log_metrics(self, metrics: dict[str, float | int], step: int) -> None:
        self._noted.add("row", step=step)

    def save(self) -> None:
        self._noted.add("flush")


class NotedSaver(Nothing):
    """Notes the files that a ``Saver`` would write."""

    saves_together = False
    strategy = SimpleNamespace(processes=ALONE, saves_shards=False)

    def __init__(self, noted: Noted) -> None:
        self._noted = noted

    def save(self, path: Any, weights_only: bool = False) -> bool:
        self._noted.add("save", path=str(path).replace("=nan", "=..."), weights_only=weights_only)
        return True

    def is_finite(self, what: str) -> bool:
        return True

    def with_all(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


class NotedSaves(RollingSaves):
    """Rolling saves that are noted; those that only the clock knows of aren't."""

    noted: Noted
    _names: list[str]

    def _open(self, step: int | None) -> Any:
        """There is nothing to open."""

    def _write(self, writer: Any, step: int, wait: bool, finished: bool, notes: Any) -> bool:
        name = f"{self.folder}/step-{step:012d}.ckpt"
        self.noted.add("save", path=name, weights_only=False, rolling=True)
        self._names = [name, *(other for other in self._names if other != name)]
        by_name = {path.rpartition("/")[2]: path for path in self._names}
        for old in reversed(superfluous([*by_name], self._keep, finished)):
            self.noted.add("delete", path=by_name[old])
            self._names.remove(by_name[old])
        return True

    def is_due_before_validation(self) -> bool:
        return False


class Numbers(Nothing):
    """Stands for the training loader: a batch is its number."""

    takes_back, begins_anywhere = False, True

    def batches(self, epoch: int, first: int, nb_batches: int) -> Iterator[int]:
        return iter(range(first, nb_batches))


def run_dry(request: FitRequest, basis: Basis, state: Restored, noted: Noted, **how: Any) -> None:
    """Run the loop of a fit, whose loader knows its length; ``noted`` hears what is due.

    ``how`` has ``folder``, that of the rolling saves (None: there are none), ``from_the_start`` (or they begin with the
    first that is due), and ``writes``: whether there are logs.
    """
    config, run, module = request.config, request.run, request.module
    loader, loggers, nothing = Numbers(), NotedLoggers(noted, request), Nothing()
    hooks = _hooks(basis, noted)
    each: dict[str, Any] = {"every": config.add_log_row_interval, "save_every": config.log_save_interval, "needed": {}}
    silent, device = cast("Any", dict.fromkeys(basis.hooks, ())), basis.strategy.device
    rows = Rows(run, loggers, basis.optimizers, silent, **each, device=device, stop_on_nan=False, writes=how["writes"])
    rolling = NotedSaves(
        cast("Any", NotedSaver(noted)), run, request.notices, folder=how["folder"], job=None, store=None,
        every_minutes=0, every_batches=config.save_every_nb_batches, from_the_start=how["from_the_start"],
        keep=config.saves_kept,
    )  # fmt: skip
    rolling.noted, rolling._names = noted, []
    points = cast("Any", SavePoints)(config, run, rows, rolling, loader, nothing, ALONE, basis.resumed)
    values = _values(request, basis)
    _prepare_callbacks(request, noted, values)
    _prepare_schedules(basis, noted)
    basis = replace(basis, hooks=silent)
    steps = build_step_schedules(request, basis, state.optimization.epoch_schedules)
    window = build_window(request, basis, rows, noted, steps)
    kept: dict[str, Any] = {
        "config": config, "module": module, "run": run, "hooks": hooks, "length": basis.length, "rows": rows,
        "optimization": state.optimization, "epoch_schedules": state.optimization.epoch_schedules, "loader": loader,
        "windows": Windows(window, window), "validation": _evaluation(basis.validation, silent, values),
        "sanity": None if basis.resumed else _evaluation(basis.sanity, silent, {}), "loggers": loggers,
        "saver": rolling.saver, "rolling": rolling, "resumed": basis.resumed, "seed": basis.seed,
        "optimizers": basis.optimizers, "schedules": basis.schedules, "strategy": basis.strategy, "save_points": points,
        "skips": Skips(ranges_of(state.saver.parts), run.progress, run.timings),
    }  # fmt: skip
    absent = ("attributes", "modes", "random", "gradients", "current", "window_start")
    plan = FitPlan(**{**kept, **dict.fromkeys(absent, nothing)})
    run.timings.begin(device, lambda: 0)
    if run.progress.epoch_started:
        noted.begin_epoch()
    run_fit(plan)
    if run.progress.epoch_started:  # a limit ended it
        noted.end_epoch()
    points.reach()
    rolling.end(interrupted=False)


def build_window(
    request: FitRequest, basis: Basis, rows: Rows, noted: Noted, schedules: Sequence[Callable[[Sequence[bool]], None]]
) -> TrainWindow:
    """A window whose batches are counted, and whose step is only noted."""
    run, config, stepped = request.run, request.config, [True for _ in basis.optimizers]
    progress, by_hand = run.progress, not request.module.automatic_optimization
    full, count = config.accumulate_nb_samples, run.nb_samples_in

    def is_full(first: int) -> bool:
        nb_before, nb = count(first), count(progress.batch_nb + 1)
        return full is not None and nb is not None and nb_before is not None and nb - nb_before >= full

    def finish_batch() -> None:
        rows.after_batch()
        progress.batch_nb += 1
        progress.global_step += 1

    def window(batches: Iterator[Any], size: int, accumulate: int) -> None:
        first = progress.batch_nb
        noted.note_rates(rows.rates())
        next(batches)
        for _ in islice(batches, size - 1) if size > 1 and not is_full(first) else ():
            finish_batch()
            if full is not None and is_full(first):
                break
        progress.nb_optimizer_steps += not by_hand
        finish_batch()
        for advance in schedules:
            advance(stepped)
        if progress.global_step >= MOST_BATCHES:
            run.stop(CUT)

    return window


def _hooks(basis: Basis, noted: Noted) -> Hooks:
    """What the loop calls: notes, and the callbacks that decide about files, stops and rates."""
    from pytorch_lightning.callbacks import Unfreeze

    taking_part = (ModelCheckpoint, EarlyStopping, Unfreeze)
    table = {name: tuple(h for h in each if _is_of(h, taking_part)) for name, each in basis.hooks.items()}
    table["on_sanity_check_start"] = (partial(noted.add, "sanity check"),)
    table["on_epoch_start"] = (noted.begin_epoch, *table["on_epoch_start"])
    table["on_pre_performance_check"] = (partial(noted.add, "validation"),)
    table["on_epoch_end"] = (*table["on_epoch_end"], noted.end_epoch)
    return table


def _is_of(hook: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(hook, partial) and isinstance(getattr(hook.func, "__self__", None), kinds)


def _prepare_callbacks(request: FitRequest, noted: Noted, values: dict[str, float]) -> None:
    for callback in request.callbacks:
        if isinstance(callback, EarlyStopping):
            check = partial(noted.add, "check", callback=type(callback).__name__)
            vars(callback)["_check"] = lambda run, value, check=check: check()
        if isinstance(callback, ModelCheckpoint):
            vars(callback)["remove"] = lambda path: noted.add("delete", path=path)
            vars(callback)["_is_kept"] = partial(_is_kept, callback, noted, callback.monitor in values)


def _is_kept(keeper: ModelCheckpoint, noted: Noted, by_validation: bool, path: str, value: float | None) -> bool:
    """Whether a file is written for sure; where its value decides, that is noted. ``by_validation``: there is none
    before the first validation."""
    most, is_known = keeper.save_top_k, value is not None or not by_validation
    if most is None or (value is not None and path not in keeper.kept and len(keeper.kept) < most):
        return True
    if most and is_known:
        more = {"weights_only": keeper.save_weights_only, "if_better": keeper.monitor}
        noted.add("save", path=path.replace("=nan", "=..."), **more)
    return False


def _prepare_schedules(basis: Basis, noted: Noted) -> None:
    """Count the steps of schedules; one that watches a metric stays where it is."""
    for place, schedule in enumerate(basis.schedules):
        noted.nb_scheduled[place] = 0
        step = schedule.scheduler.step if schedule.monitor is None else lambda: None

        def counting(*_: Any, step: Any = step, place: int = place, per: str = schedule.interval) -> None:
            noted.nb_scheduled[place] += 1
            if per == "epoch":
                noted.add("schedule", schedule=place)
            step()

        vars(schedule.scheduler)["step"] = counting
        schedule.scheduler.optimizer._opt_called = True  # torch warns of a schedule that steps first


def _values(request: FitRequest, basis: Basis) -> dict[str, float]:
    """The metrics that something watches, as if validations gave them."""
    watched = [getattr(callback, "monitor", None) for callback in request.callbacks]
    watched += [schedule.monitor for schedule in basis.schedules]
    return {name: float("nan") for name in watched if name is not None and not name.startswith("tng_")}


def _evaluation(plan: EvaluationPlan | None, hooks: Hooks, values: dict[str, float]) -> EvaluationPlan | None:
    """A validation without batches."""
    if plan is None:
        return None
    around = cast("Any", lambda stage: contextlib.nullcontext())
    return replace(plan, loaders=[], end=lambda outputs: dict(values), hooks=hooks, around=around, together=None)


def sizes_of_files(request: FitRequest, basis: Basis, state: Restored) -> dict[str, int | None]:
    """The bytes of a checkpoint, whole and of the weights alone; None where what an optimizer keeps isn't known before
    it steps. Changes the copy."""
    for schedule in basis.schedules:
        vars(schedule.scheduler).pop("step", None)
    sizes: dict[str, int | None] = {"whole": None, "weights only": None}
    parts: dict[str, Any] = state.saver.parts
    with contextlib.suppress(Exception):  # a user's own state: what a save raises is the save's to say
        parts["loggers"] = LoggerGroup([], request.notices)
        parts["attributes"].begin(basis.optimizers, basis.schedules)
        build_seeder(basis.seed, MODEL, None)(0)  # as a step does: the state of the streams is short then
        sizes["weights only"] = size_of(state.saver.checkpoint(weights_only=True))
        for optimizer in basis.optimizers if not basis.resumed else ():
            for parameter in (p for group in optimizer.param_groups for p in group["params"] if p.requires_grad):
                parameter.grad = torch.zeros_like(parameter)
            optimizer.step()
            optimizer.zero_grad()
        sizes["whole"] = size_of(state.saver.checkpoint())
    return sizes


def copied(callback: Any) -> Any:
    """A copy of a callback; where it can't be copied an empty one in its place."""
    from pytorch_lightning.callbacks import Callback

    if callback is None:
        return None
    try:
        return copy.deepcopy(callback)
    except Exception:
        return Callback()


def save_to_resume(config: Config, module: Any) -> tuple[str | None, str | None]:
    """The newest save that ``config.resume`` means, and the folder of its run where that goes on there. Nothing is
    opened for writing."""
    from pytorch_lightning.checkpoints.folders import open_folder
    from pytorch_lightning.checkpoints.run_store import find_runs, saves_in
    from pytorch_lightning.run import files

    if config.resume is None or (config.resume == "auto" and config.fast_dev_run):
        return None, None
    folder: str | None = config.resume
    if config.resume == "auto":
        folder = next((run.folder for run in find_runs(*files.home_of(config, module)) if run.has_saves), None)
    names = [] if folder is None else saves_in(open_folder(os.path.join(folder, "checkpoints")).names())
    if names:
        if config.fast_dev_run:
            return None, None
        return f"{folder}/checkpoints/{names[0]}", folder
    return (None if config.resume == "auto" else config.resume), None
