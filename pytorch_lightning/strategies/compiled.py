"""Any strategy, its steps compiled by ``torch.compile``."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from pytorch_lightning.errors import Notices
from pytorch_lightning.strategies.strategy import Strategy


class Compiled(Strategy):
    """What ``inner`` gives, compiled. The module itself isn't wrapped, so that its state keeps its names.

    Each shape is compiled for itself (``dynamic=False``, unless ``options`` say otherwise): kernels for any shape
    depend on which shapes came before, and a resumed run would round differently.
    """

    def __init__(self, inner: Strategy, options: Mapping[str, Any]) -> None:
        self._inner, self.device = inner, inner.device
        self._options = {"dynamic": False, **options}

    def __getattr__(self, name: str) -> Any:
        if name == "_inner":  # while it is being unpickled
            raise AttributeError(name)
        return getattr(self._inner, name)

    def place(self, module: nn.Module, dtype: torch.dtype | None) -> None:
        self._inner.place(module, dtype)

    def step_function(self, module: nn.Module, name: str) -> Callable[..., Any]:
        return torch.compile(self._inner.step_function(module, name), **self._options)

    def transfer(self, dtype: torch.dtype | None) -> Callable[[Any], Any] | None:
        return self._inner.transfer(dtype)


def compiling(inner: Strategy, options: bool | Mapping[str, Any], notices: Notices) -> Strategy:
    """``inner`` with compiled steps, where ``options`` aren't False and something can be compiled here."""
    if options is False:
        return inner
    compiled = Compiled(inner, {} if options is True else options)
    try:
        torch.compile(_probe, **compiled._options)(torch.ones(8, device=inner.device))
    except Exception as error:  # whatever is missing, training goes on without it
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        notices.say(
            "not-compiled", f"compile is on and nothing can be compiled here, so steps run as they are: {reason}"
        )
        return inner
    return compiled


def _probe(x: torch.Tensor) -> torch.Tensor:
    return (x + 1).relu()
