"""Where a module runs, and how a step gets there: the interface."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class Strategy(ABC):
    """Places a module and hands out its step methods as callables."""

    device: torch.device

    @abstractmethod
    def place(self, module: nn.Module, dtype: torch.dtype | None) -> None:
        """Move ``module`` to where it runs, converted to ``dtype`` (None: as it is). Changes it in place."""

    @abstractmethod
    def step_function(self, module: nn.Module, name: str) -> Callable[..., Any]:
        """The method ``name`` of ``module`` as it is to be called."""

    @abstractmethod
    def transfer(self, dtype: torch.dtype | None) -> Callable[[Any], Any] | None:
        """A function that brings a batch to the device; None where it is there already."""
