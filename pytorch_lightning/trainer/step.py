"""The hot path: the functions that run one window of batches, made once per fit."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice, repeat
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from pytorch_lightning.errors import FitError
from pytorch_lightning.faults import fault
from pytorch_lightning.precision.precision import SKIPPED, Precision
from pytorch_lightning.seeding import MODEL, build_seeder, seed_device
from pytorch_lightning.timings import Timings
from pytorch_lightning.trainer.metrics import Metrics, at, check_loss, read_output
from pytorch_lightning.trainer.optimizers import SteppedOptimizer, clear_gradients, needs_closure, scale_gradients
from pytorch_lightning.trainer.progress import Progress

TrainWindow = Callable[[Iterator[Any], int, int], None]
"""``train_window(batches, size, accumulate)``: take up to ``size`` batches, add up their gradients, step the
optimizers, and move ``Progress`` on. ``accumulate`` is the size of a full window in this epoch."""


Update = Callable[..., None]
"""``update(which, [closure])`` steps the optimizers with those indices."""


@dataclass(frozen=True, kw_only=True)
class StepParts:
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
    metrics: Metrics
    seed: int
    on_device: bool
    """Whether reading a number would wait for an accelerator."""
    before_batch: Sequence[Callable[[Any], Any]] = ()
    before_update: Sequence[Callable[[Sequence[Optimizer]], None]] = ()
    before_clear: Sequence[Callable[[Optimizer], None]] = ()
    after_batch: Sequence[Callable[[], None]] = ()
    schedules: Sequence[Callable[[Sequence[bool]], None]] = ()
    """What steps the schedules that count optimizer steps; told which optimizers stepped."""
    optimizer_step: Callable[..., None] | None = None
    """The user's own, where there is one."""
    nonfinite: Callable[[float], None]
    """Told a loss that isn't finite: raises, or counts it."""
    timed: Callable[[str, Callable[..., Any]], Callable[..., Any]] = lambda phase, function: function
    """What is wrapped around the phases of a step."""


@dataclass(slots=True)
class Window:
    """How much each batch of a window weighs: what the gradients of its losses were divided by, and should be."""

    size: int = 1
    accumulate: int = 1
    """The size of a full window in this epoch."""
    counted: bool | None = None
    reference: float = 1.0
    total: float = 0.0

    def open(self, size: int, accumulate: int) -> None:
        """Begin a window of ``size`` batches."""
        self.size, self.accumulate, self.counted, self.total = size, accumulate, None, 0.0

    def weigh(self, loss: Tensor, count: float | None) -> Tensor:
        """``loss``, divided so that the window's losses add up to their mean, weighted by ``loss_count``."""
        if self.counted is None:
            self.counted, self.reference = count is not None, count or 1.0
        if self.counted != (count is not None):
            raise FitError(
                "training_step returned 'loss_count' for some batches of an accumulation window and not for others."
                " Return it always or never."
            )
        self.total += 1.0 if count is None else count
        return loss / self.size if count is None else loss * (count / (self.reference * self.size))

    def correction(self) -> float:
        """What the gradients must still be multiplied by, now that all batches are known."""
        if self.counted is None or not self.total:
            return 1.0
        return (self.reference * self.size if self.counted else self.size) / self.total


def build_train_window(parts: StepParts) -> TrainWindow:
    """The window function for the kind of step and of optimizers that there are."""
    if any(map(needs_closure, parts.optimizers)):
        return build_closure_window(parts)
    windows = [Window() for _ in parts.optimizers]
    if not parts.takes_optimizer:  # one loss, one window
        windows = windows[:1] * len(parts.optimizers)
    first, takes_optimizer, everyone = windows[0], parts.takes_optimizer, range(len(parts.optimizers))
    # optimizers of one loss are made ready together (one norm to clip), others each by itself
    groups: list[Sequence[int]] = [(i,) for i in everyone] if takes_optimizer else [everyone]
    stepped = [False] * len(parts.optimizers)
    update = build_update(parts, windows, stepped)
    run_batch = build_forward_backward(parts)
    if takes_optimizer:
        run_batch = build_run_per_optimizer(parts, run_batch, windows, update)
    seed_batch, before_batch, finish_batch = build_seed_batch(parts), parts.before_batch, build_finish_batch(parts)
    progress, to_device, precision, schedules = parts.progress, parts.to_device, parts.precision, parts.schedules

    def train_window(batches: Iterator[Any], size: int, accumulate: int) -> None:
        taken, has_run, unfinished = 0, False, False
        if accumulate > 1 or first.accumulate > 1:
            for window in windows:
                window.open(size, accumulate)
        for batch in islice(batches, size):
            taken += 1
            if unfinished:
                finish_batch()
                unfinished = False
            if batch is None:  # skipped: it has a place in the epoch, and no step
                progress.batch_nb += 1
                continue
            seed_batch(progress.global_step)
            if before_batch and -1 in [hook(batch) for hook in before_batch]:
                taken = -1
                break
            run_batch(first, batch if to_device is None else to_device(batch), progress.batch_nb)
            has_run = unfinished = True
        if taken < size:
            progress.epoch_over = True
        if has_run:
            if accumulate > 1 or not takes_optimizer:
                for which in groups:
                    update(which)
            if precision.scales:
                precision.update()
            progress.nb_optimizer_steps += any(stepped)
            if unfinished:
                finish_batch()
            for advance in schedules:
                advance(stepped)

    return train_window


