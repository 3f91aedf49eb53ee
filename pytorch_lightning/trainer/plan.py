"""Every choice of a fit, made once: options and a module become a ``FitPlan``.

First the ``Basis``: all checks, and what they look at. Then state is restored, files are opened, and the
functions of a step are built, by ``Optimization`` in optimization.py, which reads most options that concern a step.
"""

import copy
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch.optim import Optimizer

from pytorch_lightning.callbacks import Callback
from pytorch_lightning.checkpoints.checkpoint import Part
from pytorch_lightning.data.replayable import sizes_of
from pytorch_lightning.errors import Problem, attempt, raise_together
from pytorch_lightning.loggers.logger import LoggerGroup
from pytorch_lightning.options.config import Config
from pytorch_lightning.precision import build_precision
from pytorch_lightning.precision.precision import Precision
from pytorch_lightning.processes import EVERYTHING, Processes, Share
from pytorch_lightning.resume import fork
from pytorch_lightning.resume.attributes import AttributesPart
from pytorch_lightning.resume.epoch_length import EpochLength
from pytorch_lightning.resume.groups import GroupsPart
from pytorch_lightning.resume.modes import ModesPart
from pytorch_lightning.resume.own_generators import generators_of_data, generators_of_model
from pytorch_lightning.resume.parts import CallbacksPart, DataPart, GradientsPart, RandomPart, VersionsPart, load_part
from pytorch_lightning.resume.resuming import find_save_to_resume, job_of, place_weights
from pytorch_lightning.resume.rolling import RollingSaves
from pytorch_lightning.resume.save_points import SavePoints
from pytorch_lightning.resume.saver import Saver
from pytorch_lightning.resume.settings import SettingsPart
from pytorch_lightning.resume.window_start import WindowStart
from pytorch_lightning.run import files
from pytorch_lightning.run.hooks import Hooks, hook_table, say_near_misses, scopes
from pytorch_lightning.run.rows import Rows
from pytorch_lightning.steps.buffers import BufferUndo, can_be_kept
from pytorch_lightning.steps.current_step import CurrentStep
from pytorch_lightning.steps.gradients import Gradients
from pytorch_lightning.steps.optimizers import Schedule
from pytorch_lightning.steps.schedules import EpochSchedules, needed_metrics
from pytorch_lightning.strategies.compiled import build_compiler
from pytorch_lightning.trainer import checks
from pytorch_lightning.trainer.basis import Basis, FitRequest
from pytorch_lightning.trainer.evaluation import plan_evaluation
from pytorch_lightning.trainer.fit_plan import FitPlan
from pytorch_lightning.trainer.optimization import Optimization, fuse, plan_optimizers
from pytorch_lightning.trainer.placement import plan_share
from pytorch_lightning.trainer.skipping import Skips
from pytorch_lightning.trainer.training_data import (
    Counting,
    noting,
    plan_loader,
    plan_validation,
    read_training_loader,
    replaceable,
)

NONE = (None, None)
"""Neither a validation nor a sanity check."""


def plan_fit(request: FitRequest, problems: list[Problem]) -> FitPlan:
    """Decide everything about a fit, and restore what ``config.resume`` holds. ``problems`` are those that were seen
    before.

    Raises one ``MisconfigurationException`` that lists every mistake that can be seen before the first batch.
    """
    try:
        basis = plan_basis(request, problems)
        return _complete_plan(request, basis)
    except BaseException:
        request.run.on_failed_plan()
        raise


