"""Windows of a ``training_step`` that makes its own steps (``automatic_optimization = False``).

A window is one batch. Gradients stay from one batch to the next until a step clears them, and are saved. Imported only
where such a module is trained.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from pytorch_lightning.errors import FitError, MisconfigurationException, describe
from pytorch_lightning.faults import fault
from pytorch_lightning.precision.precision import NotStepped
from pytorch_lightning.run.metrics import Weighed, at, read_output, to_number
from pytorch_lightning.steps.current_step import BY_HAND, FETCHING, PREPARING
from pytorch_lightning.steps.exchange import Exchange
from pytorch_lightning.steps.optimizers import gradients_of, leaving_sparse, needs_closure, parameters_of
from pytorch_lightning.steps.step_inputs import StepInputs, TrainWindow, build_finish_batch

OVER = object()
HAS_LOSS = torch.zeros((), requires_grad=True)
"""Stands for the loss where only the rest of what a step returned is read."""


class ManualSteps:
    """What ``manual_backward``, ``manual_step`` and the optimizers' own ``step()`` do in such a ``training_step``."""

    def __init__(self, inputs: StepInputs, exchange: Exchange | None) -> None:
        self._inputs, self.exchange, optimizers = inputs, exchange, inputs.optimizers
        self._sets = [self._functions(inputs.timed), self._functions(lambda phase, function: function)]
        self._backward, self._prepare, self._steps = self._sets[1]
        self._stepped = [False for _ in optimizers]
        self._depth = [0 for _ in optimizers]
        self._inside = False
        """Whether an optimizer's own ``step()`` is called from here."""
        self._scaled = bool(gradients_of(optimizers))
        """Whether a backward pass since the start was scaled, where that is needed."""
        self.saw_nonfinite = False
        self._hooks: list[Any] = []
        for i, optimizer in enumerate(optimizers):
            self._hooks.append(optimizer.register_step_pre_hook(partial(self._before_own_step, i)))
            self._hooks.append(optimizer.register_step_post_hook(partial(self._after_own_step, i)))

    def _functions(self, timed: Callable[..., Any]) -> tuple[Any, Any, Any]:
        """The backward pass, what makes gradients ready, and the steps."""
        inputs = self._inputs
        plain, named = inputs.precision.outside, partial(timed, "optimizer")
        steps = [plain(inputs.precision.step_function(optimizer)) for optimizer in inputs.optimizers]
        if inputs.fuses:
            steps = [leaving_sparse(o, step) for o, step in zip(inputs.optimizers, steps, strict=True)]
        prepare = [named(function) for function in inputs.before_update]
        return timed("backward", plain(inputs.precision.backward)), prepare, [named(step) for step in steps]

    def open(self, timed: bool) -> None:
        """A ``training_step`` is about to run."""
        self._backward, self._prepare, self._steps = self._sets[0 if timed else 1]
        self._depth[:] = [0 for _ in self._depth]
        self._inside = self.saw_nonfinite = False

    def detach(self) -> None:
        """Other optimizers take the place of these."""
        for hook in self._hooks:
            hook.remove()

    def _require(self, name: str) -> None:
        if self._inputs.current.phase != BY_HAND:
            raise MisconfigurationException(f"{name} works in training_step only. {at(self._inputs.progress)}")

    # ------------------------------------------------------------------ by the module
    def backward(self, loss: Any, **options: Any) -> None:
        """See ``LightningModule.manual_backward``."""
        inputs, what = self._inputs, "manual_backward"
        self._require(what)
        if not isinstance(loss, Tensor) or not loss.requires_grad:
            without = "a tensor without a graph (it doesn't require gradients)"
            received = without if isinstance(loss, Tensor) else describe(loss)
            raise FitError(f"{what} got {received}; expected a loss that can be trained on. {at(inputs.progress)}")
        if loss.numel() != 1 and options.get("gradient") is None:
            shape = f"a loss of shape {tuple(loss.shape)}"
            raise FitError(f"{what} got {shape}; expected one element. Pass loss.mean(). {at(inputs.progress)}")
        self._check(loss)
        self._scaled = True
        self._backward(loss, **options)

    def _check(self, loss: Tensor) -> None:
        if loss.numel() != 1 or loss.is_complex():
            return
        if self._inputs.on_device:
            self._inputs.metrics.watch(loss.detach())
        elif not math.isfinite(value := loss.item()):
            self.saw_nonfinite = True
            self._inputs.nonfinite(value)

    def step(self, i: int, loss: Any) -> None:
        """See ``LightningModule.manual_step``."""
        inputs, optimizers = self._inputs, self._inputs.optimizers
        self._require("manual_step")
        if type(i) is not int or not 0 <= i < len(optimizers):
            raise FitError(f"manual_step got optimizer_i={i!r}, and there are {len(optimizers)}. {at(inputs.progress)}")
        optimizer, kind = optimizers[i], type(optimizers[i]).__name__
        if needs_closure(optimizer):
            advice = f"Write self.trainer.optimizers[{i}].step(closure)"
            raise FitError(f"{kind} evaluates the loss itself, which manual_step can't do. {advice}.")
        if loss is not None:
            self.backward(loss, inputs=[p for p in parameters_of([optimizer]) if p.requires_grad])
        if self.exchange is not None:
            self.exchange.share_gradients(i, dict.fromkeys(parameters_of([optimizer])))
        if not gradients_of([optimizer]):
            raise FitError(
                f"manual_step({i}): no parameter of that {kind} has a gradient. Call self.manual_backward(loss) before,"
                f" or pass loss=loss, a loss that depends on them. {at(inputs.progress)}"
            )
        if inputs.precision.scales and not self._scaled:
            raise FitError(f"the gradients of manual_step({i}) aren't scaled. {self._what_to_write(i)}")
        fault("update.begin")
        for prepare in self._prepare:
            prepare([optimizer])
        self._inside = True
        try:
            outcome = self._steps[i](None)
        finally:
            self._inside = False
        for hook in inputs.before_clear:
            hook(optimizer)
        self._clear(i)
        if inputs.precision.scales:
            self._update_scale()
        if type(outcome) is not NotStepped:
            self._note(i)
        fault("update.end")

    def _clear(self, i: int) -> None:
        if self._inputs.gradients.clears_itself[i]:
            self._inputs.optimizers[i].zero_grad()
            return
        for parameter in parameters_of([self._inputs.optimizers[i]]):
            parameter.grad = None

    def _update_scale(self) -> None:
        """Gradients that wait for another step are those of the scale from before: bring them to the new one."""
        precision, self._scaled = self._inputs.precision, False
        before = precision.scale
        precision.update()
        factor = precision.scale / before
        waiting = gradients_of(self._inputs.optimizers)
        self._scaled = bool(waiting)
        for parameter in waiting if factor != 1.0 else ():
            parameter.grad.mul_(factor)

    def _note(self, i: int) -> None:
        """Optimizer ``i`` has stepped."""
        self._inputs.progress.nb_optimizer_steps += 1
        self._stepped[i] = True
        for advance in self._inputs.schedules:
            advance(self._stepped)
        self._stepped[i] = False

    # ------------------------------------------------------------------ by the optimizers' own step()
    def _what_to_write(self, i: int) -> str:
        write = f"Write self.manual_backward(loss) and self.manual_step({i}) in the place of loss.backward() and"
        return f"{write} optimizer.step(). {at(self._inputs.progress)}"

    def _before_own_step(self, i: int, optimizer: Optimizer, arguments: Any, named: Any) -> Any:
        if self._inside or self._inputs.current.phase != BY_HAND:
            return None
        self._depth[i] += 1  # a subclass may call the step of its base class, which has the same hooks
        if self._depth[i] > 1:
            return None
        if self._inputs.precision.scales or self.exchange is not None:
            scaled = "with precision='16' gradients are scaled"
            why = scaled if self._inputs.precision.scales else "with several processes gradients must be exchanged"
            raise FitError(f"training_step called optimizer.step(), and {why}. {self._what_to_write(i)}")
        fault("update.begin")
        closure = named.get("closure", arguments[1] if len(arguments) > 1 else None)
        if closure is None or not self._prepare:
            for prepare in self._prepare:
                prepare([optimizer])
            return None

        def evaluate() -> Any:
            loss = closure()
            for prepare in self._prepare:
                prepare([optimizer])
            return loss

        if "closure" in named:
            return arguments, {**named, "closure": evaluate}
        return (arguments[0], evaluate, *arguments[2:]), named

    def _after_own_step(self, i: int, *_: Any) -> None:
        if self._inside or self._inputs.current.phase != BY_HAND:
            return
        self._depth[i] -= 1
        if not self._depth[i]:
            self._note(i)
            fault("update.end")


