"""Whether every process has the same weights: told by a checksum, which costs two numbers to exchange."""

import zlib
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pytorch_lightning.processes import Processes

INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@torch.no_grad()
def first_difference(module: nn.Module, processes: Processes, device: torch.device) -> str | None:
    """The first parameter that isn't the same, bit by bit, in every process, and whose is another than that of
    process 0; None where all are equal. All processes call it."""
    named = [(name, p) for name, p in module.named_parameters() if p.layout == torch.strided]
    each = sums([p.detach() for _, p in named])
    whole = zlib.crc32(repr(each).encode())
    extremes = torch.tensor([whole, -whole], device=device)
    dist.all_reduce(extremes, op=dist.ReduceOp.MAX)
    largest, smallest = extremes.tolist()
    if largest == -smallest:
        return None
    told = processes.gather([(name, value) for (name, _), value in zip(named, each, strict=True)])
    for place in range(max(map(len, told))):
        rows = [own[place] if place < len(own) else None for own in told]
        for rank, row in enumerate(rows):
            if row != rows[0]:
                name = next(r[0] for r in (row, rows[0]) if r is not None)
                return f"{name} of process {rank}"
    return None


def sums(tensors: Sequence[Tensor]) -> list[int]:
    """A checksum of each of ``tensors``. Those on an accelerator are waited for once."""
    found: list[int | Tensor] = []
    for tensor in tensors:
        whole = (torch.view_as_real(tensor) if tensor.is_complex() else tensor).contiguous()
        values = whole.as_strided((whole.numel(),), (1,))  # that of one number may have any stride
        if values.device.type == "cpu":
            found.append(zlib.crc32(values.view(torch.uint8).numpy().data))
            continue
        bits = values.view(INTEGERS[values.element_size()])
        found.append(bits.sum(dtype=torch.int64) * 31 + bits[1::2].sum(dtype=torch.int64))
    there = [value for value in found if isinstance(value, Tensor)]
    read = iter([n for values in _by_device(there) for n in torch.stack(values).tolist()])
    return [next(read) if isinstance(value, Tensor) else value for value in found]


def _by_device(values: Sequence[Tensor]) -> list[list[Tensor]]:
    groups: list[list[Tensor]] = []
    for value in values:
        if groups and groups[-1][0].device == value.device:
            groups[-1].append(value)
        else:
            groups.append([value])
    return groups
