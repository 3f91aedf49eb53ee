"""The hot path: the functions that run one window of batches, made once per fit."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

from pytorch_lightning.steps.closure import build_closure_window
from pytorch_lightning.steps.current_step import FETCHING, FETCHING_NEXT, OUTSIDE, PREPARING, READYING
from pytorch_lightning.steps.optimizers import needs_closure
from pytorch_lightning.steps.step_inputs import (
    StepInputs,
    TrainWindow,
    build_finish_batch,
    build_forward_backward,
    build_seed_batch,
)
from pytorch_lightning.steps.update import Update, build_update
from pytorch_lightning.steps.weights import WindowWeights


def build_train_window(inputs: StepInputs) -> TrainWindow:
    """The window function for the kind of step and of optimizers that there are."""
    if any(map(needs_closure, inputs.optimizers)):
        return build_closure_window(inputs)
    takes_optimizer, (windows, groups, stepped) = inputs.takes_optimizer, _losses_of(inputs)
    update = build_update(inputs, windows, stepped)
    run_batch = build_run_per_optimizer(inputs, windows, update) if takes_optimizer else build_forward_backward(inputs)
    seed_batch, before_batch, finish_batch = build_seed_batch(inputs), inputs.before_batch, build_finish_batch(inputs)
    progress, to_device, schedules, endings = inputs.progress, inputs.to_device, inputs.schedules, _endings_of(inputs)
    first, current, clear = windows[0], inputs.current, inputs.gradients.clear

    def train_window(batches: Iterator[Any], size: int, accumulate: int) -> None:
        taken, has_run, unfinished = 0, False, False
        current.phase = FETCHING
        if accumulate > 1 or first.accumulate > 1:
            for window in windows:
                window.open(size, accumulate)
        for batch in islice(batches, size):
            taken += 1
            if unfinished:
                finish_batch()
                unfinished = False
            if batch is None:  # skipped: it has a place in the epoch, and no step
                progress.batch_nb, current.phase = progress.batch_nb + 1, FETCHING
                continue
            current.phase, current.arguments = PREPARING, (batch,)
            seed_batch(progress.global_step)
            if before_batch and -1 in [hook(batch) for hook in before_batch]:
                taken = -1
                break
            if not has_run:
                clear()
            run_batch(first, batch if to_device is None else to_device(batch), progress.batch_nb)
            has_run = unfinished = True
            current.phase = FETCHING_NEXT
        if taken < size:
            progress.epoch_over = True
        if has_run:
            if accumulate > 1 or not takes_optimizer:
                current.phase = READYING
                for which in groups:
                    update(which)
            for end in endings:
                end()
            progress.nb_optimizer_steps += any(stepped)
            if unfinished:
                finish_batch()
            for advance in schedules:
                advance(stepped)
        current.phase, current.arguments = OUTSIDE, ()

    return _until_full(train_window, first, inputs)


def _until_full(train_window: Callable[..., None], first: WindowWeights, inputs: StepInputs) -> Callable[..., None]:
    if not inputs.nb_samples:
        return train_window
    from pytorch_lightning.steps.counted import until_full

    return until_full(train_window, first, inputs.progress, inputs.nb_samples)


def _endings_of(inputs: StepInputs) -> list[Callable[[], None]]:
    """What else happens once all optimizers had their turn: gradients that wait are no longer put aside."""
    put_back = partial(inputs.gradients.aside.put_back, inputs.optimizers)
    return [inputs.precision.update] * inputs.precision.scales + [put_back] * (inputs.optimizer_step is not None)


def _losses_of(inputs: StepInputs) -> tuple[list[WindowWeights], list[Sequence[int]], list[bool]]:
    """The weights that each optimizer's gradients have, the optimizers that step together (those of one loss are made
    ready together, with one norm to clip, others each by itself), and which ones stepped last."""
    everyone = range(len(inputs.optimizers))
    groups: list[Sequence[int]] = [(i,) for i in everyone] if inputs.takes_optimizer else [everyone]
    kind: Callable[..., WindowWeights] = WindowWeights
    if inputs.nb_samples is not None:
        from pytorch_lightning.steps.counted import CountedWeights

        kind = partial(CountedWeights, nb=inputs.nb_samples)
    windows = [kind(joins=n > 0, scale=partial(inputs.gradients.scale, group)) for n, group in enumerate(groups)]
    return windows if inputs.takes_optimizer else windows * len(everyone), groups, [False for _ in everyone]


def build_run_per_optimizer(inputs: StepInputs, windows: Sequence[WindowWeights], update: Update) -> Callable[..., Any]:
    """A step of three arguments: once per optimizer. Each steps before the next one's turn, unless batches are
    accumulated."""
    gradients, current, forward_backward = inputs.gradients, inputs.current, build_forward_backward(inputs)

    def run_batch(first: WindowWeights, batch: Any, batch_nb: int) -> None:
        for i, window in enumerate(windows):
            if first.accumulate > 1:
                with gradients.turn(i):
                    forward_backward(window, batch, batch_nb, i)
                continue
            if i:  # each turn is a window of its own
                gradients.clear()
            forward_backward(window, batch, batch_nb, i)
            current.phase = READYING
            update((i,))

    return run_batch
