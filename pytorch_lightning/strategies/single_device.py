"""One process, one device."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pytorch_lightning.data.casting import place
from pytorch_lightning.strategies.strategy import Strategy


class SingleDevice(Strategy):
    """The module on one device; its steps are its own methods.

    >>> from pytorch_lightning import Trainer
    >>> trainer = Trainer(distributed_backend=SingleDevice())  # what None means
    """

    name = "single"

    def place(self, module: nn.Module, dtype: torch.dtype | None) -> None:
        place(module, self.device, dtype)

    def step_function(self, module: nn.Module, name: str, *, takes_optimizer: bool = False) -> Callable[..., Any]:
        return getattr(module, name)  # type: ignore[no-any-return]
