"""The end of a window: gradients are made ready, and the optimizers step."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from pytorch_lightning.errors import FitError
from pytorch_lightning.faults import fault
from pytorch_lightning.precision.precision import NotStepped
from pytorch_lightning.run.metrics import at
from pytorch_lightning.steps.current_step import STEPPED
from pytorch_lightning.steps.optimizers import SteppedOptimizer, leaving_sparse
from pytorch_lightning.steps.step_inputs import StepInputs
from pytorch_lightning.steps.weights import WindowWeights

Update = Callable[..., None]
"""``update(which, [closure])`` steps the optimizers with those indices."""


def build_update(inputs: StepInputs, windows: Sequence[WindowWeights], stepped: list[bool]) -> Update:
    """``update(which, [closure])``: make the gradients of those optimizers ready, and step them. Notes in ``stepped``
    which ones really stepped. A closure makes its gradients ready itself."""
    optimizers, before_clear, timed = inputs.optimizers, inputs.before_clear, partial(inputs.timed, "optimizer")
    progress, current = inputs.progress, inputs.current
    before_update = [timed(function) for function in inputs.before_update]
    steps = [inputs.precision.step_function(optimizer) for optimizer in optimizers]
    steps = [
        timed(leaving_sparse(o, step) if inputs.fuses else step) for o, step in zip(optimizers, steps, strict=True)
    ]
    gradients, WAITING = inputs.gradients, NotStepped.WAITING
    aside, held, turns = gradients.aside, gradients.aside.held, gradients.turns
    steps = [gradients.noting_steps(i, s) if gradients.clears_itself[i] else s for i, s in enumerate(steps)]
    if inputs.optimizer_step is not None:
        steps = [build_user_step(inputs, i, step) for i, step in enumerate(steps)]

    def update(which: Sequence[int], closure: Callable[[], Tensor] | None = None) -> None:
        fault("update.begin")
        window = windows[which[0]]
        if window.nb_empty and window.has_none():
            aside.put_back(optimizers[which[0] : which[-1] + 1])
            for i in which:
                stepped[i] = False
            return
        progress.steps_begun = True
        correction = window.correction() if window.size > 1 else 1.0
        if closure is None and (before_update or correction != 1.0 or held or turns):
            chosen = optimizers[which[0] : which[-1] + 1]
            if turns:
                gradients.take_turn(which[0])
            if correction != 1.0:
                gradients.scale(which, correction)
            if held:
                aside.put_back(chosen)
            for prepare in before_update:
                prepare(chosen)
        current.phase = STEPPED
        for i in which:
            outcome = steps[i](closure)
            stepped[i] = type(outcome) is not NotStepped
            if before_clear and outcome is not WAITING:
                for hook in before_clear:
                    hook(optimizers[i])
        fault("update.end")

    return update


def build_user_step(inputs: StepInputs, i: int, step: Callable[..., Any]) -> Callable[..., Any]:
    """``step(closure)`` through the user's ``optimizer_step``."""
    optimizer, progress, user_step = inputs.optimizers[i], inputs.progress, inputs.optimizer_step
    scales, waiting = inputs.precision.scales, inputs.gradients.waiting
    assert user_step is not None

    def call_user_step(closure: Callable[[], Tensor] | None) -> Any:
        proxy = SteppedOptimizer(optimizer, lambda own: step(own or closure), NotStepped.WAITING)
        user_step(progress.epoch, progress.batch_nb, proxy, i)
        if proxy.outcome is not NotStepped.WAITING:
            waiting.discard(i)
            return proxy.outcome
        if closure is None:  # an optimizer that evaluates the loss itself begins anew each time
            waiting.add(i)
        if scales:
            raise FitError(
                "optimizer_step didn't call optimizer.step(): with precision='16' gradients can't be kept for a later"
                f" step, since their scale may change. Use accumulate_grad_batches. {at(progress)}"
            )
        return proxy.outcome

    return call_user_step
