"""Batches to a device."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from pytorch_lightning.data.casting import cast_dtype
from pytorch_lightning.nested import map_tensors


def build_transfer(
    device: torch.device, dtype: torch.dtype | None = None, *, from_device: bool = False
) -> Callable[[Any], Any] | None:
    """A function that gives a batch on ``device``, its floating tensors in ``dtype`` (None: as they are).

    Goes into containers of all kinds and dataclasses; takes anything with ``.to(device)``; passes
    everything else through; None where nothing would ever change. The batch that it is given isn't changed.
    ``from_device``: batches may be elsewhere than on the CPU.
    """
    cpu = device.type == "cpu"
    if cpu and dtype is None and not from_device:
        return None
    beside = CopyStream(device) if device.type == "cuda" else None

    def tensor_to(tensor: Tensor) -> Tensor:
        if beside is not None and tensor.device.type == "cpu" and is_plain(tensor):
            tensor = beside.copy(tensor)
        return tensor.to(device, cast_dtype(tensor, dtype), non_blocking=not cpu)

    def object_to(value: Any) -> Any:
        if isinstance(value, PackedSequence):  # its lengths stay on the CPU
            return value.to(device, cast_dtype(value.data, dtype))  # type: ignore[arg-type]
        moved = value.to(device)
        moved = value if moved is None else moved  # one that changes itself
        return moved if dtype is None else map_tensors(moved, tensor_to)

    def transfer(value: Any) -> Any:
        return map_tensors(value, tensor_to, object_to, moves_itself)

    return transfer


def moves_itself(value: Any) -> bool:
    """Whether a batch object has a ``to`` of its own, which knows best, whatever else it is (a named tuple, a dict)."""
    return callable(getattr(value, "to", None))


def is_plain(tensor: Tensor) -> bool:
    """Whether ``tensor`` is laid out so that it can be pinned: others can't always be."""
    return not tensor.is_nested and tensor.is_contiguous()


class CopyStream:
    """Copies to a CUDA device on a stream of its own, from pinned memory.

    Training doesn't wait for the device, so the copy of a batch is queued while earlier steps still run there, and
    runs beside them. What is queued later waits for the copy.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None

    def copy(self, tensor: Tensor) -> Tensor:
        """``tensor``, contiguous and on the CPU, on the device."""
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        source = tensor if tensor.is_pinned() else tensor.pin_memory()
        with torch.cuda.stream(self._stream):
            copied = source.to(self._device, non_blocking=True)
        using = torch.cuda.current_stream(self._device)
        using.wait_stream(self._stream)
        # its memory was taken on the other stream, and mustn't be given to a later copy while this one uses it
        copied.record_stream(using)
        return copied