class Output:
    """What such a ``training_step`` returned: nothing, or a loss and ``prog`` to be shown."""

    def __init__(self, inputs: StepInputs, given: Any) -> None:
        self.loss: Any = None
        self.prog: Any = None
        self.count: float | None = None
        self.weight = 1.0
        """That of what this process gave for the epoch."""
        if given is None:
            return
        self.loss = given.get("loss") if isinstance(given, Mapping) else given
        if isinstance(given, Mapping):
            _, self.prog, self.count = read_output({**given, "loss": HAS_LOSS}, inputs.name, inputs.progress)[:3]
            self.weight = 1.0 if self.count is None else self.count
        if isinstance(self.loss, Tensor) and self.loss.numel() == 1:
            self.loss = self.loss.detach().reshape(())
        elif self.loss is not None and to_number(self.loss) is None:
            received = f"'loss': {describe(self.loss)}" if isinstance(given, Mapping) else describe(given)
            raise FitError(
                f"{inputs.name} returned {received}; expected None, or a loss of one element or a dict with the keys"
                f" 'loss' and 'prog', which are shown. {at(inputs.progress)}"
            )

    def record(self, inputs: StepInputs, saw_nonfinite: bool) -> None:
        """Keep it, as the metrics of the batch."""
        loss, metrics = self.loss, inputs.metrics
        prog = metrics.take_of_epoch(self.prog, metrics.mine[0], self.weight)
        if loss is None or self.count == 0:
            metrics.show(prog)
            return
        if not inputs.on_device or not isinstance(loss, Tensor):
            loss = float(loss)
            if not math.isfinite(loss) and not saw_nonfinite:
                inputs.nonfinite(loss)
        metrics.record(loss, prog, False, None if self.count is None else Weighed(loss, self.count))


