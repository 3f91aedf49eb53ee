"""What a precision does to a step: the interface, and the table of names."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Precision(ABC):
    """Decides the dtype of weights and batches, wraps forward passes, scales gradients.

    ``dtype`` is what weights and floating inputs are converted to; None leaves both as they are.
    """

    name: str
    dtype: torch.dtype | None = None
    scales: bool = False
    """Whether gradients are scaled, so that ``unscale`` and ``update`` do something."""

    @abstractmethod
    def forward(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function`` as it runs in this precision."""

    @abstractmethod
    def backward(self, loss: Tensor) -> None:
        """Add the gradients of ``loss`` (one element), scaled where this precision scales."""

    @abstractmethod
    def unscale(self, optimizer: Optimizer) -> None:
        """Make the gradients of ``optimizer`` true ones. At most once between two updates."""

    @abstractmethod
    def step_function(self, optimizer: Optimizer) -> Callable[[Callable[[], Any] | None], Any]:
        """``step(closure)``: steps ``optimizer``; ``SKIPPED`` where a gradient wasn't finite and it didn't."""

    @abstractmethod
    def update(self) -> None:
        """What follows once all optimizers of a window have stepped."""

    @abstractmethod
    def refusal(self, optimizer: Optimizer) -> str | None:
        """Why ``optimizer`` can't be used in this precision, and what to do; None where it can."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """What has to be saved."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what ``state_dict`` gave."""


SKIPPED = object()
"""What a step gives that was skipped."""

NAMES = ("32", "64", "bf16", "16", "bf16-true", "16-true")


def build_precision(name: str, device: torch.device) -> Precision:
    """The precision called ``name`` (one of ``NAMES``) for ``device``."""
    from pytorch_lightning.precision.bfloat16 import BFloat16
    from pytorch_lightning.precision.float16 import Float16
    from pytorch_lightning.precision.full import Full

    if name == "bf16":
        return BFloat16(device)
    if name == "16":
        return Float16(device)
    return Full(name)