def _complete_plan(request: FitRequest, basis: Basis) -> FitPlan:
    """Restore what is resumed, open the files, build the functions of a step, and put all together."""
    config, module, run, strategy = request.config, request.module, request.run, request.strategy
    saver, optimization, reloading = restored(request, basis)
    if strategy.processes.is_first:
        files.make_folders(config)  # from here on: a start that fails leaves none behind
    loggers, rolling = _plan_files(request, saver, basis)
    if basis.resumed is not None:
        basis.resumed.forget_state()  # every part has its own by now
    rows = _plan_rows(request, basis, loggers)
    # a failed step gives buffers back; each virtual rank has its own, which steps/rounds.py keeps
    undo = BufferUndo(module) if basis.share.nb == 1 and can_be_kept(module) else None
    current = CurrentStep() if undo is None else CurrentStep(undo.by_name)
    optimization.build(rows, current, undo)
    window_start = WindowStart(module, run, loggers, basis.hooks, current, undo, basis.attributes)
    return FitPlan(
        config=config,
        module=module,
        run=run,
        hooks=basis.hooks,
        loader=noting(request, basis, rolling),
        optimization=optimization,
        windows=optimization.windows,
        attributes=basis.attributes,
        modes=basis.modes,
        random=saver.parts["random"],
        length=basis.length,
        validation=basis.validation,
        sanity=None if basis.resumed is not None else basis.sanity,
        epoch_schedules=optimization.epoch_schedules,
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
        skips=Skips(fork.ranges_of(saver.parts), run.progress, run.timings),
        averages=_averages_of(request.callbacks),
        reloading=reloading,
        save_points=SavePoints(
            config, run, rows, rolling, basis.loader, window_start, processes=strategy.processes, resumed=basis.resumed
        ),
    )


class Restored(NamedTuple):
    """What has the state of the save that is resumed, where there is one."""

    saver: Saver
    optimization: Optimization
    reloading: Any


def restored(request: FitRequest, basis: Basis) -> Restored:
    """The parts of a fit in the state in which it begins. No file is opened."""
    epoch_schedules = EpochSchedules(basis.schedules)
    groups = GroupsPart(request.module, basis.optimizers, request.run.notices)
    optimization = Optimization(request=request, basis=basis, groups=groups, epoch_schedules=epoch_schedules)
    saver = _plan_saver(request, basis, epoch_schedules, groups)
    return Restored(saver, optimization, _begin_or_restore(request, saver, basis, optimization))


def _averages_of(callbacks: Sequence[Callback]) -> list[Any]:
    """Those that average the weights: they are told apart without being imported."""
    return [callback for callback in callbacks if hasattr(callback, "average_for")]


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


def _plan_reloading(request: FitRequest, basis: Basis) -> Any:
    if not request.config.reload_dataloaders_every_nb_epochs:
        return None
    from pytorch_lightning.trainer.reloading import Reloading

    return Reloading(request, basis)


def _begin_or_restore(request: FitRequest, saver: Saver, basis: Basis, optimization: Optimization) -> Any:
    """Put every part into the state that it had in the save, where there is one. The module has its weights already.
    Returns what reads the loaders again."""
    resumed, reloading = basis.resumed, _plan_reloading(request, basis)
    for callback in request.callbacks:
        callback.reset()
    if resumed is not None:
        basis.settings.compare(resumed.checkpoint, resumed.path)
        _remake_groups(request, saver, basis, optimization)
        if reloading is not None:
            _load_early(saver, basis, "progress")
            reloading.follow(resumed.checkpoint["parts"].get("reloading"))
        saver.restore(resumed.checkpoint, resumed.path)
        basis.modes.restore()  # before the step is built: 'ddp' wraps it for the parameters that are trained
        basis.settings.check_lengths()
        fuse(request.config, saver.optimizers)
        request.run.progress.forget_limits()  # this start may have others
        for keeper in files.keepers_of(request.config) if resumed.folder is not None else ():
            keeper.resume(resumed.version)
    if reloading is not None:
        saver.parts["reloading"] = reloading
    return reloading


def _remake_groups(request: FitRequest, saver: Saver, basis: Basis, optimization: Optimization) -> None:
    """The groups that were added while training, and optimizers that ``configure_optimizers`` made again then."""
    assert basis.resumed is not None
    checkpoint, path = basis.resumed.checkpoint, basis.resumed.path

    def configure() -> None:
        _load_early(saver, basis, "progress", "attributes", "modes")
        basis.attributes.restore()
        basis.modes.restore()
        optimization.reconfigure()

    if "groups" in checkpoint["parts"]:
        optimization.groups.make_again(checkpoint["parts"]["groups"], path, configure)


