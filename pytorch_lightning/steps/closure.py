"""Windows of optimizers that evaluate the loss themselves (LBFGS)."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, cast

from torch import Tensor

from pytorch_lightning.run.metrics import Metrics
from pytorch_lightning.steps.current_step import FETCHING, PREPARING, READYING, STEPPED
from pytorch_lightning.steps.step_inputs import (
    StepInputs,
    TrainWindow,
    build_finish_batch,
    build_forward_backward,
    build_seed_batch,
)
from pytorch_lightning.steps.update import build_update
from pytorch_lightning.steps.weights import WindowWeights


class NothingToLearn(Exception):
    """Leaves an optimizer's step: no batch of the window contributes anything."""


class FirstThenAgain:
    """A closure that is one function when it is called first, and another one from then on."""

    def __init__(self, first: Callable[[], Tensor], again: Callable[[], Tensor]) -> None:
        self._next, self._again = first, again

    def __call__(self) -> Tensor:
        evaluate, self._next = self._next, self._again
        return evaluate()


def tried(inputs: StepInputs) -> StepInputs:
    """What the further evaluations of a step work with: nothing of them is kept, and a line search may well try a
    point whose loss isn't finite."""
    return replace(inputs, metrics=Metrics(), nonfinite=lambda loss: None)


def build_closure_window(inputs: StepInputs) -> TrainWindow:
    """For optimizers that evaluate the loss themselves (LBFGS): a closure over all batches of the window.

    Each evaluation draws the same random numbers, so that a line search compares like with like.
    """
    progress, optimizers, to_device = inputs.progress, inputs.optimizers, inputs.to_device
    seed_batch, before_batch, finish_batch = build_seed_batch(inputs), inputs.before_batch, build_finish_batch(inputs)
    evaluate_first = build_evaluate(inputs, seed_batch)
    evaluate_again = build_evaluate(tried(inputs), seed_batch)
    current, stepped = inputs.current, [False] * len(optimizers)
    update = build_update(inputs, [WindowWeights()] * len(optimizers), stepped)

    def train_window(batches: Iterator[Any], size: int, accumulate: int) -> None:
        taken: list[tuple[Any, int, int]] = []
        last = progress.batch_nb + size
        current.phase = FETCHING
        for batch in islice(batches, size):
            if batch is not None:
                current.phase, current.arguments = PREPARING, (batch,)
                seed_batch(progress.global_step)
                if before_batch and -1 in [hook(batch) for hook in before_batch]:
                    break
                batch = batch if to_device is None else to_device(batch)
                taken.append((batch, progress.batch_nb, progress.global_step))
                progress.global_step += 1
            progress.batch_nb += 1
            current.phase = FETCHING
        current.phase = STEPPED  # what is run from here on begins with ``evaluate``
        end = progress.batch_nb, progress.global_step
        progress.epoch_over = progress.epoch_over or progress.batch_nb < last
        if taken:
            _, progress.batch_nb, progress.global_step = taken[-1]
            for i in range(len(optimizers)):
                closure = FirstThenAgain(partial(evaluate_first, taken, i), partial(evaluate_again, taken, i))
                stepped[i] = False
                with contextlib.suppress(NothingToLearn):
                    update((i,), closure)
            progress.nb_optimizer_steps += any(stepped)
            for _, progress.batch_nb, progress.global_step in taken:
                finish_batch()
            for advance in inputs.schedules:
                advance(stepped)
        progress.batch_nb, progress.global_step = end
        current.leave()

    return train_window


def build_evaluate(
    inputs: StepInputs, seed_batch: Callable[[int], Any]
) -> Callable[[list[tuple[Any, int, int]], int], Tensor]:
    """``evaluate(taken, i)``: the loss of a whole window and its gradients, ready for optimizer i. ``taken`` holds
    (batch, batch_nb, global_step) for each batch."""
    optimizers, forward_backward = inputs.optimizers, build_forward_backward(inputs)
    progress, current, gradients = inputs.progress, inputs.current, inputs.gradients
    windows = [WindowWeights(joins=i > 0, scale=partial(gradients.scale, (i,))) for i in range(len(optimizers))]

    def evaluate(taken: list[tuple[Any, int, int]], i: int) -> Tensor:
        gradients.clear()
        window, total = windows[i], cast("Any", 0.0)
        window.open(len(taken), len(taken))
        for batch, batch_nb, global_step in taken:
            progress.batch_nb, progress.global_step = batch_nb, global_step
            seed_batch(global_step)
            extra = (i,) if inputs.takes_optimizer else ()
            reference, weighed = window.reference, forward_backward(window, batch, batch_nb, *extra)
            if weighed is not None:
                raised = reference / window.reference if reference else 1.0  # as the gradients of the batches before
                total = total * raised + weighed.detach()
        if window.nb_empty and window.has_none():
            raise NothingToLearn
        current.phase = READYING
        correction = window.correction()
        if correction != 1.0:
            gradients.scale((i,), correction)
        for prepare in inputs.before_update:
            prepare(optimizers[i : i + 1])
        current.phase = STEPPED
        return total * correction  # type: ignore[no-any-return]

    return evaluate
