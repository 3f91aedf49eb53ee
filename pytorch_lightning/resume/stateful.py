"""Objects that say themselves what their state is, by ``state_dict`` and ``load_state_dict``, as attributes."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Sampler

from pytorch_lightning.callbacks import Callback
from pytorch_lightning.resume.parts import load_in_place
from pytorch_lightning.resume.plain_values import Decoder, Encoder, NotPlainError, find_class
from pytorch_lightning.run.owners import has_state, is_of_the_program

NODE = "state"
OF_THE_FIT = "of the fit"


def keeps_state(value: Any) -> bool:
    """Whether what ``value.state_dict()`` gives is its state as an attribute. Modules, callbacks, loaders and samplers
    have places of their own in a checkpoint; to ask another library's iterable may begin to read its data."""
    if isinstance(value, (type, nn.Module, Callback, DataLoader, Sampler)) or not has_state(value):
        return False
    is_iterable = hasattr(type(value), "__iter__") or hasattr(type(value), "__getitem__")
    return not is_iterable or is_of_the_program(type(value).__module__)


def is_part_of(value: Any, roots: Iterable[Any]) -> bool:
    """Whether ``value`` is one of ``roots``, the optimizers and schedules of a fit, is held by one of them (the inner
    optimizer of another, a schedule in a sequence of schedules), or steps by the groups of one: these are saved with
    it, and to put its state back alone would tear them apart."""
    waiting, seen = [*roots], set[int]()
    shared = {id(part) for part in _ties(value)}
    while waiting:
        one = waiting.pop()
        if one is value or any(id(part) in shared for part in _ties(one)):
            return True
        if id(one) in seen:
            continue
        seen.add(id(one))
        for held in getattr(one, "__dict__", {}).values():
            items = held.values() if isinstance(held, dict) else held if isinstance(held, (list, tuple)) else [held]
            waiting += [item for item in items if keeps_state(item)]
    return False


def _ties(value: Any) -> list[Any]:
    """What optimizers that belong together have in common."""
    groups = getattr(value, "param_groups", None) if isinstance(value, Optimizer) else None
    return [groups, *groups] if isinstance(groups, list) else []


class StateEncoder(Encoder):
    """Keeps such objects by their state, of any size. ``is_of_the_fit`` tells those that a checkpoint has already: the
    optimizers and schedules that the fit steps, its training loader and data."""

    def __init__(self, limit: float, is_of_the_fit: Callable[[Any], bool]) -> None:
        super().__init__(limit)
        self._is_of_the_fit = is_of_the_fit

    def _instance(self, value: Any, kind: type) -> Any:
        name = f"{kind.__module__}.{kind.__qualname__}"
        if find_class(kind.__module__, kind.__qualname__) is kind or not keeps_state(value):
            return super()._instance(value, kind)
        if self._is_of_the_fit(value):
            return NODE, name, OF_THE_FIT
        try:
            state = value.state_dict()
        except Exception:  # a user's code
            raise NotPlainError from None
        size, limit, self._limit = self.size, self._limit, float("inf")
        try:
            return NODE, name, [self._add(state)]
        finally:
            self.size, self._limit = size, limit


class StateDecoder(Decoder):
    """Lets the object that is there take its state back."""

    def _make(self, n: int, node: Any, like: Any) -> Any:
        if node[0] != NODE:
            return super()._make(n, node, like)
        _, name, state = node
        if name != f"{type(like).__module__}.{type(like).__qualname__}" or not keeps_state(like):
            raise NotPlainError
        if state != OF_THE_FIT:
            load_in_place(like, self.value(state[0]))
        return like