def _load_early(saver: Saver, basis: Basis, *names: str) -> None:
    """Put back what user code may read before the rest is put back."""
    assert basis.resumed is not None
    for name in names:
        state = copy.deepcopy(basis.resumed.checkpoint["parts"][name])
        load_part(saver.parts[name], state, f"{basis.resumed.path}: {name}")


def plan_basis(request: FitRequest, problems: list[Problem]) -> Basis:
    """Check everything, and raise all ``problems`` together; bring the module to its device, with the weights that are
    resumed, and make the optimizers and the loaders. No folder of the run is made."""
    config, module, run, callbacks = request.config, request.module, request.run, request.callbacks
    notices, strategy = request.notices, request.strategy
    problems = problems + checks.hook_problems(module, callbacks) + files.folder_problems(config)
    resumed = attempt(problems, lambda: find_save_to_resume(config, module, strategy, notices), keep_type=True)
    if resumed is not None and resumed.store is not None:
        run.on_failed_plan = resumed.store.close
    saved = None if resumed is None else resumed.checkpoint
    seed = _seed_of(config, saved, strategy.processes)
    share = attempt(problems, lambda: plan_share(config, saved, strategy.processes)) or EVERYTHING
    problems += fork.problems(saved, config, module)
    precision = build_precision(config.precision, strategy.device)
    strategy.place(module, precision.dtype)
    modes, attributes = ModesPart(module, notices), AttributesPart(module, callbacks, notices, strategy)
    compiled = build_compiler(config.compile, strategy.device, notices)
    place_weights(module, resumed, strategy, problems)
    optimizers, schedules, tng_loader = _plan_training(request, precision, seed, share, attributes, problems)
    problems += checks.saving_problems(module) + checks.problems_of_several(module, config, strategy)
    hooks = hook_table(module, callbacks, run)
    evaluate = partial(plan_evaluation, strategy=strategy, precision=precision, seed=seed, compiled=compiled)
    validate = _validating(request, share, hooks, evaluate)
    validation, sanity = attempt(problems, lambda: validate(tng_loader)) or NONE
    raise_together(problems)
    say_near_misses([module, *callbacks], notices)
    checks.say_probable_mistakes(module, tng_loader, optimizers, config, notices)
    length = EpochLength(tng_loader, config, share, run, strategy.processes)
    run.note_lengths(length.at(0), 0 if validation is None else validation.nb_batches)
    return Basis(
        strategy=strategy,
        compiled=compiled,
        share=share,
        precision=precision,
        seed=seed,
        resumed=resumed,
        length=length,
        attributes=attributes,
        modes=modes,
        settings=SettingsPart(config, run, optimizers, schedules),
        generators=generators_of_model(module, callbacks, tng_loader),
        sizes=sizes_of(tng_loader),
        optimizers=optimizers,
        schedules=schedules,
        gradients=Gradients(module, optimizers),
        hooks=hooks,
        loader=replaceable(request, plan_loader(request, tng_loader, seed, share, attributes.data)),
        validation=validation,
        sanity=sanity,
        validate=validate,
    )


def _validating(request: FitRequest, share: Share, hooks: Hooks, evaluate: Callable[..., Any]) -> Callable[[Any], Any]:
    """Plans the validations beside a training loader, whenever it is called."""
    run, name = request.run, "on_evaluation_batch_end"
    watched = {**hooks, name: (*hooks[name], run.leave_validation_if_stopped)}
    around = scopes(request.callbacks, "around_evaluation", run)
    return partial(plan_validation, request, share, partial(evaluate, hooks=watched, around=around))


def _seed_of(config: Config, saved: dict[str, Any] | None, processes: Processes) -> int:
    seed = torch.initial_seed() if config.seed is None else config.seed
    # a program may have seeded each process differently
    return int(processes.from_first(seed if saved is None else saved["parts"]["data"]["seed"]))