def build_manual_window(
    inputs: StepInputs, steps: ManualSteps, seed_batch: Callable[[int], Any], timed: bool
) -> TrainWindow:
    """The window function: a batch, on which ``training_step`` makes the steps. ``timed``: its phases are measured."""
    progress, current, to_device, exchange = inputs.progress, inputs.current, inputs.to_device, steps.exchange
    before_batch, finish_batch = inputs.before_batch, build_finish_batch(inputs)
    step = inputs.timed("forward", inputs.step)

    def run(batch: Any) -> Output:
        if to_device is not None:
            batch = to_device(batch)
        # from here on what changes can't be taken back: gradients may wait from batch to batch
        progress.steps_begun, current.phase, current.arguments = True, BY_HAND, (batch, progress.batch_nb)
        steps.open(timed)
        return Output(inputs, step(batch, progress.batch_nb))

    def train_window(batches: Iterator[Any], size: int, accumulate: int) -> None:
        current.phase = FETCHING
        batch = next(batches, OVER)
        if batch is OVER:
            progress.epoch_over = True
            current.leave()
            return
        output, ends, there = None, False, batch is not None and (exchange is None or exchange.has(batch))
        if there:
            current.phase, current.arguments = PREPARING, (batch,)
            seed_batch(progress.global_step)
            ends = bool(before_batch) and -1 in [hook(batch) for hook in before_batch]
            if not ends:
                output = run(batch)
        has_run, ends = (output is not None, ends) if exchange is None else exchange.end(output, batch, ends)
        progress.epoch_over = progress.epoch_over or ends
        if has_run:
            if output is not None:
                output.record(inputs, steps.saw_nonfinite)
            finish_batch()
        elif not ends:  # skipped: it has a place in the epoch, and no step
            progress.batch_nb += 1
        current.leave()

    return train_window
