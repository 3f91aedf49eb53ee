"""A module on a device, in another dtype."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

COMPLEX = {torch.float64: torch.complex128, torch.float32: torch.complex64}
"""The complex dtype of a width. Half as wide ones can't do what a model needs, so those tensors stay as they are."""


def cast_dtype(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    """The dtype of ``tensor`` where floats are converted to ``dtype`` (None: as they are): complex tensors stay
    complex, others than floats stay what they are."""
    if dtype is None:
        return tensor.dtype
    if tensor.is_complex():
        return COMPLEX.get(dtype, tensor.dtype)
    return dtype if tensor.is_floating_point() else tensor.dtype


def place(module: nn.Module, device: torch.device | None, dtype: torch.dtype | None) -> None:
    """Move ``module`` to ``device`` (None: where it is), its floats converted to ``dtype``. Changes it in place."""
    if dtype is None or not any(tensor.is_complex() for tensor in tensors_of(module)):
        module.to(device, dtype)
        return
    if device is not None:
        module.to(device)
    module._apply(lambda tensor: tensor.to(cast_dtype(tensor, dtype)))  # type: ignore[no-untyped-call]


def tensors_of(module: nn.Module) -> Iterable[Tensor]:
    """Parameters and buffers."""
    yield from module.parameters()
    yield from module.buffers()
