"""The end of a window: gradients are made ready, and the optimizers step."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from pytorch_lightning.faults import fault
from pytorch_lightning.precision.precision import NotStepped
from pytorch_lightning.steps.current_step import STEPPED
from pytorch_lightning.steps.optimizers import leaving_sparse
from pytorch_lightning.steps.step_inputs import StepInputs
from pytorch_lightning.steps.user_step import UserSteps
from pytorch_lightning.steps.weights import WindowWeights

Update = Callable[..., None]
"""``update(which, [closure])`` steps the optimizers with those indices."""


def build_update(inputs: StepInputs, windows: Sequence[WindowWeights], stepped: list[bool]) -> Update:
    """``update(which, [closure])``: make the gradients of those optimizers ready, and step them. Notes in ``stepped``
    which ones really stepped. A closure makes its gradients ready itself."""
    optimizers, before_clear, timed = inputs.optimizers, inputs.before_clear, partial(inputs.timed, "optimizer")
    progress, current = inputs.progress, inputs.current
    before_update = [timed(function) for function in inputs.before_update]
    steps = [timed(_build_step(inputs, optimizer)) for optimizer in optimizers]
    gradients, WAITING = inputs.gradients, NotStepped.WAITING
    lets_wait = inputs.optimizer_step is not None and not inputs.precision.scales
    nb = inputs.nb_after_backward if lets_wait else len(before_update)
    early, late = before_update[:nb], before_update[nb:]
    users = None if inputs.optimizer_step is None else UserSteps(inputs, late)
    aside, held, turns = gradients.aside, gradients.aside.held, gradients.turns
    steps = [gradients.noting_steps(i, s) if gradients.clears_itself[i] else s for i, s in enumerate(steps)]
    if users is not None:
        steps = [users.build(i, step) for i, step in enumerate(steps)]

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
                if users is not None:
                    users.weigh_waiting(which, window.total or 1.0)
                aside.put_back(chosen)
            for prepare in early:
                prepare(chosen)
        current.phase = STEPPED
        if users is not None:
            users.begin(which, window.total or 1.0, is_ready=closure is not None)
        for i in which:
            outcome = steps[i](closure)
            stepped[i] = type(outcome) is not NotStepped
            if before_clear and outcome is not WAITING:
                for hook in before_clear:
                    hook(optimizers[i])
        if users is not None:
            users.end()
        fault("update.end")

    return update


def _build_step(inputs: StepInputs, optimizer: Optimizer) -> Callable[..., Any]:
    step = inputs.precision.step_function(optimizer)
    return leaving_sparse(optimizer, step) if inputs.fuses else step
