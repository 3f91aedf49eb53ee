"""sha256 of what a checkpoint holds: the same for the dict that is written and for the one that is read again."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from pytorch_lightning.checkpoints.checkpoint import TRAINER_KEYS

OF_TRAINING = ("optimizer_states", "lr_schedulers")
"""What of the trainer's own entries is trained, beside the module's."""
ADDED_LATER = ("checksums", "run")
"""Parts that a save gets while it is written."""


def digests(checkpoint: Mapping[str, Any]) -> dict[str, str]:
    """The hash of what was trained ('weights': the module's own entries, optimizers and schedules) and that of all that
    the save holds ('save')."""
    trained, rest = trained_in(checkpoint), dict(checkpoint["parts"])
    for name in ADDED_LATER:
        rest.pop(name, None)
    weights = digest(trained)
    others = {key: value for key, value in checkpoint.items() if key not in trained and key != "parts"}
    return {"weights": weights, "save": digest([weights, others, rest])}


def trained_in(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """What of a checkpoint was trained."""
    return {key: value for key, value in checkpoint.items() if key not in TRAINER_KEYS or key in OF_TRAINING}


def digest(value: Any) -> str:
    """sha256 of nested plain data, tensors by type, shape and bytes.

    >>> digest({"a": [1, torch.ones(2)]}) == digest({"a": [1, torch.ones(2)]}), digest([1]) == digest([1.0])
    (True, False)
    """
    found = hashlib.sha256()
    for word in _words(value):
        found.update(word)
    return found.hexdigest()


def _words(value: Any) -> Iterator[Any]:
    if isinstance(value, Tensor):
        yield f"tensor {value.dtype} {tuple(value.shape)}\n".encode()
        yield from _bytes_of(value)
    elif isinstance(value, Mapping):
        yield f"dict {len(value)}\n".encode()
        for key, item in value.items():
            yield from _words(key)
            yield from _words(item)
    elif isinstance(value, (list, tuple)):
        yield f"{'list' if isinstance(value, list) else 'tuple'} {len(value)}\n".encode()
        for item in value:
            yield from _words(item)
    elif isinstance(value, (str, bytes)):
        data = value.encode(errors="surrogatepass") if isinstance(value, str) else bytes(value)
        yield f"{'str' if isinstance(value, str) else 'bytes'} {len(data)}\n".encode()
        yield data
    else:  # None, numbers, a dtype, a device
        yield f"{type(value).__name__} {value!r}\n".encode()


def _bytes_of(tensor: Tensor) -> Iterator[Any]:
    tensor = tensor.detach()
    if tensor.layout == torch.sparse_coo:
        for part in (tensor._indices(), tensor._values()):
            yield from _words(part)
        return
    if tensor.device.type == "meta":
        return
    tensor = tensor.dequantize() if tensor.is_quantized else tensor
    tensor = (tensor if tensor.layout == torch.strided else tensor.to_dense()).resolve_conj().resolve_neg()
    yield tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def differences(one: Any, other: Any, name: str = "") -> Iterator[str]:
    """Where two checkpoints' data differ, with how much tensors and numbers do.

    >>> [*differences({"a": [1, torch.ones(2)]}, {"a": [1, torch.zeros(2)], "b": 2})]
    ["['a'][1] (by 1)", "['b'] (in one of them only)"]
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in dict.fromkeys([*one, *other]):
            if key in one and key in other:
                yield from differences(one[key], other[key], f"{name}[{key!r}]")
            else:
                yield f"{name}[{key!r}] (in one of them only)"
    elif isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from differences(a, b, f"{name}[{number}]")
    elif digest(one) != digest(other):
        yield f"{name}{_distance(one, other)}"


def _distance(one: Any, other: Any) -> str:
    if not isinstance(one, (Tensor, int, float)) or not isinstance(other, (Tensor, int, float)):
        return ""
    a, b = torch.as_tensor(one), torch.as_tensor(other)
    if a.dtype != b.dtype or a.shape != b.shape:
        return f" ({a.dtype} {tuple(a.shape)}, not {b.dtype} {tuple(b.shape)})"
    a, b = (x.to_dense() if x.layout != torch.strided else x for x in (a, b))
    kind = torch.complex128 if a.is_complex() else torch.float64
    return f" (by {(a.to(kind) - b.to(kind)).abs().max().item():.3g})" if a.numel() else ""
