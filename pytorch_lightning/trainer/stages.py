"""Runs around the loop: the notices before and after a fit, and validate, test and predict."""

import os
import re
import signal
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.errors import CheckpointError, MisconfigurationException, Problem, raise_together
from pytorch_lightning.faults import fault
from pytorch_lightning.launchers.environment import is_loss_of_another
from pytorch_lightning.launchers.signals import RUN_AGAIN, Stopped, Watch
from pytorch_lightning.launchers.slurm import is_batch_job, requeue
from pytorch_lightning.options.config import Config
from pytorch_lightning.precision import build_precision
from pytorch_lightning.precision.precision import Precision
from pytorch_lightning.printing import tell
from pytorch_lightning.processes import Processes
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.root_module.summary import summarize
from pytorch_lightning.run import files
from pytorch_lightning.run.hooks import hook_table, is_overridden, missing, scopes, wrongly_signed
from pytorch_lightning.run.metrics import at
from pytorch_lightning.run.progress import FORGOTTEN, INTERRUPTED
from pytorch_lightning.run.run import FitRun
from pytorch_lightning.strategies import Strategy
from pytorch_lightning.strategies.compiled import build_compiler
from pytorch_lightning.timings import hint
from pytorch_lightning.trainer.basis import FitRequest
from pytorch_lightning.trainer.evaluation import names_of, plan_evaluation
from pytorch_lightning.trainer.explaining import explain
from pytorch_lightning.trainer.fit_plan import FitPlan
from pytorch_lightning.trainer.fit_result import FitResult
from pytorch_lightning.trainer.loop import run_evaluation

PREDICTED = re.compile(r"\d{8,}\.pt")
"""What the files of a prediction are called."""


def plan(request: FitRequest, problems: list[Problem]) -> FitPlan:
    """The plan of a fit; what makes it is much of the library, and is imported when a fit needs it."""
    from pytorch_lightning.trainer.plan import plan_fit

    return plan_fit(request, problems)


def announce(plan: FitPlan, options: Mapping[str, Any], given: Mapping[str, str | None]) -> None:
    """Say what is about to run: in the files of the run, and in the summary, then one line."""
    processes = plan.strategy.processes
    if processes.is_first:
        from pytorch_lightning.trainer.run_files import note_start

        note_start(plan, options, given)
    if not plan.config.print_weights_summary or not processes.is_first:
        return
    if plan.strategy.runs_together:  # sizes would need a forward pass, in which everybody takes part
        tell(summarize(plan.module, None))
    else:
        plan.module.summarize()
    folder = next((logger.folder for logger in plan.loggers.loggers if logger.folder is not None), None)
    device = plan.strategy.device
    together = f"in {processes.nb} {device.type.upper()} processes ({plan.strategy.name})"
    tell(
        f"training {together if processes.nb > 1 else f'on {device}'}"
        + f", precision {plan.config.precision}, seed {plan.seed}"
        + (f", files in {folder}" if folder is not None else ", no files"),
    )


def note_place(error: Exception, run: FitRun) -> None:
    """Add to an exception where in the fit it was raised, unless it says so itself, and what is known to help."""
    explain(error)
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith("raised while fitting")]
    if not notes and at(run.progress) not in str(error):
        error.add_note(f"raised while fitting {type(run.module).__name__} {at(run.progress)}")
    if not run.wishes.alone and is_loss_of_another(error):
        error.add_note("another process of this run has ended or hangs: see its own traceback, or its stacks")
        if run.nb_tng_batches in (None, run.progress.batch_nb + 1):
            error.add_note(
                "with uneven_batches='wait' a step that exchanges something itself (all_gather in a loss, say) hangs in"
                " the last round of an epoch, where some processes may have no batch: pass 'repeat' or 'drop'"
            )


