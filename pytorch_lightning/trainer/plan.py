"""Every choice of a fit, made once: options and a module become a ``FitPlan``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.optim import Optimizer

from pytorch_lightning.callbacks import Callback, ProgressBar
from pytorch_lightning.checkpoints.checkpoint import Part
from pytorch_lightning.data.replay import ReplayableLoader, is_distributed, length_of, replayable
from pytorch_lightning.data.sharing import RoundsLoader
from pytorch_lightning.errors import Notices, Problem, raise_together
from pytorch_lightning.loggers.logger import LoggerGroup
from pytorch_lightning.precision import build_precision
from pytorch_lightning.precision.precision import Precision
from pytorch_lightning.processes import Share
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.strategies import Strategy
from pytorch_lightning.trainer import checks, files
from pytorch_lightning.trainer.agreement import Agreement
from pytorch_lightning.trainer.config import Config
from pytorch_lightning.trainer.evaluation import EvaluationPlan, plan_evaluation
from pytorch_lightning.trainer.exact_sum import adds_in_order
from pytorch_lightning.trainer.gradients import before_update
from pytorch_lightning.trainer.hooks import Hooks, hook_table, is_overridden, say_near_misses, takes_one_more
from pytorch_lightning.trainer.optimizers import Schedule, read_optimizers
from pytorch_lightning.trainer.placement import plan_share
from pytorch_lightning.trainer.progress import NEVER, Progress, nb_checked, validation_batches
from pytorch_lightning.trainer.rounds import build_round_window
from pytorch_lightning.trainer.rows import Rows
from pytorch_lightning.trainer.run import FitRun
from pytorch_lightning.trainer.saving import CallbacksPart, DataPart, RandomPart, Saver, read_for_resume, restore_module
from pytorch_lightning.trainer.schedules import EpochSchedules, build_step_schedule
from pytorch_lightning.trainer.step import StepParts, TrainWindow, build_train_window


@dataclass(frozen=True, kw_only=True)
class FitPlan:
    """What the loop reads. Nothing in it is decided while training runs."""

    config: Config
    module: LightningModule
    run: FitRun
    hooks: Hooks
    loader: ReplayableLoader
    nb_batches: int | None
    train_window: TrainWindow
    validation: EvaluationPlan | None
    sanity: EvaluationPlan | None
    epoch_schedules: EpochSchedules
    rows: Rows
    loggers: LoggerGroup
    saver: Saver
    seed: int
    optimizers: Sequence[Optimizer]
    schedules: Sequence[Schedule]
    strategy: Strategy
    agreement: Agreement | None
    progress: Progress = field(init=False)
    most_steps: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "progress", self.run.progress)
        object.__setattr__(self, "most_steps", self.config.max_nb_steps or NEVER)

    def call(self, name: str, *arguments: Any) -> None:
        """Call everybody who overrides the hook ``name``."""
        for hook in self.hooks[name]:
            hook(*arguments)

    def is_complete(self) -> bool:
        """Whether training is to end here, between two epochs."""
        if self.progress.epoch >= self.config.max_nb_epochs and not self.progress.stop_reason:
            self.progress.stop_reason = "max_nb_epochs reached"
        return bool(self.progress.stop_reason)

    def validates(self, epoch: int) -> bool:
        """Whether ``epoch`` has validations."""
        return self.validation is not None and (epoch + 1) % self.config.check_val_every_n_epoch == 0

    def validation_batches(self, epoch: int) -> Sequence[int]:
        """The values of ``batch_nb`` after which to validate in ``epoch``."""
        if not self.validates(epoch):
            return ()
        if self.config.fast_dev_run:
            return (1,)
        return validation_batches(self.nb_batches, self.config.val_check_interval)

    def ended_unchecked(self) -> bool:
        """Whether an epoch that ended early, or whose length wasn't known, still has its validation to come."""
        return self.progress.batch_nb > self.progress.validated_batch and self.validates(self.progress.epoch)

    def learn_names(self, metrics: dict[str, float | int]) -> None:
        """Take note of what a sanity validation gave; its numbers aren't kept."""
        self.rows.validation_names = tuple(metrics)

    def take_validation(self, metrics: dict[str, float | int]) -> None:
        """Keep the numbers of a validation, log them, and step the schedules that watch them."""
        self.run.metrics.validation = metrics
        self.rows.write_validation(metrics)
        self.epoch_schedules.note_validation()

    def step_epoch_schedules(self) -> None:
        """Step the schedules that count epochs."""
        self.epoch_schedules.step(self.run.metrics)

    def at_save_point(self) -> None:
        """State is whole here: write what was asked for, and see whether a limit is reached."""
        run, progress = self.run, self.progress
        run.asked = False
        if progress.nb_optimizer_steps >= self.most_steps:
            run.stop(f"max_nb_steps reached ({self.most_steps})")
            run.asked = False
        if self.agreement is not None:
            self.agreement.settle()
        progress.stop_reason = progress.stop_reason or run.stop_wanted
        if self.run.requests:
            self.rows.check_losses()
            self.saver.save_requested()