def with_timers(parts: StepParts, timings: Timings) -> StepParts:
    """``parts`` with the phases of a step timed."""
    return replace(parts, timed=timings.timed)


def build_seed_batch(parts: StepParts) -> Callable[[int], Any]:
    """``seed_batch(global_step)``: seed every stream for that batch."""
    seed_at = build_seeder(parts.seed, MODEL, None)
    return (lambda n: seed_device(seed_at(n))) if parts.on_device else seed_at


def build_finish_batch(parts: StepParts) -> Callable[[], None]:
    """``finish_batch()``: rows and hooks, then count the batch."""
    progress, after_batch = parts.progress, parts.after_batch

    def finish_batch() -> None:
        fault("batch.run")
        for hook in after_batch:
            hook()
        progress.batch_nb += 1
        progress.global_step += 1

    return finish_batch


def build_forward_backward(parts: StepParts) -> Callable[..., Any]:
    """``forward_backward(window, batch, batch_nb, [optimizer_i])``: one loss and its gradients."""
    step, backward = parts.timed("forward", parts.step), parts.timed("backward", parts.precision.backward)
    record = parts.metrics.record
    name, progress, on_device, nonfinite = parts.name, parts.progress, parts.on_device, parts.nonfinite
    isfinite = math.isfinite

    def forward_backward(window: Window, *arguments: Any) -> Tensor:
        loss, prog, count = read_output(step(*arguments), name, progress)
        if not loss.requires_grad or loss.numel() != 1:
            check_loss(loss, name, progress)
        joins = arguments[2:] > (0,)  # not the first of several optimizers
        value: Tensor | float = loss.detach() if on_device else loss.item()
        if not on_device and not isfinite(value):
            nonfinite(value)  # type: ignore[arg-type]
        weighed = loss if window.size == 1 else window.weigh(loss, count)
        backward(weighed)
        record(value, prog, joins)  # last: a window that fails before it has changed nothing
        return weighed

    return forward_backward


def build_run_per_optimizer(
    parts: StepParts, forward_backward: Callable[..., Any], windows: Sequence[Window], update: Update
) -> Callable[..., Any]:
    """A step of three arguments: once per optimizer. Each steps before the next one's turn, unless batches are
    accumulated."""
    optimizers = parts.optimizers

    def run_batch(first: Window, batch: Any, batch_nb: int) -> None:
        for i, window in enumerate(windows):
            with only_requiring(optimizers, i):
                forward_backward(window, batch, batch_nb, i)
            if first.accumulate == 1:
                update((i,))

    return run_batch


def build_update(parts: StepParts, windows: Sequence[Window], stepped: list[bool]) -> Update:
    """``update(which, [closure])``: make the gradients of those optimizers ready, step them, clear. Notes in
    ``stepped`` which ones really stepped. A closure makes its gradients ready itself."""
    optimizers, before_clear, timed = parts.optimizers, parts.before_clear, partial(parts.timed, "optimizer")
    progress = parts.progress
    before_update = [timed(function) for function in parts.before_update]
    steps = [timed(parts.precision.step_function(optimizer)) for optimizer in optimizers]
    clears_itself = [type(optimizer).zero_grad is not Optimizer.zero_grad for optimizer in optimizers]
    if parts.optimizer_step is not None:
        steps = [build_user_step(parts, i, step) for i, step in enumerate(steps)]

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


