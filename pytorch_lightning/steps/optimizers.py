"""What ``configure_optimizers`` returned, made uniform: optimizers and schedules."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import MultiStepLR, ReduceLROnPlateau

from pytorch_lightning.errors import MisconfigurationException, describe

EXPECTED = "a list of optimizers, one optimizer, or (optimizers, schedulers)"


@dataclass(frozen=True)
class Schedule:
    """A scheduler, when it steps, and what it watches."""

    scheduler: Any
    optimizer_i: int
    interval: str = "epoch"
    monitor: str | None = None
    """The metric that its ``step`` is given; None where ``step()`` takes nothing."""
    frequency: int = 1
    """It steps at every so many of these."""


def read_optimizers(returned: Any, milestones: Sequence[int]) -> tuple[list[Optimizer], list[Schedule]]:
    """The optimizers and schedules of what ``configure_optimizers`` returned.

    ``milestones`` are epochs after which every rate is cut by 10. Raises ``MisconfigurationException`` for
    anything that isn't one of the forms it may return.
    """
    optimizers, schedulers = _split(returned)
    wrong = [o for o in optimizers if not callable(getattr(o, "step", None)) or not hasattr(o, "param_groups")]
    if wrong or not optimizers:
        received = describe(wrong[0]) if wrong else "an empty list"
        advice = " Write: return [torch.optim.Adam(self.parameters())]"
        if wrong and isinstance(wrong[0], type):
            advice = f" Make one: {wrong[0].__name__}(self.parameters(), ...)"
        elif wrong and isinstance(getattr(wrong[0], "optimizer", None), Optimizer):
            advice = " Write: return [optimizer], [scheduler]"
        raise MisconfigurationException(f"configure_optimizers returned {received}; expected {EXPECTED}.{advice}")
    schedules = [_read_schedule(value, optimizers) for value in schedulers]
    if milestones:
        schedules += [Schedule(MultiStepLR(o, list(milestones)), i) for i, o in enumerate(optimizers)]
    return optimizers, schedules


def _split(returned: Any) -> tuple[list[Any], list[Any]]:
    several = returned if isinstance(returned, (list, tuple)) else [returned]
    if several and all(isinstance(value, dict) and "optimizer" in value for value in several):
        return [value["optimizer"] for value in several], [s for value in several for s in _schedule_of(value)]
    if isinstance(returned, (list, tuple)):
        if len(returned) == 2 and isinstance(returned[0], (list, tuple)):
            return list(returned[0]), _as_list(returned[1])
        if len(returned) == 2 and hasattr(returned[0], "param_groups") and not hasattr(returned[1], "param_groups"):
            return [returned[0]], _as_list(returned[1])
        return list(returned), []
    return [returned], []


def _schedule_of(returned: dict[str, Any]) -> list[Any]:
    """The scheduler of a dictionary as Lightning 2 has them: ``{'optimizer': o, 'lr_scheduler': s, 'monitor': name}``,
    ``s`` being a scheduler or a dictionary of its own."""
    unknown = sorted(set(returned) - {"optimizer", "lr_scheduler", "monitor"})
    if unknown:
        raise MisconfigurationException(
            f"configure_optimizers returned a dict with {unknown}; expected 'optimizer', 'lr_scheduler' and 'monitor'."
            " Write: return [optimizer], [scheduler]."
        )
    value = returned.get("lr_scheduler")
    if value is None:
        return []
    options = dict(value) if isinstance(value, dict) else {"scheduler": value}
    if options.get("monitor") is None and "monitor" in returned:
        options["monitor"] = returned["monitor"]
    # what is so here in any case
    for name, kept in (("strict", True), ("reduce_on_plateau", None), ("name", None)):
        if name in options and (kept is None or options[name] == kept):
            del options[name]
    return [options]


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _read_schedule(value: Any, optimizers: list[Optimizer]) -> Schedule:
    options = dict(value) if isinstance(value, dict) else {"scheduler": value}
    unknown = sorted(set(options) - {"scheduler", "interval", "monitor", "frequency"})
    scheduler: Any = options.get("scheduler")
    interval = options.get("interval", "epoch")
    fits = callable(getattr(scheduler, "step", None)) and isinstance(options.get("monitor"), (str, type(None)))
    frequency = options.get("frequency", 1)
    fits = fits and type(frequency) is int and frequency >= 1
    if unknown or not fits or interval not in ("step", "epoch"):
        raise MisconfigurationException(
            f"configure_optimizers returned {describe(value)} as a scheduler; expected a scheduler or"
            " {'scheduler': s, 'interval': 'step' or 'epoch', 'frequency': n, 'monitor': name}."
            + (f" Remove {unknown}." if unknown else " Write: return [optimizer], [scheduler]")
        )
    places = [i for i, o in enumerate(optimizers) if o is getattr(scheduler, "optimizer", None)]
    if not places:
        raise MisconfigurationException(
            f"configure_optimizers returned a {type(scheduler).__name__} whose optimizer isn't among those that it"
            " returned. Return that optimizer too."
        )
    monitor = options.get("monitor")
    if monitor is None and isinstance(scheduler, ReduceLROnPlateau):
        monitor = "val_loss"
    if next(iter(signature(scheduler.step).parameters), "epoch") == "epoch":
        monitor = None  # it would take the value for the number of an epoch
    return Schedule(scheduler, places[0], interval, monitor, frequency)


def needs_closure(optimizer: Optimizer) -> bool:
    """Whether ``optimizer.step`` can't be called without a closure (LBFGS, say)."""
    closure = signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is Parameter.empty


