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
from pytorch_lightning.resume.save_points import SavePoints
from pytorch_lightning.resume.saver import Saver
from pytorch_lightning.resume.window_start import WindowStart
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.run import files
from pytorch_lightning.run.hooks import Hooks, can_be_called, hook_table, is_overridden, say_near_misses, takes_one_more
from pytorch_lightning.run.progress import nb_checked
from pytorch_lightning.run.rows import Rows
from pytorch_lightning.run.run import FitRun
from pytorch_lightning.steps.buffers import BufferUndo, can_be_kept
from pytorch_lightning.steps.current_step import CurrentStep
from pytorch_lightning.steps.exact_sum import adds_in_order
from pytorch_lightning.steps.gradients import Gradients, before_update
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
    gradients: Gradients
    hooks: Hooks
    loader: ReplayableLoader
    validation: EvaluationPlan | None
    sanity: EvaluationPlan | None


@dataclass(frozen=True)
class FitRequest:
    """What every part of a plan is made from: the options, the module, and where it is trained."""

    config: Config
    module: LightningModule
    run: FitRun
    callbacks: Sequence[Callback]
    notices: Notices
    strategy: Strategy


def plan_fit(request: FitRequest, problems: list[Problem]) -> FitPlan:
    """Decide everything about a fit, and restore what ``config.resume`` holds. ``problems`` are those that were seen
    before.

    Raises one ``MisconfigurationException`` that lists every mistake that can be seen before the first batch.
    """
    try:
        basis = _plan_basis(request, problems)
        return _plan_on(request, basis)
    except BaseException:
        request.run.on_failed_plan()
        raise


def _plan_on(request: FitRequest, basis: Basis) -> FitPlan:
    config, module, run, strategy = request.config, request.module, request.run, request.strategy
    epoch_schedules = EpochSchedules(basis.schedules)
    saver = _plan_saver(request, basis, epoch_schedules)
    _begin_or_restore(request, saver, basis.resumed)
    if strategy.processes.is_first:
        files.make_folders(config)  # from here on: a start that fails leaves none behind
    loggers, rolling = _plan_files(request, saver, basis.resumed)
    rows = _plan_rows(request, basis, loggers)
    # rounds keep their own
    undo = BufferUndo(module) if basis.share.nb == 1 and can_be_kept(module) else None
    current = CurrentStep() if undo is None else CurrentStep(undo.by_name)
    inputs = _step_inputs(request, basis, rows, epoch_schedules, current, undo)
    train_window, sampled_window = _plan_windows(request, basis, inputs)
    window_start = WindowStart(module, run, loggers, basis.hooks, current, undo)
    agreement = None if run.wishes.alone else Agreement(run, strategy.processes)
    return FitPlan(
        config=config,
        module=module,
        run=run,
        hooks=basis.hooks,
        loader=basis.loader,
        nb_batches=run.nb_tng_batches,
        train_window=train_window,
        sampled_window=sampled_window,
        validation=basis.validation,
        sanity=None if basis.resumed is not None else basis.sanity,
        epoch_schedules=epoch_schedules,
        rows=rows,
        loggers=loggers,
        saver=saver,
        rolling=rolling,
        resumed=basis.resumed,
        seed=basis.seed,
        optimizers=basis.optimizers,
        schedules=basis.schedules,
        gradients=basis.gradients,
        strategy=strategy,
        current=current,
        window_start=window_start,
        save_points=SavePoints(
            config, run, rows, rolling, basis.loader, window_start, agreement=agreement, resumed=basis.resumed
        ),
    )


def _plan_rows(request: FitRequest, basis: Basis, loggers: LoggerGroup) -> Rows:
    config, strategy = request.config, request.strategy
    return Rows(
        request.run,
        loggers,
        basis.optimizers,
        basis.hooks,
        every=config.add_log_row_interval,
        save_every=config.log_save_interval,
        needed=needed_metrics(request.callbacks, basis.schedules),
        device=strategy.device,
        stop_on_nan=config.stop_on_nan,
        writes=strategy.processes.is_first,
    )


def _begin_or_restore(request: FitRequest, saver: Saver, resumed: ResumedSave | None) -> None:
    for callback in request.callbacks:
        callback.reset()
    if resumed is not None:
        saver.restore(resumed.checkpoint, resumed.path)
        _fuse(request.config, saver.optimizers)
        request.run.progress.forget_limits()
        for keeper in files.keepers_of(request.config) if resumed.folder is not None else ():
            keeper.resume(resumed.version)


def _plan_basis(request: FitRequest, problems: list[Problem]) -> Basis:
    config, module, run, callbacks = request.config, request.module, request.run, request.callbacks
    notices, strategy = request.notices, request.strategy
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
    attempt(problems, lambda: strategy.shard(module))
    optimizers, schedules = _plan_optimizers(request, precision, share, problems)
    _fuse(config, optimizers)
    tng_loader = _read_training_loader(request, share, problems)
    problems += checks.saving_problems(module)
    hooks = hook_table(module, callbacks, run)
    looking = {**hooks, "on_evaluation_batch_end": (*hooks["on_evaluation_batch_end"], run.leave_validation_if_stopped)}
    evaluate = partial(plan_evaluation, strategy=strategy, precision=precision, seed=seed, hooks=looking)
    evaluate = partial(evaluate, gather=config.gather_validation, compiled=compiled)
    validation, sanity = attempt(problems, lambda: _plan_validation(config, module, evaluate)) or (None, None)
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
        gradients=Gradients(module, optimizers, sized=length is not None),
        hooks=hooks,
        loader=plan_loader(tng_loader, seed, config, share, callbacks, notices),
        validation=validation,
        sanity=sanity,
    )