def plan_fit(
    config: Config,
    module: LightningModule,
    run: FitRun,
    callbacks: Sequence[Callback],
    notices: Notices,
    strategy: Strategy,
) -> FitPlan:
    """Decide everything about a fit of ``module``, and restore what ``config.resume`` holds.

    Raises one ``MisconfigurationException`` that lists every mistake that can be seen before the first batch.
    """
    basis = _plan_basis(config, module, run, callbacks, notices, strategy)
    loggers = files.open_loggers(config, module, run, notices, strategy.processes)
    rows = Rows(
        run,
        loggers,
        basis.optimizers,
        basis.hooks,
        every=config.add_log_row_interval,
        save_every=config.log_save_interval,
        needed=_needed_metrics(callbacks, basis.schedules),
        device=strategy.device,
        stop_on_nan=config.stop_on_nan,
        writes=strategy.processes.is_first,
    )
    epoch_schedules = EpochSchedules(basis.schedules)
    saver = _plan_saver(config, module, run, callbacks, basis, epoch_schedules)
    if basis.saved is not None:
        saver.restore(basis.saved, str(config.resume))
        run.progress.forget_limits()
    agreement = None if run.alone else Agreement(run, strategy.processes)
    parts = _step_parts(config, module, run, basis, rows, epoch_schedules, agreement)
    nb_processes = strategy.processes.nb
    in_order = adds_in_order(config.exact_elastic, basis.share, nb_processes, config.accumulate_grad_batches)
    return FitPlan(
        config=config,
        module=module,
        run=run,
        hooks=basis.hooks,
        loader=basis.loader,
        nb_batches=run.nb_tng_batches,
        train_window=build_train_window(parts)
        if basis.share.nb == 1
        else build_round_window(parts, strategy, basis.share, module, in_order),
        validation=basis.validation,
        sanity=None if basis.saved is not None else basis.sanity,
        epoch_schedules=epoch_schedules,
        rows=rows,
        loggers=loggers,
        saver=saver,
        seed=basis.seed,
        optimizers=basis.optimizers,
        schedules=basis.schedules,
        strategy=strategy,
        agreement=agreement,
    )


@dataclass(frozen=True, kw_only=True)
class Basis:
    """What the rest of a plan is built on: everything checked, the module in its place."""

    strategy: Strategy
    share: Share
    """The virtual ranks that this process runs."""
    precision: Precision
    seed: int
    saved: dict[str, Any] | None
    """The checkpoint that is continued."""
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
) -> Basis:
    say_near_misses(module, notices)
    raise_together(checks.hook_problems(module) + checks.folder_problems(config))
    saved = None if config.resume is None else read_for_resume(config.resume)
    seed = saved["parts"]["data"]["seed"] if saved else torch.initial_seed() if config.seed is None else config.seed
    share = plan_share(config, saved, strategy.processes)
    precision = build_precision(config.precision, strategy.device)
    strategy.place(module, precision.dtype)
    if saved is not None:
        # before the optimizers are made: a hook may put new parameters in the place of old ones
        restore_module(module, saved, str(config.resume))
    strategy.share_out(module)
    problems: list[Problem] = []
    optimizers, schedules = _plan_optimizers(config, module, precision, strategy, problems)
    tng_loader = module.tng_dataloader
    problems += checks.loader_problems(tng_loader, config, share) + checks.saving_problems(module)
    hooks = hook_table(module, callbacks, run)
    arguments = {"strategy": strategy, "precision": precision, "seed": seed, "hooks": hooks}
    arguments["gather"] = config.gather_validation
    validation, sanity = checks.attempt(problems, lambda: _plan_validation(config, module, arguments)) or (None, None)
    raise_together(problems)
    checks.say_probable_mistakes(module, tng_loader, optimizers, config, notices)

    length = length_of(tng_loader)
    nb_rounds = None if length is None else share.nb_rounds(length)
    run.nb_tng_batches = 1 if config.fast_dev_run else nb_checked(nb_rounds, config.train_percent_check)
    run.nb_val_batches = 0 if validation is None else validation.nb_batches
    return Basis(
        strategy=strategy,
        share=share,
        precision=precision,
        seed=seed,
        saved=saved,
        optimizers=optimizers,
        schedules=schedules,
        hooks=hooks,
        loader=_plan_loader(tng_loader, seed, config, share, notices),
        validation=validation,
        sanity=sanity,
    )


