"""Every choice of a fit, made once: options and a module become a ``FitPlan``."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.optim import Optimizer

from pytorch_lightning.callbacks import Callback, ProgressBar
from pytorch_lightning.callbacks.profiler import Profiler
from pytorch_lightning.checkpoints.checkpoint import Part
from pytorch_lightning.data.loader import ReplayableLoader, length_of
from pytorch_lightning.data.replayable import sizes_of
from pytorch_lightning.errors import Notices, Problem, attempt, raise_together
from pytorch_lightning.loggers.logger import LoggerGroup
from pytorch_lightning.options.config import Config
from pytorch_lightning.precision import build_precision
from pytorch_lightning.precision.precision import Precision
from pytorch_lightning.processes import EVERYTHING, Share
from pytorch_lightning.resume.agreement import Agreement
from pytorch_lightning.resume.parts import CallbacksPart, DataPart, GradientsPart, RandomPart, VersionsPart
from pytorch_lightning.resume.resuming import ResumedSave, find_save_to_resume, job_of, restore_checked
from pytorch_lightning.resume.rolling import RollingSaves
from pytorch_lightning.resume.saver import Saver
from pytorch_lightning.resume.window_start import WindowStart
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.run import files
from pytorch_lightning.run.hooks import Hooks, can_be_called, hook_table, is_overridden, say_near_misses, takes_one_more
from pytorch_lightning.run.progress import nb_checked
from pytorch_lightning.run.rows import Rows
from pytorch_lightning.run.run import FitRun
from pytorch_lightning.steps.buffers import BufferUndo, can_be_kept
from pytorch_lightning.steps.exact_sum import adds_in_order
from pytorch_lightning.steps.gradients import before_update
from pytorch_lightning.steps.optimizers import Schedule, read_optimizers, use_fused
from pytorch_lightning.steps.rounds import build_round_window
from pytorch_lightning.steps.schedules import EpochSchedules, build_step_schedule, needed_metrics
from pytorch_lightning.steps.step_inputs import StepInputs, TrainWindow, with_timers
from pytorch_lightning.steps.window import build_train_window
from pytorch_lightning.strategies import Strategy
from pytorch_lightning.strategies.compiled import Compile, build_compiler
from pytorch_lightning.trainer import checks
from pytorch_lightning.trainer.evaluation import EvaluationPlan, plan_evaluation
from pytorch_lightning.trainer.fit_plan import FitPlan
from pytorch_lightning.trainer.placement import plan_share
from pytorch_lightning.trainer.training_data import plan_loader


def plan_fit(
    config: Config,
    module: LightningModule,
    run: FitRun,
    callbacks: Sequence[Callback],
    notices: Notices,
    strategy: Strategy,
    problems: list[Problem],
) -> FitPlan:
    """Decide everything about a fit of ``module``, and restore what ``config.resume`` holds. ``problems`` are those
    that were seen before.

    Raises one ``MisconfigurationException`` that lists every mistake that can be seen before the first batch.
    """
    try:
        return _plan_fit(config, module, run, callbacks, notices, strategy, problems)
    except BaseException:
        run.on_failed_plan()
        raise


def _plan_fit(
    config: Config,
    module: LightningModule,
    run: FitRun,
    callbacks: Sequence[Callback],
    notices: Notices,
    strategy: Strategy,
    problems: list[Problem],
) -> FitPlan:
    basis = _plan_basis(config, module, run, callbacks, notices, strategy, problems)
    epoch_schedules = EpochSchedules(basis.schedules)
    saver = _plan_saver(config, module, run, callbacks, basis, epoch_schedules)
    resumed = basis.resumed
    _begin_or_restore(config, run, callbacks, saver, resumed)
    if strategy.processes.is_first:
        files.make_folders(config)  # from here on: a start that fails leaves none behind
    loggers, rolling = _plan_files(config, module, run, notices, saver, resumed)
    rows = Rows(
        run,
        loggers,
        basis.optimizers,
        basis.hooks,
        every=config.add_log_row_interval,
        save_every=config.log_save_interval,
        needed=needed_metrics(callbacks, basis.schedules),
        device=strategy.device,
        stop_on_nan=config.stop_on_nan,
        writes=strategy.processes.is_first,
    )
    # rounds keep their own
    kept = BufferUndo(module) if basis.share.nb == 1 and can_be_kept(module) else None
    windows = _plan_windows(config, module, run, basis, rows, epoch_schedules, kept)
    return FitPlan(
        config=config,
        module=module,
        run=run,
        hooks=basis.hooks,
        loader=basis.loader,
        nb_batches=run.nb_tng_batches,
        train_window=windows[0],
        sampled_window=windows[1],
        validation=basis.validation,
        sanity=None if resumed is not None else basis.sanity,
        epoch_schedules=epoch_schedules,
        rows=rows,
        loggers=loggers,
        saver=saver,
        rolling=rolling,
        resumed=resumed,
        seed=basis.seed,
        optimizers=basis.optimizers,
        schedules=basis.schedules,
        strategy=strategy,
        agreement=None if run.alone else Agreement(run, strategy.processes),
        window_start=WindowStart(module, run, loggers, basis.hooks, kept),
    )


def _begin_or_restore(
    config: Config, run: FitRun, callbacks: Sequence[Callback], saver: Saver, resumed: ResumedSave | None
) -> None:
    for callback in callbacks:
        callback.reset()
    if resumed is not None:
        saver.restore(resumed.checkpoint, resumed.path)
        _fuse(config, saver.optimizers)
        run.progress.forget_limits()
        for keeper in files.keepers_of(config) if resumed.folder is not None else ():
            keeper.go_on()


@dataclass(frozen=True, kw_only=True)
class Basis:
    """What the rest of a plan is built on: everything checked, the module in its place."""

    strategy: Strategy
    compiled: Compile
    share: Share
    """The virtual ranks that this process runs."""
    precision: Precision
    seed: int
    resumed: ResumedSave | None
    """The save that is resumed."""
    sizes: dict[str, int]
    """Of the training data."""
    optimizers: list[Optimizer]
    schedules: list[Schedule]
    hooks: Hooks
    loader: ReplayableLoader
    validation: EvaluationPlan | None
    sanity: EvaluationPlan | None


def _plan_basis(
    config: Config,
    module: LightningModule,
    run: FitRun,
    callbacks: Sequence[Callback],
    notices: Notices,
    strategy: Strategy,
    problems: list[Problem],
) -> Basis:
    problems = problems + checks.hook_problems(module, callbacks) + files.folder_problems(config)
    find = partial(find_save_to_resume, config, module, strategy.processes, notices)
    resumed = attempt(problems, find, keep_type=True)
    if resumed is not None and resumed.store is not None:
        run.on_failed_plan = resumed.store.close
    saved = None if resumed is None else resumed.checkpoint
    seed = saved["parts"]["data"]["seed"] if saved else torch.initial_seed() if config.seed is None else config.seed
    share = attempt(problems, lambda: plan_share(config, saved, strategy.processes)) or EVERYTHING
    precision = build_precision(config.precision, strategy.device)
    strategy.place(module, precision.dtype)
    compiled = build_compiler(config.compile, strategy.device, notices)
    if resumed is not None:
        # before the optimizers are made: a hook may put new parameters in the place of old ones
        attempt(problems, lambda: restore_checked(module, resumed), keep_type=True)
    attempt(problems, lambda: strategy.share_out(module))
    optimizers, schedules = _plan_optimizers(config, module, precision, strategy, problems)
    _fuse(config, optimizers)
    tng_loader = None
    if can_be_called(module, "tng_dataloader"):
        tng_loader = checks.reading(module, "tng_dataloader", lambda: module.tng_dataloader)
        problems += checks.training_loader_problems(tng_loader, config, checks.has_validation(module), share)
    problems += checks.saving_problems(module)
    hooks = hook_table(module, callbacks, run)
    looking = {**hooks, "on_evaluation_batch_end": (*hooks["on_evaluation_batch_end"], run.leave_validation_if_stopped)}
    arguments = {"strategy": strategy, "precision": precision, "seed": seed, "hooks": looking}
    arguments |= {"gather": config.gather_validation, "compiled": compiled}
    validation, sanity = attempt(problems, lambda: _plan_validation(config, module, arguments)) or (None, None)
    raise_together(problems)
    say_near_misses([module, *callbacks], notices)
    checks.say_probable_mistakes(module, tng_loader, optimizers, config, notices)

    length = length_of(tng_loader)
    nb_rounds = None if length is None else share.nb_rounds(length)
    run.nb_tng_batches = 1 if config.fast_dev_run else nb_checked(nb_rounds, config.train_percent_check)
    run.nb_val_batches = 0 if validation is None else validation.nb_batches
    return Basis(
        strategy=strategy,
        compiled=compiled,
        share=share,
        precision=precision,
        seed=seed,
        resumed=resumed,
        sizes=sizes_of(tng_loader),
        optimizers=optimizers,
        schedules=schedules,
        hooks=hooks,
        loader=plan_loader(tng_loader, seed, config, share, callbacks, notices),
        validation=validation,
        sanity=sanity,
    )


def _plan_files(
    config: Config, module: LightningModule, run: FitRun, notices: Notices, saver: Saver, resumed: ResumedSave | None
) -> tuple[LoggerGroup, RollingSaves]:
    """Where rows and rolling saves go: to the run that is resumed, or to a new one."""
    processes = saver.strategy.processes
    version = None if resumed is None else resumed.version
    loggers = files.open_loggers(config, module, run, notices, processes, version, run.progress.global_step)
    if resumed is not None and version is not None:
        loggers.load_state_dict(resumed.checkpoint["parts"]["loggers"])
    saver.parts["loggers"] = loggers
    wanted, own = config.resume is not None or config.save_every_nb_batches is not None, resumed and resumed.folder
    folder = files.folder_for_saves(config, module, run, own, wanted) if processes.is_first else None
    return loggers, RollingSaves(
        saver,
        run,
        notices,
        folder=processes.from_first(folder),
        job=job_of(os.environ),
        store=None if resumed is None else resumed.store,
        every_minutes=config.save_every_minutes,
        every_batches=config.save_every_nb_batches,
        from_the_start=config.resume is not None or resumed is not None,
    )


def _fuse(config: Config, optimizers: Sequence[Optimizer]) -> None:
    for optimizer in optimizers if config.fused_optimizers else ():
        use_fused(optimizer)


def _plan_saver(
    config: Config,
    module: LightningModule,
    run: FitRun,
    callbacks: Sequence[Callback],
    basis: Basis,
    epoch_schedules: EpochSchedules,
) -> Saver:
    """Everything that changes in a fit, as named parts."""
    parts: dict[str, Part] = {
        "progress": run.progress,
        "metrics": run.metrics,
        "precision": basis.precision,
        "callbacks": CallbacksPart(callbacks, run.notices),
        "data": DataPart(basis.loader, run, basis.seed, config.resume_check, basis.share.nb, basis.sizes),
        "epoch_schedules": epoch_schedules,
        "gradients": GradientsPart(module, basis.optimizers, basis.strategy),
        "random": RandomPart(),
        "versions": VersionsPart(run.notices),
    }
    return Saver(
        module=module,
        run=run,
        optimizers=basis.optimizers,
        schedules=basis.schedules,
        parts=parts,
        stop_on_nan=config.stop_on_nan,
        strategy=basis.strategy,
    )


def _plan_optimizers(
    config: Config, module: LightningModule, precision: Precision, strategy: Strategy, problems: list[Problem]
) -> tuple[list[Optimizer], list[Schedule]]:
    if not can_be_called(module, "configure_optimizers", "training_step"):
        return [], []
    if not any(True for _ in module.parameters()) and checks.unregistered(module):
        problems.append(checks.no_parameters(module))
        return [], []
    returned = checks.reading(module, "configure_optimizers", module.configure_optimizers)
    found = attempt(problems, lambda: read_optimizers(returned, config.lr_scheduler_milestones))
    if found is None:
        return [], []
    takes_optimizer = takes_one_more(module, "training_step")
    problems += checks.optimizer_problems(module, found[0], takes_optimizer, precision, strategy)
    return found


def _plan_validation(
    config: Config, module: LightningModule, arguments: dict[str, Any]
) -> tuple[EvaluationPlan | None, EvaluationPlan | None]:
    """The validation, and the few batches of it that are run before training."""
    if not can_be_called(module, "val_dataloader", "validation_step", "validation_end"):
        return None, None
    loaders = checks.reading(module, "val_dataloader", lambda: module.val_dataloader)
    raise_together(checks.iterator_problems(loaders))
    limit = 1 if config.fast_dev_run else None
    validation = plan_evaluation(
        "validation", module, loaders, limit=limit, percent=config.val_percent_check, **arguments
    )
    few = config.nb_sanity_val_steps
    return validation, plan_evaluation("sanity", module, loaders, limit=few, **arguments) if few else None


def _step_inputs(
    config: Config,
    module: LightningModule,
    run: FitRun,
    basis: Basis,
    rows: Rows,
    epoch_schedules: EpochSchedules,
    kept: BufferUndo | None,
) -> StepInputs:
    strategy, precision, hooks = basis.strategy, basis.precision, basis.hooks
    schedules = [build_step_schedule(s, run.metrics) for s in basis.schedules if s.interval == "step"]
    if epoch_schedules.waits_for_steps:
        schedules.append(epoch_schedules.note_steps)
    last = [_build_clock(run, config.max_seconds)] if config.max_seconds else []
    several = config.crash_bundle and config.accumulate_grad_batches != 1
    takes_optimizer = takes_one_more(module, "training_step")
    step = strategy.step_function(module, "training_step", takes_optimizer=takes_optimizer)
    return StepInputs(
        name=f"training_step of {type(module).__name__}",
        step=precision.forward(basis.compiled(step)),
        takes_optimizer=takes_optimizer,
        optimizers=basis.optimizers,
        precision=precision,
        to_device=strategy.transfer(precision.dtype),
        progress=run.progress,
        metrics=run.metrics,
        seed=basis.seed,
        on_device=strategy.device.type != "cpu",
        before_batch=(*([kept] if several and kept is not None else []), *hooks["on_batch_start"]),
        before_update=before_update(config, module, run, hooks, precision),
        before_clear=hooks["on_before_zero_grad"],
        after_batch=(rows.after_batch, *hooks["on_batch_end"], *last),
        schedules=schedules,
        optimizer_step=module.optimizer_step if is_overridden(module, "optimizer_step") else None,
        nonfinite=rows.nonfinite,
    )


def _plan_windows(
    config: Config,
    module: LightningModule,
    run: FitRun,
    basis: Basis,
    rows: Rows,
    epoch_schedules: EpochSchedules,
    kept: BufferUndo | None,
) -> tuple[TrainWindow, TrainWindow]:
    """The window function, and the same with its phases timed."""
    inputs = _step_inputs(config, module, run, basis, rows, epoch_schedules, kept)
    nb_before = run.progress.nb_optimizer_steps
    run.timings.begin(basis.strategy.device, lambda: run.progress.nb_optimizer_steps - nb_before)
    build: Callable[[StepInputs], TrainWindow] = build_train_window
    if basis.share.nb > 1:
        strategy, share = basis.strategy, basis.share
        in_order = adds_in_order(config.exact_elastic, share, strategy.processes.nb, config.accumulate_grad_batches)
        build = partial(build_round_window, strategy=strategy, share=share, module=module, in_order=in_order)
        build = partial(build, keeps=config.crash_bundle)
    return build(inputs), run.timings.sampling(build(with_timers(inputs, run.timings)))


def _build_clock(run: FitRun, max_seconds: float) -> Callable[[], None]:
    def watch_clock() -> None:
        if run.tick() >= max_seconds:
            run.stop(f"max_time reached ({max_seconds / 60:g} minutes)")

    return watch_clock


def all_callbacks(config: Config) -> tuple[Callback, ...]:
    """The callbacks of a fit in the order in which they are called: the bar comes last, the checkpoint before it."""
    bar = [ProgressBar(config.process_position, config.current_gpu_name)] if config.progress_bar else []
    profiler = [Profiler()] if config.profile else []
    chosen = [config.early_stop_callback, *config.callbacks, config.checkpoint_callback, *profiler, *bar]
    return tuple(callback for callback in chosen if callback is not None)
