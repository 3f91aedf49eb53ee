"""What processes that train together exchange beside gradients."""

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pytorch_lightning.processes import Processes


def add_up(table: Tensor, processes: Processes) -> Tensor:
    """The sum of everybody's ``table``, in its place."""
    if processes.nb > 1:
        dist.all_reduce(table)
    return table


@torch.no_grad()
def share_buffers(module: nn.Module, processes: Processes) -> None:
    """Give every process the buffers of rank 0."""
    if processes.nb == 1:
        return
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for buffer in module.buffers():
        by_dtype.setdefault(buffer.dtype, []).append(buffer)
    for buffers in by_dtype.values():
        flat = torch.cat([buffer.reshape(-1) for buffer in buffers])
        dist.broadcast(flat, src=0)
        for buffer, piece in zip(buffers, torch.split(flat, [b.numel() for b in buffers]), strict=True):
            buffer.copy_(piece.view_as(buffer))
