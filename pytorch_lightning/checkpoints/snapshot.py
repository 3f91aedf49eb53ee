"""A copy of a checkpoint that doesn't change while training continues, and checksums of its contents."""

import functools
import math
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn


class Snapshot:
    """Copies checkpoints to the CPU, into memory that is kept from one copy to the next.

    Whole storages are copied, so tensors that share one still do, and the file is the one that would have been
    written from the tensors themselves. Without ``release`` the memory of the last copy is used again.
    """

    def __init__(self) -> None:
        self._kept: list[Tensor] = []
        self._copies: dict[tuple[int, int, str], Tensor] = {}
        self._events: dict[torch.device, torch.Event] = {}

    def take(self, data: Any) -> Any:
        """``data``, nested plain data, with copies of its tensors. The copy before this one is overwritten.

        Copies from an accelerator are only queued: ``wait`` until they are there.
        """
        self._copies, self._events = {}, {}
        copy = self._copy(data)
        del self._kept[len(self._copies) :]
        self._copies = {}
        return copy

    def wait(self) -> None:
        """Return when the last copy is complete."""
        for event in self._events.values():
            event.synchronize()

    def release(self) -> None:
        """Give the memory back."""
        self._kept = []

    def _copy(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._copy_tensor(value)
        if type(value) is OrderedDict:
            copy = OrderedDict((key, self._copy(item)) for key, item in value.items())
            vars(copy).update(vars(value))  # the _metadata of a state_dict
            return copy
        if type(value) is dict:
            return {key: self._copy(item) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self._copy(item) for item in value)
        if hasattr(value, "_fields"):
            return value._make(map(self._copy, value))
        return value

    def _copy_tensor(self, tensor: Tensor) -> Tensor:
        if tensor.device.type == "meta":
            return tensor
        if not _is_plain(tensor):
            return tensor.detach().to("cpu", copy=True)
        storage = tensor.untyped_storage()
        key = storage.data_ptr(), storage.nbytes(), str(tensor.device)
        if key not in self._copies:
            self._copies[key] = self._copy_storage(storage, tensor.device)
        copy = torch.empty(0, dtype=tensor.dtype)
        source = self._copies[key].untyped_storage()
        copy.set_(source, tensor.storage_offset(), tensor.size(), tensor.stride())
        if isinstance(tensor, nn.Parameter):
            return nn.Parameter(copy, tensor.requires_grad)
        return copy.requires_grad_(tensor.requires_grad)

    def _copy_storage(self, storage: torch.UntypedStorage, device: torch.device) -> Tensor:
        place, pinned = len(self._copies), device.type == "cuda"
        kept = self._kept[place] if place < len(self._kept) else None
        if kept is None or kept.nbytes != storage.nbytes() or kept.is_pinned() != pinned:
            kept = torch.empty(storage.nbytes(), dtype=torch.uint8, pin_memory=pinned)
            self._kept[place : place + 1] = [kept]
        source = torch.empty(0, dtype=torch.uint8, device=device).set_(storage)
        if device.type == "cpu":
            # in this thread alone: where cores are busy, waiting for torch's other threads costs a hundred times that
            kept.numpy()[:] = source.numpy()
        else:
            kept.copy_(source, non_blocking=pinned)
        if pinned:
            # recorded behind every copy that is queued so far
            event = self._events.setdefault(device, torch.Event(device))
            event.record(torch.accelerator.current_stream(device))
        return kept


def _is_plain(tensor: Tensor) -> bool:
    """Whether the tensor is a view of a storage and nothing more."""
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.layout == torch.strided
        and not (tensor.is_quantized or tensor.is_conj() or tensor.is_neg())
    )


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested plain data."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (Mapping, list, tuple)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from tensors_of(item)


def nb_bytes(checkpoint: Any) -> int:
    """About the size of the file: storages, each once, and their entries."""
    storages = {}
    for tensor in tensors_of(checkpoint):
        if tensor.layout == torch.strided and tensor.device.type != "meta":
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return sum(storages.values()) + 256 * len(storages)


def state_checksums(state_dict: Mapping[str, Any]) -> dict[str, int]:
    """A checksum of each tensor's dtype, shape and values, by name.

    >>> state_checksums({"a": torch.ones(2), "n": 3})
    {'a': 1921701248}
    """
    return {name: checksum(value) for name, value in state_dict.items() if isinstance(value, Tensor)}


def checksum(tensor: Tensor) -> int:
    """A checksum of the tensor's dtype, shape and values."""
    start = checksum_of_kind(tensor.dtype, tensor.shape)
    try:  # most can be read as they are, several times as fast
        return zlib.crc32(cast("Any", tensor.numpy()), start)
    except (TypeError, RuntimeError, ValueError, BufferError):
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta":
            return start
    plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    flat = plain.as_strided((plain.numel(),), (1,))  # that of one number may have any stride
    return zlib.crc32(flat.view(torch.uint8).numpy().data, start)


@functools.lru_cache(maxsize=1024)
def checksum_of_kind(dtype: torch.dtype, shape: torch.Size) -> int:
    """The checksum of a tensor without values."""
    return zlib.crc32(f"{dtype} {tuple(shape)}".encode())


def changed_tensors(saved: Mapping[str, Any], state_dict: Mapping[str, Any]) -> list[str]:
    """The names of the saved tensors that ``state_dict`` lacks or holds with other values, and of those it adds.

    ``saved`` has a checksum of each, or a list of (first index in each dimension, shape, checksum) of its shards.
    """
    now = {name: value for name, value in state_dict.items() if isinstance(value, Tensor)}
    return [n for n in {**saved, **now} if n not in saved or n not in now or not _is_same(saved[n], now[n])]


def _is_same(saved: Any, tensor: Tensor) -> bool:
    if isinstance(saved, int):
        return saved == checksum(tensor)
    places = [tuple(slice(o, o + n) for o, n in zip(offset, shape, strict=True)) for offset, shape, _ in saved]
    return sum(math.prod(shape) for _, shape, _ in saved) == tensor.numel() and all(
        checksum(tensor[place]) == crc for place, (_, _, crc) in zip(places, saved, strict=True)
    )
