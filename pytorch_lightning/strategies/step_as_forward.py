"""A step method as the forward of a module of its own, for wrappers that only know ``forward``."""

from typing import Any

import torch
from torch import Tensor, nn

IDLE_PASS = object()


class StepAsForward(nn.Module):
    """``forward`` is the method ``name`` of ``module``, which stays as it is.

    A ``training_step`` calls ``self.forward`` itself, so a wrapper around the module would never see the call.
    ``anchor`` is a parameter that only an idle pass uses: needed where some parameters may get no gradient.
    """

    def __init__(self, module: nn.Module, name: str, *, anchored: bool = False) -> None:
        super().__init__()
        self.module, self._name = module, name
        self.anchor = nn.Parameter(torch.zeros(1, device=_device_of(module))) if anchored else None

    def forward(self, *arguments: Any) -> Any:
        if arguments and arguments[0] is IDLE_PASS:
            return self._idle()
        return getattr(self.module, self._name)(*arguments)

    def _idle(self) -> Tensor:
        """A loss of 0 whose gradients are 0: for every parameter, or for the anchor alone."""
        if self.anchor is not None:
            return (self.anchor * 0.0).sum()
        sparse = {id(layer.weight) for layer in self.module.modules() if getattr(layer, "sparse", False)}
        used = [p for p in self.module.parameters() if p.requires_grad]
        return torch.stack([_nothing_of(p, id(p) in sparse) for p in used]).sum()


def _nothing_of(parameter: Tensor, sparse: bool) -> Tensor:
    """A 0 whose gradient is of the kind that training gives: sparse, or not."""
    if sparse:
        no_words = torch.zeros(0, dtype=torch.long, device=parameter.device)
        return nn.functional.embedding(no_words, parameter, sparse=True).sum().float()
    real = torch.view_as_real(parameter) if parameter.is_complex() else parameter
    return (real.reshape(-1)[0] * 0.0).float()


def _device_of(module: nn.Module) -> torch.device:
    parameter = next(module.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device
