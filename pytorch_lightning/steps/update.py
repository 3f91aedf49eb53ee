"""The end of a window: gradients are made ready, the optimizers step, gradients are cleared."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from pytorch_lightning.errors import FitError
from pytorch_lightning.faults import fault
from pytorch_lightning.precision.precision import SKIPPED
from pytorch_lightning.run.metrics import at
from pytorch_lightning.steps.current_step import STEPPED
from pytorch_lightning.steps.optimizers import SteppedOptimizer, scale_gradients
from pytorch_lightning.steps.step_inputs import StepInputs, WindowWeights

Update = Callable[..., None]
"""``update(which, [closure])`` steps the optimizers with those indices."""


def build_update(inputs: StepInputs, windows: Sequence[WindowWeights], stepped: list[bool]) -> Update:
    """``update(which, [closure])``: make the gradients of those optimizers ready, step them, clear. Notes in
    ``stepped`` which ones really stepped. A closure makes its gradients ready itself."""
    optimizers, before_clear, timed = inputs.optimizers, inputs.before_clear, partial(inputs.timed, "optimizer")
    progress, current = inputs.progress, inputs.current
    before_update = [timed(function) for function in inputs.before_update]
    steps = [timed(inputs.precision.step_function(optimizer)) for optimizer in optimizers]
    clears_itself = [type(optimizer).zero_grad is not Optimizer.zero_grad for optimizer in optimizers]
    if inputs.optimizer_step is not None:
        steps = [build_user_step(inputs, i, step) for i, step in enumerate(steps)]

    def update(which: Sequence[int], closure: Callable[[], Tensor] | None = None) -> None:
        fault("update.begin")
        progress.steps_begun = True
        window = windows[which[0]]
        correction = window.correction() if window.size > 1 else 1.0
        if closure is None and (before_update or correction != 1.0):
            chosen = optimizers[which[0] : which[-1] + 1]
            if correction != 1.0:
                scale_gradients(chosen, correction)
            for prepare in before_update:
                prepare(chosen)
        current.phase = STEPPED
        for i in which:
            outcome = steps[i](closure)
            stepped[i] = outcome is not SKIPPED and outcome is not WAITING
            if outcome is not WAITING:
                for hook in before_clear:
                    hook(optimizers[i])
                if clears_itself[i]:
                    optimizers[i].zero_grad()
                else:  # clear_gradients, without a call
                    for group in optimizers[i].param_groups:
                        for parameter in group["params"]:
                            parameter.grad = None
        fault("update.end")

    return update


WAITING = object()
"""What a user's ``optimizer_step`` gives that let its turn pass: the gradients stay, and more are added."""


def build_user_step(inputs: StepInputs, i: int, step: Callable[..., Any]) -> Callable[..., Any]:
    """``step(closure)`` through the user's ``optimizer_step``."""
    optimizer, progress, user_step, scales = (
        inputs.optimizers[i],
        inputs.progress,
        inputs.optimizer_step,
        inputs.precision.scales,
    )
    assert user_step is not None

    def call_user_step(closure: Callable[[], Tensor] | None) -> Any:
        proxy = SteppedOptimizer(optimizer, lambda own: step(own or closure), WAITING)
        user_step(progress.epoch, progress.batch_nb, proxy, i)
        if proxy.outcome is WAITING and scales:
            raise FitError(
                "optimizer_step didn't call optimizer.step(): with precision='16' gradients can't be kept for a later"
                f" step, since their scale may change. Use accumulate_grad_batches. {at(progress)}"
            )
        return proxy.outcome

    return call_user_step
