"""What a precision does to a step: the interface."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class NotStepped(Enum):
    """What an optimizer's turn gives that passed without a step."""

    SKIPPED = "a gradient wasn't finite"
    WAITING = "the user's optimizer_step let it pass: the gradients stay, and more are added"


class Precision(ABC):
    """Decides the dtype of weights and batches, wraps forward passes, scales gradients.

    ``dtype`` is what weights and floating inputs are converted to; None leaves both as they are.
    """

    name: str
    dtype: torch.dtype | None = None
    scales: bool = False
    """Whether gradients are scaled, so that ``unscale`` and ``update`` do something."""

    @abstractmethod
    def forward(self, function: Callable[..., Any], cached: bool = True) -> Callable[..., Any]:
        """``function`` as it runs in this precision. ``cached``: it doesn't change weights, so that each of them needs
        to be converted once only."""

    def outside(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, called inside of ``forward``, as it runs outside of it."""
        return function

    @abstractmethod
    def backward(self, loss: Tensor, **options: Any) -> None:
        """Add the gradients of ``loss`` (one element), scaled where this precision scales. ``options`` are those of
        ``Tensor.backward``: ``inputs``, say."""

    @property
    def scale(self) -> float:
        """What gradients are multiplied by now."""
        return 1.0

    @abstractmethod
    def unscale(self, optimizers: Sequence[Optimizer]) -> None:
        """Make the gradients of ``optimizers``, which may share some, true ones. At most once for each between two
        updates."""

    @abstractmethod
    def step_function(self, optimizer: Optimizer) -> Callable[[Callable[[], Any] | None], Any]:
        """``step(closure)``: steps ``optimizer``; ``NotStepped.SKIPPED`` where a gradient wasn't finite and it
        didn't."""

    @abstractmethod
    def update(self) -> None:
        """What follows once all optimizers of a window have had their turn."""

    @abstractmethod
    def refusal(self, optimizer: Optimizer) -> str | None:
        """Why ``optimizer`` can't be used in this precision, and what to do; None where it can."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """What has to be saved."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what ``state_dict`` gave."""
