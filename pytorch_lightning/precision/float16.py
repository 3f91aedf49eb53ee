"""'16': autocast to float16, float32 weights, scaled gradients."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from pytorch_lightning.precision.precision import NotStepped, Precision


class Float16(Precision):
    """Autocast with ``torch.amp.GradScaler``: a step with a gradient that isn't finite is skipped and the scale
    halved, as in Micikevicius et al., "Mixed Precision Training" (2018)."""

    name = "16"
    scales = True

    def __init__(self, device: torch.device) -> None:
        self._device, self._device_type = device, device.type
        self._scaler = torch.amp.GradScaler(device.type)
        self._has_stepped = self._has_scale = False

    def forward(self, function: Callable[..., Any], cached: bool = True) -> Callable[..., Any]:
        return torch.autocast(self._device_type, torch.float16, cache_enabled=cached)(function)  # type: ignore[no-any-return]

    def outside(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return torch.autocast(self._device_type, enabled=False)(function)  # type: ignore[no-any-return]

    def backward(self, loss: Tensor, **options: Any) -> None:
        self._scaler.scale(loss).backward(**options)  # type: ignore[no-untyped-call]

    @property
    def scale(self) -> float:
        self._make_scale()
        return self._scaler.get_scale()

    def unscale(self, optimizers: Sequence[Optimizer]) -> None:
        self._make_scale()
        done: set[int] = set()
        for optimizer in optimizers:
            own = {id(p): p for group in optimizer.param_groups for p in group["params"] if p.grad is not None}
            for shared in done & own.keys():  # the scaler would divide it a second time; its scale is a power of two
                own[shared].grad.mul_(self._scaler.get_scale())
            self._scaler.unscale_(optimizer)
            done |= own.keys()

    def _make_scale(self) -> None:
        """torch makes it at the first loss: another process may have had one, and this one none."""
        if not self._has_scale:
            self._has_scale = True
            self._scaler.scale(torch.zeros((), device=self._device))

    def step_function(self, optimizer: Optimizer) -> Callable[[Callable[[], Any] | None], Any]:
        stepped = False

        def note_step(optimizer: Optimizer, *_: Any) -> None:
            # a fused optimizer is always called; its kernel skips the step by the flag that the scaler left on it
            nonlocal stepped
            found = getattr(optimizer, "found_inf", None)
            stepped = found is None or not bool(found)

        # most optimizers are called only where every gradient is finite
        optimizer.register_step_post_hook(note_step)

        def step(closure: Callable[[], Any] | None) -> Any:
            nonlocal stepped
            stepped, self._has_stepped = False, True
            self._make_scale()
            self._scaler.step(optimizer)
            return None if stepped else NotStepped.SKIPPED

        return step

    def update(self) -> None:
        if self._has_stepped:  # in a window that contributes nothing nobody has
            self._scaler.update()
        self._has_stepped = False

    def refusal(self, optimizer: Optimizer) -> str | None:
        if isinstance(optimizer, torch.optim.LBFGS):
            return "torch's GradScaler doesn't support LBFGS's closure. Use precision='bf16' or '32'"
        if any(p.is_complex() for group in optimizer.param_groups for p in group["params"]):
            return "torch's GradScaler doesn't support complex parameters. Use precision='bf16' or '32'"
        return None

    def state_dict(self) -> dict[str, Any]:
        return self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._scaler.load_state_dict(state)
