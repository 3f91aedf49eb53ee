"""A window's inputs, and the functions that every kind of window is made of."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from pytorch_lightning.errors import FitError
from pytorch_lightning.faults import fault
from pytorch_lightning.precision.precision import Precision
from pytorch_lightning.run.metrics import NO_LOSS, Metrics, Weighed, at, read_output
from pytorch_lightning.run.progress import Progress
from pytorch_lightning.seeding import MODEL, build_seeder, reseed_generators, seed_device
from pytorch_lightning.steps.current_step import RUNNING, STEPPED, CurrentStep
from pytorch_lightning.steps.gradients import Gradients
from pytorch_lightning.steps.weights import WindowWeights
from pytorch_lightning.timings import Timings

TrainWindow = Callable[[Iterator[Any], int, int], None]
"""``train_window(batches, size, accumulate)``: take up to ``size`` batches, add up their gradients, step the
optimizers, and move ``Progress`` on. ``accumulate`` is the size of a full window in this epoch."""


@dataclass(frozen=True, kw_only=True)
class StepInputs:
    """What a window needs, decided by the plan."""

    name: str
    """``training_step of Classifier``, for messages."""
    step: Callable[..., Any]
    takes_optimizer: bool
    optimizers: Sequence[Optimizer]
    precision: Precision
    to_device: Callable[[Any], Any] | None
    """None where a batch is used as it comes."""
    progress: Progress
    current: CurrentStep
    gradients: Gradients
    metrics: Metrics
    seed: int
    on_device: bool
    """Whether reading a number would wait for an accelerator."""
    before_batch: Sequence[Callable[[Any], Any]] = ()
    before_update: Sequence[Callable[[Sequence[Optimizer]], None]] = ()
    nb_after_backward: int = 0
    """How many of these, the first ones, are ``on_after_backward``."""
    before_clear: Sequence[Callable[[Optimizer], None]] = ()
    after_batch: Sequence[Callable[[], None]] = ()
    schedules: Sequence[Callable[[Sequence[bool]], None]] = ()
    """What steps the schedules that count optimizer steps; told which optimizers stepped."""
    optimizer_step: Callable[..., None] | None = None
    """The user's own, if any."""
    nb_samples: int | None = None
    """The sum of ``loss_count`` at which a window closes; None where a number of batches says so."""
    repeats: bool = False
    """Whether a process without a batch runs its last one again."""
    fuses: bool = False
    """Whether optimizers were made fused for which the user chose nothing."""
    generators: Sequence[Any] = ()
    """Generator objects of the model's own, seeded with each batch."""
    nonfinite: Callable[[float], None]
    """Told a loss that isn't finite: raises, or counts it."""
    timed: Callable[[str, Callable[..., Any]], Callable[..., Any]] = lambda phase, function: function
    """What is wrapped around the phases of a step."""


def with_timers(inputs: StepInputs, timings: Timings) -> StepInputs:
    """``inputs`` with the phases of a step timed."""
    return replace(inputs, timed=timings.timed)


def build_seed_batch(inputs: StepInputs) -> Callable[[int], Any]:
    """``seed_batch(global_step)``: seed every stream for that batch."""
    seed_at = build_seeder(inputs.seed, MODEL, None)
    if inputs.generators:
        return build_seed_all(inputs, seed_at)
    return (lambda n: seed_device(seed_at(n))) if inputs.on_device else seed_at


def build_seed_all(inputs: StepInputs, seed_at: Callable[[int], int]) -> Callable[[int], None]:
    """The same where the model has generators of its own."""
    generators, on_device = inputs.generators, inputs.on_device

    def seed_all(global_step: int) -> None:
        word = seed_at(global_step)
        reseed_generators(generators, word)
        if on_device:
            seed_device(word)

    return seed_all


def build_finish_batch(inputs: StepInputs) -> Callable[[], None]:
    """``finish_batch()``: rows and hooks, then count the batch."""
    progress, current, after_batch = inputs.progress, inputs.current, inputs.after_batch

    def finish_batch() -> None:
        current.phase = STEPPED
        fault("batch.run")
        for hook in after_batch:
            hook()
        progress.batch_nb += 1
        progress.global_step += 1

    return finish_batch


def build_backward(inputs: StepInputs) -> Callable[[Tensor], Any]:
    """``backward(loss)``. In an optimizer's turn the graph holds the others' parameters too, since the next turn may
    use what this one made of them; gradients are those of its own."""
    backward, gradients, current = inputs.precision.backward, inputs.gradients, inputs.current
    if not inputs.takes_optimizer or len(inputs.optimizers) == 1:
        return inputs.timed("backward", backward)

    def backward_own(loss: Tensor) -> None:
        own = gradients.of_turn(current.arguments[2])
        if own:
            backward(loss, inputs=own)
        if all(parameter.grad is None for parameter in own):
            raise FitError(
                f"{inputs.name} returned a loss for optimizer {current.arguments[2]} that depends on none of its"
                " parameters that require gradients, so it can't be trained on. Compute it from them, without detach()"
                f" or torch.no_grad() on the way. {at(inputs.progress)}"
            )

    return inputs.timed("backward", backward_own)


def build_forward_backward(inputs: StepInputs) -> Callable[..., Tensor | None]:
    """``forward_backward(window, batch, batch_nb, [optimizer_i])``: one loss and its gradients. Returns
    the loss as it was weighed; None where the batch contributes nothing."""
    step, backward = inputs.timed("forward", inputs.step), build_backward(inputs)
    metrics, record = inputs.metrics, inputs.metrics.record
    name, progress, on_device, nonfinite = inputs.name, inputs.progress, inputs.on_device, inputs.nonfinite
    current, isfinite, lets_wait = inputs.current, math.isfinite, inputs.optimizer_step is not None

    def forward_backward(window: WindowWeights, *arguments: Any) -> Tensor | None:
        current.phase, current.arguments, current.weights = RUNNING, arguments, window
        loss, prog, count = read_output(step(*arguments), name, progress)
        if count == 0:  # the mean over no items may be NaN, and so may its gradients
            window.skip(loss is not NO_LOSS)
            metrics.saw_none = metrics.saw_none or loss is NO_LOSS
            return None
        value: Tensor | float = loss.detach() if on_device else loss.item()
        if not on_device and not isfinite(value):
            nonfinite(value)  # type: ignore[arg-type]
        weighed = loss if window.size == 1 and not lets_wait else window.weigh(loss, count)
        backward(weighed)
        # last: a window that fails before it has changed nothing
        if count is None:
            record(value, prog, window.joins)
        else:
            record(value, prog, window.joins, Weighed(value, count, joins=window.joins))
        return weighed

    return forward_backward
