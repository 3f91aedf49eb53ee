"""What a user's own optimizer keeps beside torch's state: attributes that change, and optimizers inside of it."""

from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pytorch_lightning.resume.plain_values import Decoder, Encoder, NotPlainError, fingerprint
from pytorch_lightning.steps.optimizers import parameters_of


@cache
def of_torch() -> frozenset[str]:
    """What torch itself, and its schedules, set on an optimizer. (To make one loads torch's compiler.)"""
    return frozenset({*vars(torch.optim.SGD([torch.zeros(1)], 0.1)), "step", "_opt_called"})


class ParameterEncoder(Encoder):
    """Names the parameters of an optimizer by their place, so that they are themselves again afterwards."""

    def __init__(self, parameters: Sequence[Any]) -> None:
        super().__init__(float("inf"))
        self._places = {id(parameter): i for i, parameter in enumerate(parameters)}

    def _tensor(self, value: Any, kind: type) -> Any:
        place = self._places.get(id(value))
        return super()._tensor(value, kind) if place is None else ("parameter", place)


class ParameterDecoder(Decoder):
    """Finds them again."""

    def __init__(self, nodes: Sequence[Any], parameters: Sequence[Any]) -> None:
        device = parameters[0].device if parameters else torch.device("cpu")
        super().__init__(nodes, device, lambda address: True)
        self._parameters = parameters

    def _make(self, n: int, node: Any, like: Any) -> Any:
        return self._parameters[node[1]] if node[0] == "parameter" else super()._make(n, node, like)


class OwnState:
    """That of one optimizer. One of torch's has none; one with a ``state_dict`` of its own saves what it needs."""

    def __init__(self, optimizer: Any, above: tuple[Any, ...] = ()) -> None:
        self._optimizer, self._lost = optimizer, set[str]()
        kind = type(optimizer)
        self._has_none = (
            kind.__module__.startswith("torch.") or getattr(kind, "state_dict", None) is not Optimizer.state_dict
        )
        above = (*above, optimizer)
        found = _within(self._values(), {id(p) for p in parameters_of([optimizer])})
        self._inner = {name: value for name, value in found.items() if not any(value is one for one in above)}
        self._own = {n: OwnState(o, above) for n, o in self._inner.items() if isinstance(o, Optimizer)}
        holders = [optimizer, *(inner for inner in self._inner.values() if isinstance(inner, Optimizer))]
        self._ties, self._shared = _ties_of(holders), _shared_groups_of(holders)
        self._first = {name: self._mark(value) for name, value in self._values().items()}

    def _values(self) -> dict[str, Any]:
        return {} if self._has_none else {n: v for n, v in vars(self._optimizer).items() if n not in of_torch()}

    def _mark(self, value: Any) -> Any:
        """What tells whether ``value`` changed; of what isn't plain, as far as that shows."""
        if isinstance(value, torch.Generator):
            value = value.get_state()
        content = dict(value) if isinstance(value, dict) else getattr(value, "__dict__", None)
        for looked_at in (value, None if isinstance(value, nn.Module) else content):
            encoder = ParameterEncoder(parameters_of([self._optimizer]))
            with suppress(NotPlainError):
                return id(value) if looked_at is None else fingerprint(encoder.nodes, encoder.add(looked_at))
        return id(value)

    def state_dict(self) -> dict[str, Any]:
        """What changed since ``configure_optimizers``; empty where nothing did."""
        encoder, values = ParameterEncoder(parameters_of([self._optimizer])), {}
        tied = {name for holder, name, _, _ in self._ties if holder is self._optimizer}
        elsewhere = {*tied, *(name.partition("/")[0] for name in self._inner)}
        for name, value in self._values().items():
            if name in elsewhere or (name in self._first and self._mark(value) == self._first[name]):
                continue
            try:
                values[name] = encoder.add(value)
            except NotPlainError:
                self._lost.add(f"{type(self._optimizer).__name__}.{name}")
        inner = {name: one.state_dict() for name, one in self._inner.items()}
        own = {name: state for name, one in self._own.items() if (state := one.state_dict())}
        return {"nodes": encoder.nodes, "values": values, "inner": inner, "own": own} if values or inner else {}

    def lost(self) -> set[str]:
        """What changed, and can't be saved, as far as ``state_dict`` saw."""
        return self._lost.union(*(own.lost() for own in self._own.values()))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put it back, after torch's own state."""
        for name, one in self._inner.items():
            one.load_state_dict(state["inner"][name])
        for name, saved in state["own"].items():
            self._own[name].load_state_dict(saved)
        for holder, name, other, attribute in self._ties:
            setattr(holder, name, getattr(other, attribute))
        for inner, i, j in self._shared:
            inner.param_groups[i] = self._optimizer.param_groups[j]
        decoder = ParameterDecoder(state["nodes"], parameters_of([self._optimizer]))
        for name, value in state["values"].items():
            if name not in of_torch():
                setattr(self._optimizer, name, decoder.value(value, getattr(self._optimizer, name, None)))


def _within(values: dict[str, Any], parameters: set[int]) -> dict[str, Any]:
    """What has state of its own among attributes, lists and dicts: optimizers, schedules, modules that aren't the
    model's."""
    found = {}
    for name, value in values.items():
        items = (
            value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, (list, tuple)) else ())
        )
        for key, one in ((name, value), *((f"{name}/{key}", one) for key, one in items)):
            is_model = isinstance(one, nn.Module) and any(id(p) in parameters for p in one.parameters())
            if isinstance(one, (Optimizer, LRScheduler, nn.Module)) and not is_model:
                found[key] = one
    return found


def _ties_of(holders: Sequence[Any]) -> list[tuple[Any, str, Any, str]]:
    """Attributes that are the groups or the states of another of the optimizers."""
    known: dict[int, tuple[Any, str]] = {}
    for holder in holders:
        for name in ("param_groups", "state"):
            known.setdefault(id(getattr(holder, name)), (holder, name))
    return [
        (holder, name, *known[id(value)])
        for holder in holders
        for name, value in vars(holder).items()
        if id(value) in known and known[id(value)] != (holder, name)
    ]


def _shared_groups_of(holders: Sequence[Any]) -> list[tuple[Any, int, int]]:
    """Where a group of an inner optimizer is one of the outer one's."""
    places = {id(group): j for j, group in enumerate(holders[0].param_groups)}
    return [
        (inner, i, places[id(group)])
        for inner in holders[1:]
        for i, group in enumerate(inner.param_groups)
        if id(group) in places
    ]