def parameters_of(optimizers: Sequence[Optimizer]) -> list[Any]:
    """Every parameter of each of ``optimizers``, in the order of their groups."""
    return [parameter for optimizer in optimizers for group in optimizer.param_groups for parameter in group["params"]]


def gradients_of(optimizers: Sequence[Optimizer]) -> list[Any]:
    """The parameters of ``optimizers`` that have a gradient, in the optimizers' order, each once."""
    found = {}  # loops: a comprehension is one more call a step
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    found[id(parameter)] = parameter
    return list(found.values())


def use_fused(optimizer: Optimizer) -> None:
    """Let ``optimizer`` use torch's fused implementation where its class has one for the device and the user chose
    none. Without one torch itself takes foreach on accelerators, where that is the faster one."""
    for group in optimizer.param_groups:
        unchosen = group.get("fused", False) is None and group.get("foreach") is None
        if unchosen and not group.get("differentiable"):
            if not _has_fused(type(optimizer), group["params"]):
                continue
            group["fused"] = True
            for parameter in group["params"]:
                step = optimizer.state.get(parameter, {}).get("step")
                if isinstance(step, torch.Tensor):  # of a checkpoint that was written without
                    optimizer.state[parameter]["step"] = step.to(parameter.device, torch.float32)


def leaving_sparse(optimizer: Optimizer, step: Callable[..., Any]) -> Callable[..., Any]:
    """``step`` of an optimizer that may be fused, which no implementation is for sparse gradients. Where there are some
    shows at the first step in which every parameter has one: until then it looks."""
    looks = any(group.get("fused") for group in optimizer.param_groups)

    def look_and_step(*arguments: Any) -> Any:
        nonlocal looks
        if looks:
            looks = False
            for group in optimizer.param_groups:
                gradients = [parameter.grad for parameter in group["params"] if parameter.requires_grad]
                if any(gradient is not None and gradient.is_sparse for gradient in gradients):
                    group["fused"] = None
                waits = any(gradient is None for gradient in gradients)
                looks = looks or (waits and bool(group.get("fused")))
        return step(*arguments)

    return look_and_step


def _has_fused(kind: type[Optimizer], parameters: Sequence[Any]) -> bool:
    """Whether a fused step of this kind of optimizer works on such parameters."""
    try:
        for device, dtype in {(p.device, p.dtype) for p in parameters}:
            probe = torch.zeros(1, device=device, dtype=dtype, requires_grad=True)
            probe.grad = torch.zeros_like(probe)
            kind([probe], lr=0.1, fused=True).step()  # type: ignore[call-arg]
    except (RuntimeError, TypeError, ValueError):
        return False
    return True


class SteppedOptimizer:
    """What a user's ``optimizer_step`` gets: the optimizer, with a ``step()`` that goes through the precision."""

    def __init__(self, optimizer: Optimizer, step: Callable[..., Any], outcome: Any) -> None:
        self._optimizer, self._step = optimizer, step
        self.outcome = outcome
        """What the last ``step()`` gave; until it is called, what was passed."""

    def step(self, closure: Callable[[], Any] | None = None) -> None:
        """Step, unless a gradient isn't finite in 16 bit."""
        self.outcome = self._step(closure)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._optimizer, name)


@contextmanager
def without_gradients(parameters: Sequence[Any]) -> Iterator[None]:
    """A scope in which none of ``parameters`` requires gradients."""
    frozen = [p for p in parameters if p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad = False
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad = True