def _plan_loader(loader: Any, seed: int, config: Config, share: Share, notices: Notices) -> ReplayableLoader:
    if share.nb > 1 and is_distributed(loader):
        notices.say("distributed-sampler", "the DistributedSampler is replaced: batches are dealt out to processes")
    replay = replayable(loader, seed, 0, in_order=bool(config.overfit_pct), share=share)
    return replay if share.nb == 1 else RoundsLoader(replay, share)


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
        "callbacks": CallbacksPart(callbacks),
        "data": DataPart(basis.loader, run, basis.seed, config.resume_check, basis.share.nb),
        "epoch_schedules": epoch_schedules,
        "random": RandomPart(),
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
    found = checks.attempt(
        problems, lambda: read_optimizers(module.configure_optimizers(), config.lr_scheduler_milestones)
    )
    if found is None:
        return [], []
    takes_optimizer = takes_one_more(module, "training_step")
    problems += checks.optimizer_problems(found[0], takes_optimizer, precision, strategy)
    return found


def _plan_validation(
    config: Config, module: LightningModule, arguments: dict[str, Any]
) -> tuple[EvaluationPlan | None, EvaluationPlan | None]:
    """The validation, and the few batches of it that are run before training."""
    if not checks.has_validation(module):
        return None, None
    loaders = module.val_dataloader
    limit = 1 if config.fast_dev_run else None
    validation = plan_evaluation(
        "validation", module, loaders, limit=limit, percent=config.val_percent_check, **arguments
    )
    few = config.nb_sanity_val_steps
    return validation, plan_evaluation("sanity", module, loaders, limit=few, **arguments) if few else None


def _needed_metrics(callbacks: Sequence[Callback], schedules: Sequence[Schedule]) -> dict[str, str]:
    """The metrics that somebody can't do without, and who that is."""
    needed = {s.monitor: type(s.scheduler).__name__ for s in schedules if s.monitor is not None}
    for callback in callbacks:
        name = callback.needed_metric()
        if name is not None:
            needed[name] = type(callback).__name__
    return needed


def _step_parts(
    config: Config,
    module: LightningModule,
    run: FitRun,
    basis: Basis,
    rows: Rows,
    epoch_schedules: EpochSchedules,
    agreement: Agreement | None,
) -> StepParts:
    strategy, precision, hooks = basis.strategy, basis.precision, basis.hooks
    schedules = [build_step_schedule(s, run.metrics) for s in basis.schedules if s.interval == "step"]
    if epoch_schedules.waits_for_steps:
        schedules.append(epoch_schedules.note_steps)
    last: list[Callable[[], None]] = [_build_clock(run, config.max_seconds)] if config.max_seconds else []
    if agreement is not None:
        last.append(agreement.after_batch)
    takes_optimizer = takes_one_more(module, "training_step")
    step = strategy.step_function(module, "training_step", takes_optimizer=takes_optimizer)
    return StepParts(
        name=f"training_step of {type(module).__name__}",
        step=precision.forward(step),
        takes_optimizer=takes_optimizer,
        optimizers=basis.optimizers,
        precision=precision,
        to_device=strategy.transfer(precision.dtype),
        progress=run.progress,
        metrics=run.metrics,
        seed=basis.seed,
        on_device=strategy.device.type != "cpu",
        before_batch=hooks["on_batch_start"],
        before_update=before_update(config, module, run, hooks, precision),
        before_clear=hooks["on_before_zero_grad"],
        after_batch=(rows.after_batch, *hooks["on_batch_end"], *last),
        schedules=schedules,
        optimizer_step=module.optimizer_step if is_overridden(module, "optimizer_step") else None,
        nonfinite=rows.nonfinite,
    )


def _build_clock(run: FitRun, max_seconds: float) -> Callable[[], None]:
    def watch_clock() -> None:
        if run.tick() >= max_seconds:
            run.stop(f"max_time reached ({max_seconds / 60:g} minutes)")

    return watch_clock


def all_callbacks(config: Config) -> tuple[Callback, ...]:
    """The callbacks of a fit in the order in which they are called: the bar comes last, the checkpoint before it."""
    bar = [ProgressBar(config.process_position, config.current_gpu_name)] if config.progress_bar else []
    chosen = [config.early_stop_callback, *config.callbacks, config.checkpoint_callback, *bar]
    return tuple(callback for callback in chosen if callback is not None)
