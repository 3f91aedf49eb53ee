"""Buffers (the running means of BatchNorm, say) where several virtual ranks share a module."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pytorch_lightning.strategies.strategy import Strategy


class Buffers:
    """Each virtual rank starts a window from the same buffers and goes on with its own; the first one's survive.

    So does it in DistributedDataParallel, where each virtual rank has a process of its own.
    """

    def __init__(self, module: nn.Module, strategy: Strategy, nb_here: int) -> None:
        self._module, self._strategy = module, strategy
        self._buffers = list(module.buffers())
        self._swaps = nb_here > 1 and bool(self._buffers)
        self._shares = strategy.processes.nb > 1 and bool(self._buffers)
        self._at_start: list[Tensor] = []
        self._own: dict[int, list[Tensor]] = {}
        self._first: int | None = None

    def open(self) -> None:
        """Begin a window."""
        if self._swaps:
            self._at_start, self._own, self._first = _copies(self._buffers), {}, None

    def begin(self, virtual_rank: int) -> None:
        """``virtual_rank`` is about to run."""
        if self._swaps:
            self._first = virtual_rank if self._first is None else self._first
            _load(self._buffers, self._own.get(virtual_rank, self._at_start))

    def end(self, virtual_rank: int) -> None:
        """``virtual_rank`` has run."""
        if self._swaps:
            self._own[virtual_rank] = _copies(self._buffers)

    def close(self) -> None:
        """End a window: everybody gets the buffers of virtual rank 0."""
        if self._swaps and self._first is not None:
            _load(self._buffers, self._own[self._first])
        if self._shares:
            self._strategy.share_buffers(self._module)


@contextmanager
def kept_buffers(module: nn.Module) -> Iterator[None]:
    """A scope whose end puts the buffers of ``module`` back as they were."""
    buffers = list(module.buffers())
    before = _copies(buffers)
    try:
        yield
    finally:
        _load(buffers, before)


def _copies(buffers: Sequence[Tensor]) -> list[Tensor]:
    return [buffer.detach().clone() for buffer in buffers]


@torch.no_grad()
def _load(buffers: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for buffer, value in zip(buffers, values, strict=True):
        buffer.copy_(value)