def finish_fit(plan: FitPlan, failed: bool) -> None:
    """The end of a fit, however it came about: the last hooks, and everything on the disk."""
    run, ended_well = plan.run, False
    run.tick()
    run.timings.end_training()
    try:
        plan.call("on_fit_end")
        if not failed:
            plan.save_points.reach(validates=run.interrupted)  # one that is due is the next start's
            fault("fit.last")
            with run.timings.measuring("saving"):
                plan.rolling.end(interrupted=run.interrupted)
            plan.strategy.unshard(plan.module)
            for callback in plan.averages:
                callback.make_whole(run)
        ended_well = True
    except Exception as error:
        note_place(error, run)
        raise
    finally:
        plan.end_workers()
        plan.rolling.close(failed)
        with run.timings.measuring("logging"):
            plan.loggers.close()
        run.timings.end()
        if plan.strategy.processes.is_first:
            from pytorch_lightning.trainer.run_files import note_end

            note_end(plan, failed or not ended_well)
    fault("fit.end")
    if not plan.strategy.processes.is_first:
        return
    if plan.config.print_weights_summary and not failed:
        tell(run.timings)
        advice = hint(run.timings.seconds, plan.loader.nb_workers)
        if advice is not None:
            run.notices.say("slow-data", advice)
    if not failed and not run.interrupted:
        say_what_was_complete(plan)
    if run.metrics.nb_nonfinite and not failed:
        tell(f"{run.metrics.nb_nonfinite} losses weren't finite")
    if run.progress.stop_reason == f"{INTERRUPTED}SIGINT":
        tell("interrupted: training isn't complete")


def say_what_was_complete(plan: FitPlan) -> None:
    """If a fit resumed a run that had nothing left to train, report it: another run may have been intended."""
    reason, resumed = plan.run.progress.stop_reason, plan.resumed
    by_limit = reason.startswith(FORGOTTEN)  # a stop by a callback was said already
    if resumed is None or not by_limit or plan.run.progress.global_step > resumed.checkpoint["global_step"]:
        return
    plan.run.notices.say_again(
        "already-complete",
        f"{resumed.path} is of a run that was complete ({reason}): its weights are there, and nothing was trained."
        " Raise the limit to resume it; for a separate run give the fit its own default_save_path, or its"
        " Experiment another name",
    )


def stop_program(plan: FitPlan, watch: Watch) -> None:
    """After a signal, with everything on disk: requeue the cluster's job, print how to resume, and exit. After
    Ctrl-C do nothing, so that ``fit`` returns; but a fit within another one ends that too."""
    run, processes = plan.run, plan.strategy.processes
    number = signal.Signals[run.progress.stop_reason.removeprefix(INTERRUPTED)]
    if watch.is_inner:
        raise Stopped
    if number != signal.SIGINT and processes.is_first:
        how = f"run the same command with {plan.rolling.resuming()} to resume"
        if plan.rolling.folder is None:
            how = "nothing was saved, since this run has no folder"
        elif not plan.rolling.has_begun:
            how = "nothing is lost, since training hadn't begun: run the same command again"
            files.remove_unused(plan.config, run)
        if plan.rolling.folder is not None and is_batch_job(os.environ):
            how = requeue(os.environ, how)
        tell(f"stopped by {number.name} (global_step {run.progress.global_step}): {how}")
    processes.wait()  # who starts them may end all when one has ended
    watch.chain(number)
    if number != signal.SIGINT:
        raise Stopped(RUN_AGAIN if plan.rolling.folder is not None else 128 + number)


def run_stage(
    stage: str,
    config: Config,
    run: FitRun,
    callbacks: Sequence[Callback],
    strategy: Strategy,
    fit_plan: FitResult | None,
    ckpt: Any,
    loader: Any,
    write_to: Any,
    overwrite: bool = False,
) -> Any:
    """One pass of ``stage`` ('validation', 'test' or 'predict'); see ``Trainer.test``."""
    module = run.module
    raise_together(_problems(module, stage, loader))
    precision = build_precision(config.precision, strategy.device)
    strategy.place(module, precision.dtype)
    with _weights(module, ckpt, callbacks, strategy.processes):
        result = _run_placed(stage, config, run, callbacks, strategy, precision, loader, write_to, overwrite)
    if stage == "predict":
        return [] if write_to is not None else result
    log_result(fit_plan, run, result)
    return result


def _weights(
    module: LightningModule, ckpt: Any, callbacks: Sequence[Callback], processes: Processes
) -> AbstractContextManager[None]:
    """The scope of a pass with the weights of ``ckpt``."""
    if ckpt is None:
        return nullcontext()
    from pytorch_lightning.trainer.averaging import Average, chosen_weights

    average = isinstance(ckpt, Average)
    ckpt = ckpt.ckpt if average else ckpt
    path = path_of(ckpt, callbacks)
    processes.wait()  # rank 0 may still be writing it
    return chosen_weights(module, path, average, callbacks)


