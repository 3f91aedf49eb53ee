"""What a user's own optimizer keeps beside torch's state: attributes that change, and optimizers inside of it."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from pytorch_lightning.resume.plain_values import Decoder, Encoder, NotPlainError, fingerprint
from pytorch_lightning.steps.optimizers import parameters_of

OF_TORCH = {*vars(torch.optim.SGD([torch.zeros(1)], 0.1)), "step", "_opt_called"}
"""What torch itself, and its schedules, set on an optimizer."""


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

    def __init__(self, optimizer: Any, say_lost: Callable[[str], object]) -> None:
        self._optimizer, self._say_lost = optimizer, say_lost
        kind = type(optimizer)
        has_own = kind.__module__.startswith("torch.") or getattr(kind, "state_dict", None) is not Optimizer.state_dict
        self._names = () if has_own else tuple(n for n in vars(optimizer) if n not in OF_TORCH)
        values = {name: getattr(optimizer, name) for name in self._names}
        self._inner = {name: value for name, value in values.items() if isinstance(value, Optimizer)}
        self._tied = [
            (inner, name)
            for inner in self._inner.values()
            for name in ("param_groups", "state")
            if getattr(inner, name) is getattr(optimizer, name)
        ]
        self._first = {name: self._mark(value) for name, value in values.items()}

    def _mark(self, value: Any) -> Any:
        encoder = ParameterEncoder(parameters_of([self._optimizer]))
        try:
            return fingerprint(encoder.nodes, encoder.add(value))
        except NotPlainError:
            return id(value)

    def state_dict(self) -> dict[str, Any]:
        """What changed since ``configure_optimizers``; empty where nothing did."""
        encoder, values = ParameterEncoder(parameters_of([self._optimizer])), {}
        inner = {name: optimizer.state_dict() for name, optimizer in self._inner.items()}
        for name in self._names if self._first else ():
            value = getattr(self._optimizer, name, None)
            if name in inner or self._mark(value) == self._first[name]:
                continue
            try:
                values[name] = encoder.add(value)
            except NotPlainError:
                self._say_lost(f"{type(self._optimizer).__name__}.{name}")
        return {"nodes": encoder.nodes, "values": values, "inner": inner} if values or inner else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put it back, after torch's own state."""
        for name, optimizer in self._inner.items():
            optimizer.load_state_dict(state["inner"][name])
        for inner, name in self._tied:
            setattr(inner, name, getattr(self._optimizer, name))
        decoder = ParameterDecoder(state["nodes"], parameters_of([self._optimizer]))
        for name, value in state["values"].items():
            if name in self._names:
                setattr(self._optimizer, name, decoder.value(value, getattr(self._optimizer, name)))