def _plan_training(
    request: FitRequest,
    precision: Precision,
    seed: int,
    share: Share,
    attributes: AttributesPart,
    problems: list[Problem],
) -> tuple[list[Optimizer], list[Schedule], Any]:
    why = request.strategy.resumes_otherwise
    if why:
        request.notices.say("other-bits", f"a resumed run may differ in its last bits: {why}")
    for callback in request.callbacks:
        attempt(problems, partial(callback.before_optimizers, request.module))
    request.run.counting = Counting(request, share)  # configure_optimizers may ask how long the fit will be
    optimizers, schedules = plan_optimizers(request, precision, share, problems)
    loader = read_training_loader(request, share, attributes, problems)
    if not request.module.automatic_optimization:
        from pytorch_lightning.trainer.manual import manual_problems

        problems += manual_problems(request, share, optimizers, loader)
    if _averages_of(request.callbacks):
        from pytorch_lightning.trainer.averaging import prepare_averages

        prepare_averages(request, loader, precision, seed, share, problems)
    return optimizers, schedules, loader


def _generators_of_data(basis: Basis) -> list[Any]:
    evaluated = () if basis.validation is None else basis.validation.loaders
    return generators_of_data(basis.loader, *(loader for loader, *_ in evaluated))


def _plan_files(request: FitRequest, saver: Saver, basis: Basis) -> tuple[LoggerGroup, RollingSaves]:
    """Where rows and rolling saves go: to the run that is resumed, or to a new one."""
    config, module, run, notices = request.config, request.module, request.run, request.notices
    processes, resumed, hparams = saver.strategy.processes, basis.resumed, basis.settings.hparams
    version = None if resumed is None else resumed.version
    state = None if resumed is None or version is None else resumed.checkpoint["parts"]["loggers"]
    loggers = files.open_loggers(config, module, run, hparams, processes, version, run.progress.global_step, state)
    saver.parts["loggers"] = loggers  # the one part that isn't there when the others are restored
    own = None if resumed is None else resumed.folder  # of a run that is resumed in its own folder
    from_the_start = config.saves_from_the_start or own is not None
    wanted = from_the_start or config.save_every_nb_batches is not None
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
        from_the_start=from_the_start,
        keep=config.saves_kept,
    )


def _plan_saver(request: FitRequest, basis: Basis, epoch_schedules: EpochSchedules, groups: GroupsPart) -> Saver:
    """What changes in a fit, as named parts. Module, optimizers and schedules are the saver's own, and the loggers
    become a part in ``_plan_files``."""
    config, module, run = request.config, request.module, request.run
    run.metrics.module, run.metrics.mine = module, basis.share.mine
    parts: dict[str, Part] = {
        "progress": run.progress,
        "metrics": run.metrics,
        "precision": basis.precision,
        "callbacks": CallbacksPart(request.callbacks, run.notices),
        "data": DataPart(
            basis.loader,
            run,
            basis.seed,
            config.resume_check,
            basis.share,
            basis.sizes,
            basis.length,
            basis.strategy.processes,
        ),
        "attributes": basis.attributes,
        "modes": basis.modes,
        "groups": groups,
        "settings": basis.settings,
        "epoch_schedules": epoch_schedules,
        "gradients": GradientsPart(module, basis.optimizers, basis.strategy, basis.gradients),
        "random": RandomPart(
            basis.generators,
            partial(_generators_of_data, basis),
            run.notices,
            early=config.resume is not None,
            always=config.resume is not None or config.save_every_nb_batches is not None,
        ),
        "versions": VersionsPart(run.notices),
        **fork.part_of(basis.resumed, run.notices),
    }
    return Saver(
        module=module,
        run=run,
        optimizers=basis.optimizers,
        schedules=basis.schedules,
        parts=parts,
        stop_on_nan=config.stop_on_nan,
        strategy=basis.strategy,
        own_data=basis.share.own and basis.strategy.processes.nb > 1,
        around=scopes(request.callbacks, "around_save", run),
    )
