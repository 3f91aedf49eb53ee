"""Batches to a device."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


def build_transfer(
    device: torch.device, dtype: torch.dtype | None = None, *, from_device: bool = False
) -> Callable[[Any], Any] | None:
    """A function that gives a batch on ``device``, its floating tensors in ``dtype`` (None: as they are).

    Goes into lists, tuples, named tuples, dicts and dataclasses; takes anything with ``.to(device)``; passes
    everything else through; None where nothing would ever change. The batch that it is given isn't changed.
    ``from_device``: batches may be elsewhere than on the CPU.
    """
    cpu = device.type == "cpu"
    if cpu and dtype is None and not from_device:
        return None

    def tensor_to(tensor: Tensor) -> Tensor:
        if dtype is not None and tensor.is_floating_point():
            return tensor.to(device, dtype, non_blocking=not cpu)
        return tensor.to(device, non_blocking=not cpu)

    def transfer(value: Any) -> Any:
        if isinstance(value, Tensor):
            return tensor_to(value)
        if isinstance(value, (str, bytes, int, float, type(None))):
            return value
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(transfer, value))
        if isinstance(value, (list, tuple)):
            return type(value)(map(transfer, value))
        if isinstance(value, Mapping):
            moved = {key: transfer(item) for key, item in value.items()}
            # keeps an OrderedDict or a user's mapping what it was, where its constructor takes a dict
            return moved if type(value) is dict else _like(value, moved)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            changed = {f.name: transfer(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
            return dataclasses.replace(value, **changed)
        if callable(getattr(value, "to", None)):
            return value.to(device)
        return value

    return transfer


def _like(value: Mapping[Any, Any], moved: dict[Any, Any]) -> Any:
    try:
        return type(value)(moved)  # type: ignore[call-arg]
    except TypeError:
        return moved
