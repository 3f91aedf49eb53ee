"""``optimizer.step`` without what torch wraps around it, for the time in which nobody needs that."""

from collections.abc import Callable
from types import FunctionType
from typing import Any

from torch.autograd import profiler
from torch.optim import Optimizer
from torch.optim import optimizer as torch_optimizer

HOOKS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
GLOBAL_HOOKS = ("_global_optimizer_pre_hooks", "_global_optimizer_post_hooks")


def direct_step(optimizer: Optimizer) -> Callable[..., Any]:
    """A function that does what ``optimizer.step`` does, at the moment of each call.

    torch wraps each class's ``step`` in a range for its profiler and a walk over hooks: 33 us, a sixth of a step
    of a small network. What is inside is called itself while no profiler runs, no hook is registered and nobody has
    put a ``step`` of his own on the optimizer. ``optimizer.step`` itself where torch isn't built as expected here.
    """
    wrapper = type(optimizer).step
    if not _is_torchs(wrapper):
        return optimizer.step
    inner, own, put = wrapper.__wrapped__, vars(optimizer), vars(optimizer).get("step")  # type: ignore[attr-defined]
    # a scheduler puts its own there, to know whether there was a step before its own first one
    if put is not None and not (hasattr(put, "_wrapped_by_lr_sched") and put.__wrapped__ is wrapper):
        return optimizer.step
    before, after = (own[name] for name in HOOKS)
    before_any, after_any = (getattr(torch_optimizer, name) for name in GLOBAL_HOOKS)

    def step(*arguments: Any) -> Any:
        if (
            before
            or after
            or before_any
            or after_any
            or profiler._is_profiler_enabled
            or own.get("step") is not put
            or (put is not None and "_opt_called" not in own)
        ):
            return optimizer.step(*arguments)
        return inner(optimizer, *arguments)

    return step


def _is_torchs(wrapper: Any) -> bool:
    """Whether this is torch's own wrapper of a class's ``step``, with nothing added to it."""
    if not isinstance(wrapper, FunctionType) or not hasattr(profiler, "_is_profiler_enabled"):
        return False
    around: Any = getattr(Optimizer, "profile_hook_step", None)
    known = all(hasattr(torch_optimizer, name) for name in GLOBAL_HOOKS)
    return known and around is not None and wrapper.__code__ is around(lambda: None).__code__
