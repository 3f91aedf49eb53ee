"""'16': autocast to float16, float32 weights, scaled gradients."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from pytorch_lightning.precision.precision import Precision


class Float16(Precision):
    """Autocast with ``torch.amp.GradScaler``: a step with a gradient that isn't finite is skipped and the scale
    halved, as in Micikevicius et al., "Mixed Precision Training" (2018)."""

    name = "16"

    def __init__(self, device: torch.device) -> None:
        self._device_type = device.type
        self._scaler = torch.amp.GradScaler(device.type)
        self._watched: dict[int, Optimizer] = {}
        self._stepped = False

    def forward(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return torch.autocast(self._device_type, torch.float16)(function)  # type: ignore[no-any-return]

    def backward(self, loss: Tensor) -> None:
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def unscale(self, optimizer: Optimizer) -> None:
        self._scaler.unscale_(optimizer)

    def step(self, optimizer: Optimizer, closure: Callable[[], Tensor] | None = None) -> bool:
        if id(optimizer) not in self._watched:
            self._watched[id(optimizer)] = optimizer
            optimizer.register_step_post_hook(self._note_step)
        self._stepped = False
        self._scaler.step(optimizer)
        # set by the hook: the scaler calls most optimizers only where every gradient is finite
        return self._stepped

    def _note_step(self, optimizer: Optimizer, *_: Any) -> None:
        # a fused optimizer is always called and skips the step in its kernel, by the flag that the scaler left on it
        found = getattr(optimizer, "found_inf", None)
        self._stepped = found is None or not bool(found)

    def update(self) -> None:
        self._scaler.update()

    def refusal(self, optimizer: Optimizer) -> str | None:
        if isinstance(optimizer, torch.optim.LBFGS):
            return "torch's GradScaler doesn't support LBFGS's closure. Use precision='bf16' or '32'"
        return None

    def state_dict(self) -> dict[str, Any]:
        return self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._scaler.load_state_dict(state)