def build_user_step(parts: StepParts, i: int, step: Callable[..., Any]) -> Callable[..., Any]:
    """``step(closure)`` through the user's ``optimizer_step``."""
    optimizer, progress, user_step, scales = (
        parts.optimizers[i],
        parts.progress,
        parts.optimizer_step,
        parts.precision.scales,
    )
    assert user_step is not None

    def call_user_step(closure: Callable[[], Tensor] | None) -> Any:
        proxy = SteppedOptimizer(optimizer, lambda own: step(own or closure), WAITING)
        user_step(progress.epoch, progress.batch_nb, proxy, i)
        if proxy.outcome is WAITING and scales:
            raise FitError(
                "optimizer_step didn't call optimizer.step(): in 16 bit gradients can't wait for a later step,"
                f" since their scale may change. Use accumulate_grad_batches. {at(progress)}"
            )
        return proxy.outcome

    return call_user_step


def build_closure_window(parts: StepParts) -> TrainWindow:
    """For optimizers that evaluate the loss themselves (LBFGS): a closure over all batches of the window.

    Each evaluation draws the same random numbers, so that a line search compares like with like.
    """
    progress, optimizers, to_device = parts.progress, parts.optimizers, parts.to_device
    seed_batch, before_batch, finish_batch = build_seed_batch(parts), parts.before_batch, build_finish_batch(parts)
    once = build_evaluate(parts, seed_batch)
    # of the further evaluations nothing is kept, and a line search may well try a point whose loss isn't finite
    again = build_evaluate(replace(parts, metrics=Metrics(), nonfinite=lambda loss: None), seed_batch)
    stepped = [False] * len(optimizers)
    update = build_update(parts, [Window()] * len(optimizers), stepped)

    def train_window(batches: Iterator[Any], size: int, accumulate: int) -> None:
        taken: list[tuple[Any, int, int]] = []
        last = progress.batch_nb + size
        for batch in islice(batches, size):
            if batch is not None:
                seed_batch(progress.global_step)
                if before_batch and -1 in [hook(batch) for hook in before_batch]:
                    break
                batch = batch if to_device is None else to_device(batch)
                taken.append((batch, progress.batch_nb, progress.global_step))
                progress.global_step += 1
            progress.batch_nb += 1
        end = progress.batch_nb, progress.global_step
        progress.epoch_over = progress.epoch_over or progress.batch_nb < last
        if taken:
            _, progress.batch_nb, progress.global_step = taken[-1]
            for i in range(len(optimizers)):
                evaluations = chain([once], repeat(again))
                with only_requiring(optimizers, i):
                    update((i,), lambda i=i, evaluations=evaluations: next(evaluations)(taken, i))
            progress.nb_optimizer_steps += any(stepped)
            for _, progress.batch_nb, progress.global_step in taken:
                finish_batch()
            for advance in parts.schedules:
                advance(stepped)
        progress.batch_nb, progress.global_step = end

    return train_window


def build_evaluate(
    parts: StepParts, seed_batch: Callable[[int], Any]
) -> Callable[[list[tuple[Any, int, int]], int], Tensor]:
    """``evaluate(taken, i)``: the loss of a whole window and its gradients, ready for optimizer i. ``taken`` holds
    (batch, batch_nb, global_step) for each batch."""
    window, optimizers, forward_backward = Window(), parts.optimizers, build_forward_backward(parts)
    progress = parts.progress

    def evaluate(taken: list[tuple[Any, int, int]], i: int) -> Tensor:
        clear_gradients(optimizers[i])
        window.open(len(taken), len(taken))
        total: Any = 0.0
        for batch, batch_nb, global_step in taken:
            progress.batch_nb, progress.global_step = batch_nb, global_step
            seed_batch(global_step)
            extra = (i,) if parts.takes_optimizer else ()
            total = total + forward_backward(window, batch, batch_nb, *extra).detach()
        correction = window.correction() if window.size > 1 else 1.0
        if correction != 1.0:
            scale_gradients(optimizers[i : i + 1], correction)
        for prepare in parts.before_update:
            prepare(optimizers[i : i + 1])
        return total * correction  # type: ignore[no-any-return]

    return evaluate


def only_requiring(optimizers: Sequence[Optimizer], optimizer_i: int) -> AbstractContextManager[None]:
    """A scope in which, of all parameters in ``optimizers``, only those of one require gradients."""
    return nullcontext() if len(optimizers) == 1 else _only_requiring(optimizers, optimizer_i)


@contextmanager
def _only_requiring(optimizers: Sequence[Optimizer], optimizer_i: int) -> Iterator[None]:
    own = {id(p) for group in optimizers[optimizer_i].param_groups for p in group["params"]}
    others = [p for o in optimizers for group in o.param_groups for p in group["params"]]
    frozen = [p for p in others if id(p) not in own and p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad = False
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad = True
