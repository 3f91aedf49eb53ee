"""A tensor in a few bytes: whether another one has the same bits, and about how far away it is if not."""

import dataclasses
import functools
import math
import struct
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

NB_PROJECTIONS = 3
WIDTH = 4096
"""A long tensor is folded into rows of this length."""

LENGTH = 27
"""Of a fingerprint as text, and longer than any float's ``hex()``."""

_packed = struct.Struct(f"<I{1 + NB_PROJECTIONS}f")


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """What is kept of a tensor."""

    crc: int
    """Of its type, shape and bytes."""
    norm: float
    """The root of the sum of squares."""
    projections: tuple[float, ...]
    """Sums of all elements with signs of their own. The root mean square of the differences of two tensors' sums is
    about the norm of the difference of these tensors (Johnson and Lindenstrauss, 1984)."""

    @classmethod
    def of(cls, tensor: Tensor) -> "Fingerprint":
        """That of ``tensor``, wherever it is."""
        tensor = tensor.detach().to("cpu")
        tensor = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
        tensor = (tensor.to_dense() if tensor.layout != torch.strided else tensor).contiguous()
        begin = zlib.crc32(f"{tensor.dtype}{[*tensor.shape]}".encode())
        crc = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, begin)
        values = tensor.double().reshape(-1)
        nb_rows = max(1, math.ceil(values.numel() / WIDTH))
        folded = torch.nn.functional.pad(values, (0, nb_rows * WIDTH - values.numel())).view(nb_rows, WIDTH)
        sums = (signs_of_rows(nb_rows) * (signs_of_columns() @ folded.T)).sum(1)
        return cls(crc, values.norm().item(), tuple(sums.tolist()))

    def far_from(self, other: "Fingerprint") -> float:
        """About the norm of the difference; 0 for the same bits."""
        if self.crc == other.crc:
            return 0.0
        squares = [(a - b) ** 2 for a, b in zip(self.projections, other.projections, strict=True)]
        return math.sqrt(sum(squares) / NB_PROJECTIONS)

    def to_text(self) -> str:
        """It in ``LENGTH`` characters."""
        largest = torch.finfo(torch.float32).max
        floats = [x if not math.isfinite(x) else min(max(x, -largest), largest) for x in (self.norm, *self.projections)]
        return b64encode(_packed.pack(self.crc, *floats)).decode().rstrip("=")

    @classmethod
    def from_text(cls, text: str) -> "Fingerprint":
        """What ``to_text`` gave. Raises ``ValueError`` for anything else."""
        try:
            crc, norm, *projections = _packed.unpack(b64decode(text + "=" * (-len(text) % 4), validate=True))
        except struct.error as error:
            raise ValueError(f"not a fingerprint: {text!r}") from error
        return cls(crc, norm, tuple(projections))


def _signs(*size: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2, size, generator=generator, dtype=torch.float64) * 2 - 1


@functools.cache
def signs_of_columns() -> Tensor:
    """Shape (NB_PROJECTIONS, WIDTH)."""
    return _signs(NB_PROJECTIONS, WIDTH, seed=1)


@functools.lru_cache(64)
def signs_of_rows(nb_rows: int) -> Tensor:
    """Shape (NB_PROJECTIONS, nb_rows)."""
    return _signs(NB_PROJECTIONS, nb_rows, seed=2)


def tensors_in(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors in nested data, by names such as ``batch[0]`` and ``batch['images']``. Numbers count as tensors."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, (bool, int, float)):
        yield name, torch.tensor(value, dtype=torch.float64)
    elif isinstance(value, str):
        yield name, torch.tensor([*value.encode()], dtype=torch.uint8)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from tensors_in(item, f"{name}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from tensors_in(item, f"{name}[{number}]")
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from tensors_in(getattr(value, field.name, None), f"{name}.{field.name}")
    elif hasattr(value, "__dict__"):  # an output or a graph of a library's own class
        for key, item in vars(value).items():
            yield from tensors_in(item, f"{name}.{key}")