def _run_placed(
    stage: str,
    config: Config,
    run: FitRun,
    callbacks: Sequence[Callback],
    strategy: Strategy,
    precision: Precision,
    loader: Any,
    write_to: Any,
    overwrite: bool,
) -> Any:
    """The pass, with a module that has its weights and is on its device."""
    module = run.module
    strategy.shard(module)
    if loader is None:
        with strategy.processes.first_here_first():  # it may download
            loader = module.val_dataloader if stage == "validation" else module.test_dataloader
    percent = {"validation": config.val_percent_check, "test": config.test_percent_check}.get(stage, 1.0)
    plan = plan_evaluation(
        stage,
        module,
        loader,
        strategy=strategy,
        precision=precision,
        seed=strategy.processes.from_first(torch.initial_seed() if config.seed is None else config.seed),
        hooks=hook_table(module, callbacks, run),
        around=scopes(callbacks, "around_evaluation", run),
        limit=1 if config.fast_dev_run else None,
        most={"validation": config.max_nb_val_batches, "test": config.max_nb_test_batches}.get(stage),
        percent=percent,
        outputs_to=_writer(Path(write_to)) if write_to is not None else None,
        to_cpu=stage == "predict",
        gather=config.gather_validation or stage == "predict",
        compiled=build_compiler(config.compile, strategy.device, run.notices),
        own=config.data_is_sharded,
        repeats=config.uneven_batches != "wait",
        notices=run.notices,
    )
    if write_to is not None:
        _prepare_folder(Path(write_to), overwrite, strategy.processes)
    try:
        result = run_evaluation(plan, 0)
    finally:
        plan.close()
    strategy.unshard(module)
    return result


def log_result(fit_plan: FitResult | None, run: FitRun, result: dict[str, float | int]) -> None:
    """Show ``result``, and add a row with it to the files of the fit of that module, if there was one."""
    run.metrics.evaluated.update(result)
    if fit_plan is not None and fit_plan.module is run.module:
        fit_plan.rows.write_validation(result)
        fit_plan.loggers.close()


def _problems(module: LightningModule, stage: str, loader: Any) -> list[Any]:
    step = names_of(module, stage)[0]
    loader_name = "val_dataloader" if stage == "validation" else "test_dataloader"
    if stage == "predict":
        wanted = [loader_name] if loader is None else []
        if not is_overridden(module, "predict_step"):
            wanted.append("forward")
    else:
        wanted = [loader_name, step]
    return missing(module, wanted) + wrongly_signed(module)


def path_of(ckpt: Any, callbacks: Sequence[Callback]) -> Any:
    """The path that ``ckpt`` means, 'best' being the one that a ModelCheckpoint kept; of an ``Average`` the same with
    its path, and None of None."""
    if ckpt is None:
        return None
    if hasattr(ckpt, "ckpt"):
        return ckpt._replace(ckpt=path_of(ckpt.ckpt, callbacks))
    if ckpt != "best":
        return str(ckpt)
    keeper = next((c for c in callbacks if isinstance(c, ModelCheckpoint)), None)
    if keeper is None or keeper.best_path is None:
        raise CheckpointError(
            "ckpt='best' needs a ModelCheckpoint that has saved something in this Trainer's fit."
            " Pass checkpoint_callback=ModelCheckpoint(folder), or a path."
        )
    return keeper.best_path


def _prepare_folder(folder: Path, overwrite: bool, processes: Processes) -> None:
    """Make ``folder`` ready for a prediction, before any process writes there."""
    problem = None
    if processes.is_first:
        folder.mkdir(parents=True, exist_ok=True)
        there = sorted(path for path in folder.iterdir() if PREDICTED.fullmatch(path.name))
        if there and not overwrite:
            problem = (
                f"{folder} holds an earlier prediction ({len(there)} files, {there[0].name} the first)."
                " Pass another folder as write_to, or overwrite=True to remove it."
            )
        for path in there if overwrite else ():
            path.unlink()
    problem = processes.from_first(problem)
    if problem is not None:
        raise MisconfigurationException(problem)


def _writer(folder: Path) -> Any:
    def write(output: Any, number: int) -> None:
        torch.save(output, folder / f"{number:08d}.pt")

    return write