def _read_training_loader(request: FitRequest, share: Share, problems: list[Problem]) -> Any:
    module = request.module
    if not can_be_called(module, "tng_dataloader"):
        return None
    loader = checks.reading(module, "tng_dataloader", lambda: module.tng_dataloader)
    problems += checks.training_loader_problems(loader, request.config, checks.has_validation(module), share)
    return loader


def _plan_files(request: FitRequest, saver: Saver, resumed: ResumedSave | None) -> tuple[LoggerGroup, RollingSaves]:
    """Where rows and rolling saves go: to the run that is resumed, or to a new one."""
    config, module, run, notices = request.config, request.module, request.run, request.notices
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


def _plan_saver(request: FitRequest, basis: Basis, epoch_schedules: EpochSchedules) -> Saver:
    """Everything that changes in a fit, as named parts."""
    config, module, run = request.config, request.module, request.run
    parts: dict[str, Part] = {
        "progress": run.progress,
        "metrics": run.metrics,
        "precision": basis.precision,
        "callbacks": CallbacksPart(request.callbacks, run.notices),
        "data": DataPart(basis.loader, run, basis.seed, config.resume_check, basis.share.nb, basis.sizes),
        "epoch_schedules": epoch_schedules,
        "gradients": GradientsPart(module, basis.optimizers, basis.strategy, basis.gradients),
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
    request: FitRequest, precision: Precision, share: Share, problems: list[Problem]
) -> tuple[list[Optimizer], list[Schedule]]:
    module = request.module
    if not can_be_called(module, "configure_optimizers", "training_step"):
        return [], []
    if not any(True for _ in module.parameters()) and checks.unregistered(module):
        problems.append(checks.no_parameters(module))
        return [], []
    returned = checks.reading(module, "configure_optimizers", module.configure_optimizers)
    found = attempt(problems, lambda: read_optimizers(returned, request.config.lr_scheduler_milestones))
    if found is None:
        return [], []
    takes_optimizer = takes_one_more(module, "training_step")
    problems += checks.optimizer_problems(module, found[0], takes_optimizer, precision, request.strategy)
    problems += checks.sharing_problems(module, found[0], request.config, share)
    return found


def _plan_validation(
    config: Config, module: LightningModule, evaluate: Callable[..., EvaluationPlan]
) -> tuple[EvaluationPlan | None, EvaluationPlan | None]:
    """The validation, and the few batches of it that are run before training."""
    if not can_be_called(module, "val_dataloader", "validation_step", "validation_end"):
        return None, None
    loaders = checks.reading(module, "val_dataloader", lambda: module.val_dataloader)
    raise_together(checks.iterator_problems(loaders))
    limit = 1 if config.fast_dev_run else None
    validation = evaluate("validation", module, loaders, limit=limit, percent=config.val_percent_check)
    few = config.nb_sanity_val_steps
    return validation, evaluate("sanity", module, loaders, limit=few) if few else None


def _step_inputs(
    request: FitRequest,
    basis: Basis,
    rows: Rows,
    epoch_schedules: EpochSchedules,
    current: CurrentStep,
    undo: BufferUndo | None,
) -> StepInputs:
    config, module, run = request.config, request.module, request.run
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
        current=current,
        gradients=basis.gradients,
        metrics=run.metrics,
        seed=basis.seed,
        on_device=strategy.device.type != "cpu",
        before_batch=(*([undo] if several and undo is not None else []), *hooks["on_batch_start"]),
        before_update=before_update(config, module, run, hooks, precision, several=len(basis.optimizers) > 1),
        before_clear=hooks["on_before_zero_grad"],
        after_batch=(rows.after_batch, *hooks["on_batch_end"], *last),
        schedules=schedules,
        optimizer_step=module.optimizer_step if is_overridden(module, "optimizer_step") else None,
        nonfinite=rows.nonfinite,
    )


def _plan_windows(request: FitRequest, basis: Basis, inputs: StepInputs) -> tuple[TrainWindow, TrainWindow]:
    """The window function, and the same with its phases timed."""
    config, run = request.config, request.run
    nb_before = run.progress.nb_optimizer_steps
    run.timings.begin(basis.strategy.device, lambda: run.progress.nb_optimizer_steps - nb_before)
    build: Callable[[StepInputs], TrainWindow] = build_train_window
    if basis.share.nb > 1:
        strategy, share = basis.strategy, basis.share
        in_order = adds_in_order(config.exact_elastic, share, strategy.processes.nb, config.accumulate_grad_batches)
        build = partial(build_round_window, strategy=strategy, share=share, module=request.module, in_order=in_order)
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
