"""The step of optimizers through the user's own ``optimizer_step``, which may let a turn pass."""

from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from pytorch_lightning.errors import FitError
from pytorch_lightning.precision.precision import NotStepped
from pytorch_lightning.run.metrics import at
from pytorch_lightning.steps.optimizers import SteppedOptimizer, gradients_of
from pytorch_lightning.steps.step_inputs import StepInputs


class UserSteps:
    """Makes several windows one: gradients wait until the user calls ``step()``. Only then do they become a mean, by
    what each window weighs, and are made ready: norms and clipping see what the step uses."""

    def __init__(self, inputs: StepInputs, before_update: Sequence[Callable[[Sequence[Optimizer]], None]]) -> None:
        self._inputs, self._gradients, self._before_update = inputs, inputs.gradients, before_update
        self._which: Sequence[int] = ()
        self._ready: set[int] = set()
        self._passing: set[int] = set()
        self._before: dict[Any, Tensor] = {}
        """Gradients as they were before they were made ready together with those of another optimizer."""

    def weigh_waiting(self, which: Sequence[int], weight: float) -> None:
        """This window weighs ``weight``: bring its gradients to the unit of those that wait."""
        for i in which:
            first = self._gradients.waiting.get(i, (weight, 0.0))[0]
            if first != weight:
                self._gradients.scale((i,), float(weight / first))

    def begin(self, which: Sequence[int], weight: float, is_ready: bool) -> None:
        """The gradients of a window are there. ``is_ready``: a closure makes them ready itself."""
        self._which, self._ready, self._passing = which, {*which} if is_ready else set(), set()
        for i in () if is_ready else which:
            first, total = self._gradients.waiting.get(i, (float(weight), 0.0))
            self._gradients.waiting[i] = first, total + float(weight)

    def _make_ready(self, i: int) -> None:
        """Optimizer i steps now."""
        optimizers = self._inputs.optimizers
        if i in self._ready:
            return
        together = [j for j in self._which if j not in self._ready] if self._before_update else (i,)
        for j in together:
            for parameter in gradients_of([optimizers[j]]) if j != i else ():
                self._before[parameter] = parameter.grad.clone()
            first, total = self._gradients.waiting[j]
            if first != total:
                self._gradients.scale((j,), first / total)
        self._ready.update(together)
        for prepare in self._before_update:
            prepare([optimizers[j] for j in together])

    def _with_gradients_ready(self, i: int, own: Callable[[], Any]) -> Callable[[], Any]:
        """``own``, a closure that the user's code passed to optimizer i's ``step``: it evaluates a loss and its
        gradients itself, after which they are made ready. Raises ``FitError`` where that can't be right."""
        inputs, optimizer = self._inputs, self._inputs.optimizers[i]
        problem = ""
        if inputs.precision.scales:
            problem = "with precision='16' its gradients wouldn't be scaled. Use 'bf16' or '32'"
        elif inputs.current.slots:
            problem = "with several virtual ranks its gradients would be those of one of them"
        elif "closure" not in signature(optimizer.step).parameters:
            problem = f"{type(optimizer).__name__}.step doesn't take one"
        if problem:
            raise FitError(f"optimizer_step passed a closure to optimizer.step, and {problem}. {at(inputs.progress)}")
        if i not in self._ready:
            first, total = self._gradients.waiting[i]
            if first != total:
                self._gradients.scale((i,), first / total)
            self._ready.add(i)

        def evaluate() -> Any:
            loss = own()
            for prepare in self._before_update:
                prepare([optimizer])
            return loss

        return evaluate

    def end(self) -> None:
        """All have had their turn."""
        for i in self._which:
            if i not in self._passing:
                self._gradients.waiting.pop(i, None)
            for parameter in gradients_of([self._inputs.optimizers[i]]) if i in self._passing and self._before else ():
                parameter.grad = self._before.get(parameter, parameter.grad)
        self._before.clear()

    def build(self, i: int, step: Callable[..., Any]) -> Callable[..., Any]:
        """``step(closure)`` of optimizer i through the user's ``optimizer_step``."""
        optimizer, progress, user_step = self._inputs.optimizers[i], self._inputs.progress, self._inputs.optimizer_step
        scales, watch = self._inputs.precision.scales, getattr(optimizer, "register_step_pre_hook", None)
        assert user_step is not None

        def not_scaled() -> FitError:
            return FitError(
                "optimizer_step didn't call optimizer.step(): with precision='16' gradients can't be kept for a later"
                f" step, since their scale may change. Use accumulate_grad_batches. {at(progress)}"
            )

        def call_user_step(closure: Callable[[], Tensor] | None) -> Any:
            def step_now(own: Callable[[], Any] | None) -> Any:
                if handle is not None:
                    handle.remove()
                if own is not None:
                    return step(self._with_gradients_ready(i, own))
                self._make_ready(i)
                return step(closure)

            def step_itself(*_: Any) -> None:  # the user has the optimizer from somewhere else, and steps that one
                if scales:
                    raise not_scaled()
                self._make_ready(i)
                proxy.outcome = None

            proxy = SteppedOptimizer(optimizer, step_now, NotStepped.WAITING)
            handle = None if watch is None else watch(step_itself)
            try:
                user_step(progress.epoch, progress.batch_nb, proxy, i)
            finally:
                if handle is not None:
                    handle.remove()
            if proxy.outcome is NotStepped.WAITING and scales:
                raise not_scaled()
            # one that evaluates the loss itself begins anew each time, and cleared gradients are gone
            if proxy.outcome is NotStepped.WAITING and closure is None and gradients_of([optimizer]):
                self._passing.add(i)
            return proxy.outcome

        return call_user_step
