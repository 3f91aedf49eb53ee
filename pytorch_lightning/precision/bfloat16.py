"""'bf16': autocast to bfloat16, float32 weights, no scaling."""

from collections.abc import Callable
from typing import Any

import torch

from pytorch_lightning.precision.full import Full


class BFloat16(Full):
    """Matrix products in bfloat16. Its exponent is float32's, so gradients need no scaling."""

    def __init__(self, device: torch.device) -> None:
        super().__init__("32")
        self.name, self._device_type = "bf16", device.type

    def forward(self, function: Callable[..., Any], cached: bool = True) -> Callable[..., Any]:
        return torch.autocast(self._device_type, torch.bfloat16, cache_enabled=cached)(function)  # type: ignore[no-any-return]

    def outside(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return torch.autocast(self._device_type, enabled=False)(function)  # type: ignore[no-any-return]
