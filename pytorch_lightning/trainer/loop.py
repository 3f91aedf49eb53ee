"""What happens in a fit and in an evaluation, in order.

A *window* is the batches of one optimizer step; a *save point* is where state is whole, so that a checkpoint or a stop
that was asked for can happen. Batches and epochs are counted from 0, and ``plan.progress`` holds where the fit is.
``fault(...)`` is a point at which a test can make the library fail, and does nothing otherwise.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import torch

from pytorch_lightning.data.sharing import Filler, in_step, numbered
from pytorch_lightning.faults import fault
from pytorch_lightning.launchers.signals import Stopped
from pytorch_lightning.run.progress import NEVER
from pytorch_lightning.seeding import EVALUATION, build_seeder, seed_device
from pytorch_lightning.steps.traces import without_trace
from pytorch_lightning.timings import FIRST_SAMPLE, SAMPLE_EVERY
from pytorch_lightning.trainer.evaluation import EvaluationPlan
from pytorch_lightning.trainer.fit_plan import FitPlan


def run_fit(plan: FitPlan) -> None:
    """Train until something says stop. Starts from ``plan.progress``, wherever that is."""
    plan.call("on_fit_start")
    plan.begin_training()
    if plan.sanity is not None:
        plan.call("on_sanity_check_start")
        with plan.run.timings.measuring("validation"):
            plan.rows.learn_names(run_evaluation(plan.sanity, NEVER))  # which metrics there are; the values are dropped
        plan.sanity.close()
    fault("fit.begin")
    plan.save_points.begin()

    # one that was begun before the checkpoint: its validation and its end may be due even if a limit ends training
    if plan.progress.epoch_started:
        run_epoch(plan)
    while not plan.is_complete():
        run_epoch(plan)
    plan.gradients.free()


def run_epoch(plan: FitPlan) -> None:
    """Train on the rest of an epoch, window by window, validating where that is due."""
    progress, wishes, save_points, skips = plan.progress, plan.run.wishes, plan.save_points, plan.skips
    accumulate = plan.window_size(progress.epoch)
    note_start = plan.window_start.note_for(accumulate)

    if not progress.epoch_started:
        plan.begin_loaders()
        plan.run.begin_epoch(plan.length.at(progress.epoch))
        plan.call("on_epoch_start")
    # the hook may have changed parameters, and the length of the loader
    plan.gradients.look_around()
    nb_batches = plan.run.nb_tng_batches = plan.length.at(progress.epoch)
    last = NEVER if nb_batches is None else nb_batches
    next_validation = plan.next_validation()
    batches, until = skips.begin(plan.loader, nb_batches)

    while True:
        if progress.stop_reason and progress.interrupted:
            return  # a signal: a validation that is due now is run by the fit that resumes
        # also where a validation fell due before the checkpoint that this fit resumes
        if progress.batch_nb >= next_validation or (progress.epoch_over and plan.ended_unchecked()):
            if plan.is_validation_due():
                run_validation(plan)
            next_validation = plan.next_validation()
        if progress.epoch_over or progress.batch_nb >= until:
            if progress.epoch_over or until >= last:
                break
            if not progress.stop_reason:
                batches, until = skips.step_over(batches)
                continue
        if progress.stop_reason:
            return  # a limit or a callback, within the epoch: its end isn't run
        is_timed = progress.nb_optimizer_steps % SAMPLE_EVERY == FIRST_SAMPLE
        run_window = plan.windows.sampled if is_timed else plan.windows.train
        if note_start is not None:
            note_start()  # for save_before, which goes back to here
        try:
            run_window(batches, min(accumulate, until - progress.batch_nb), accumulate)
        except Exception as error:
            save_points.save_before(error)
            raise
        progress.steps_begun = False
        # the clock is to be looked at, somebody asked for something, or max_nb_steps is reached
        is_due = progress.global_step >= wishes.next_save_point
        if is_due or wishes.pending or progress.nb_optimizer_steps >= save_points.most_steps:
            save_points.reach(plan.validation_follows(next_validation))

    end_epoch(plan, is_whole=plan.length.is_whole and progress.batch_nb >= last)


def end_epoch(plan: FitPlan, is_whole: bool) -> None:
    """The end of an epoch, after its last validation. ``is_whole``: the loader has no more batches."""
    progress = plan.progress
    plan.loader.finish(progress.epoch, progress.batch_nb, is_whole)
    fault("epoch.trained")
    plan.end_metrics()
    plan.epoch_schedules.step(plan.run.metrics, progress.epoch)
    plan.call("on_epoch_end")
    fault("epoch.end")
    plan.run.end_epoch()
    plan.save_points.reach()


def run_validation(plan: FitPlan) -> None:
    """Validate between two windows: run it, keep and log its metrics, call the hooks, and come to a save point.

    A signal may end it before its last batch; what is saved then is the state from before it.
    """
    assert plan.validation is not None
    progress, run = plan.progress, plan.run
    fault("validation.begin")
    plan.save_points.before_validation()
    plan.gradients.free()
    plan.call("on_pre_performance_check")
    try:
        with run.timings.measuring("validation"):
            metrics = run_evaluation(plan.validation, progress.nb_validations)
    except Stopped:
        plan.save_points.leave_validation()
        raise
    except Exception as error:
        plan.save_points.save_for(error)
        raise
    plan.call("on_post_performance_check")
    fault("validation.run")

    progress.validated_batch, progress.nb_validations = progress.batch_nb, progress.nb_validations + 1
    progress.validated_step = progress.global_step
    run.metrics.validation = metrics
    run.metrics.note_extremes(metrics)
    run.metrics.evaluated.clear()
    plan.rows.write_validation(metrics)
    plan.epoch_schedules.note_validation()
    plan.call("on_validation_end", metrics)
    fault("validation.end")
    plan.save_points.after_validation()


def run_evaluation(plan: EvaluationPlan, counter: int) -> Any:
    """Run a step over every batch of every loader; returns what the plan's ``end`` makes of the outputs.

    ``counter`` tells one pass from the next, since random numbers depend on it: how many validations there were, or
    NEVER for the one before training. Each loader comes with the number of its batches to run and with what its step
    gets as further arguments: its own number, or its name, where there are several. ``place`` is the batch at which
    an error is reported.
    """
    step, to_device, seed = plan.step, plan.to_device, plan.seed
    outputs: list[list[tuple[int, Any]]] = []
    loader_i, nb_before, place = 0, 0, cast("int | None", 0)
    plan.call("on_evaluation_start", plan.stage, plan.nb_batches)
    try:
        with plan.around(plan.stage), evaluation_mode(plan.module):
            for loader_i, (loader, limit, extra) in enumerate(plan.loaders):
                outputs.append([])
                place = 0
                seed_at = build_seeder(seed, EVALUATION, counter, None, loader_i)
                batches = numbered(loader, plan.share, counter, limit)
                if plan.together is not None:
                    batches = in_step(batches, plan.together, plan.module)
                if plan.to_first is not None:
                    batches = plan.to_first.along(batches, outputs)
                for batch_nb, batch in batches:
                    if batch is None:
                        continue
                    if type(batch) is Filler:
                        run_filler(plan, batch.batch, extra)
                        continue
                    fault("validation.batch")
                    word = seed_at(batch_nb)
                    if plan.on_device:
                        seed_device(word)
                    if to_device is not None:
                        batch = to_device(batch)
                    outputs[-1].append((batch_nb, plan.keep(step(batch, batch_nb, *extra), nb_before + batch_nb)))
                    plan.call("on_evaluation_batch_end", plan.stage, nb_before + batch_nb)
                    place = batch_nb + plan.share.nb
                nb_before += plan.nb_of(loader)
            place = None
            return plan.end(outputs)
    except Exception as error:
        plan.note_place(error, loader_i, place)
        raise
    finally:
        plan.call("on_evaluation_end", plan.stage)


def run_filler(plan: EvaluationPlan, batch: Any, extra: tuple[int | str, ...]) -> None:
    """Take part in a step of the other processes; the output is dropped, and the module stays as it is."""
    with without_trace(plan.module):
        plan.step(batch if plan.to_device is None else plan.to_device(batch), 0, *extra)


@contextlib.contextmanager
def evaluation_mode(module: torch.nn.Module) -> Iterator[None]:
    """A scope without gradients and with ``module`` in eval mode; each submodule's own mode is put back."""
    modes = [(submodule, submodule.training) for submodule in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for submodule, training in modes:
            submodule.training = training
