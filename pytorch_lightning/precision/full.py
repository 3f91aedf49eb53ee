"""One dtype for everything: '32', '64', 'bf16-true', '16-true'."""

from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from pytorch_lightning.precision.direct_step import direct_step
from pytorch_lightning.precision.precision import Precision

DTYPES = {"32": None, "64": torch.float64, "bf16-true": torch.bfloat16, "16-true": torch.float16}


class Full(Precision):
    """No autocast and no scaling. '32' converts nothing, so a model that is float64 already stays so."""

    # torch's own, so that a step has one frame less
    backward = staticmethod(Tensor.backward)  # type: ignore[assignment]

    def __init__(self, name: str) -> None:
        self.name, self.dtype = name, DTYPES[name]

    def forward(self, function: Callable[..., Any], cached: bool = True) -> Callable[..., Any]:
        return function

    def unscale(self, optimizers: Sequence[Optimizer]) -> None:
        pass

    def step_function(self, optimizer: Optimizer) -> Callable[[Callable[[], Any] | None], Any]:
        step = direct_step(optimizer)
        if "closure" not in signature(optimizer.step).parameters:
            return lambda _: step()
        return step

    def update(self) -> None:
        pass

    def refusal(self, optimizer: Optimizer) -> str | None:
        smallest = [group["eps"] for group in optimizer.param_groups if isinstance(group.get("eps"), float)]
        if self.name == "16-true" and any(float(torch.tensor(eps, dtype=torch.float16)) == 0.0 for eps in smallest):
            return (
                f"{type(optimizer).__name__} with eps={min(smallest)} divides by zero in float16 (eps rounds to 0) and"
                " gives NaN within a few steps. Use precision='16' or 'bf16', or SGD, or an eps of 1e-4 or more"
            )
        return None

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass
