"""Buffers (the running means of BatchNorm, say) where several virtual ranks share a module."""

import contextlib
from collections.abc import Iterator, Sequence
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pytorch_lightning.strategies.strategy import Strategy

MOST_KEPT = 2**20
"""Buffers up to this size, in bytes, are kept from each step's start, for a crash bundle and to go back to."""


class BufferUndo:
    """The buffers of a module as they were before the window and before the batch, each copied once.

    A step changes them before it fails, and nothing else of the module. Copying a megabyte at most costs little
    beside a step of a model that has so many. ``note`` is called before each window, and the object itself with each
    batch of it, where a window has several.
    """

    def __init__(self, module: nn.Module) -> None:
        self._places: list[tuple[str, Any, str]] = [
            (f"{prefix}.{name}" if prefix else name, submodule._buffers, name)
            for prefix, submodule in module.named_modules()
            for name, buffer in submodule._buffers.items()
            if buffer is not None
        ]
        self._window = self._newest = _Copies()
        self._batch = _Copies()
        self._is_first = False

    def note(self) -> None:
        """A window is about to begin."""
        self._window.take([owner[name] for _, owner, name in self._places])
        self._newest, self._is_first = self._window, True

    def __call__(self, batch: Any) -> None:
        if self._is_first:  # nothing has run since the window's start
            self._is_first = False
            return
        self._batch.take([owner[name] for _, owner, name in self._places])
        self._newest = self._batch

    def by_name(self) -> dict[str, Tensor]:
        """As they were before the batch that was begun last."""
        pairs = zip(self._places, self._newest.copies, strict=True)
        return {place[0]: copy for place, copy in pairs if copy is not None}

    def can_go_back(self, module: nn.Module) -> bool:
        """Whether the module has the window's buffers still, and a copy of each can be put back."""
        there = [*map(id, module.buffers())]
        return there == [*map(id, self._window.of)] and all(map(_is_plain, self._window.of))

    def go_back(self) -> None:
        """Put back those from before the window."""
        _load(self._window.of, self._window.copies)


class _Copies:
    """A copy of each buffer, into the same place as long as they are the same."""

    def __init__(self) -> None:
        self.of: list[Any] = []
        self.copies: list[Any] = []

    @torch.no_grad()
    def take(self, buffers: list[Any]) -> None:
        with contextlib.suppress(RuntimeError):  # one was resized in place
            if len(self.of) == len(buffers) and all(map(is_, buffers, self.of)):
                torch._foreach_copy_(self.copies, buffers)
                return
        self.of = buffers  # user code replaced them
        self.copies = [None if buffer is None else buffer.detach().clone() for buffer in buffers]


def _is_plain(buffer: Any) -> bool:
    return type(buffer) is Tensor and buffer.layout == torch.strided


def can_be_kept(module: nn.Module) -> bool:
    """Whether there are buffers, and few enough to be copied in each step."""
    buffers = list(module.buffers())
    return bool(buffers) and not any(map(is_lazy, buffers)) and sum(b.nbytes for b in buffers) <= MOST_KEPT


class Snapshot:
    """The buffers of a module at a moment: which tensor each one is, since a step may put another one in its place
    (``self.mean = ...``), and its values."""

    def __init__(self, module: nn.Module) -> None:
        self._places: list[tuple[str, Any, str, Any, Any]] = [
            (f"{prefix}.{name}" if prefix else name, owner, name, tensor, _copy(tensor))
            for prefix, submodule in module.named_modules()
            for owner in [submodule._buffers]
            for name, tensor in owner.items()
        ]

    def by_name(self) -> dict[str, Tensor]:
        """The values of each."""
        return {full_name: values for full_name, _, _, _, values in self._places if values is not None}

    @torch.no_grad()
    def put_back(self) -> None:
        """The same tensors in the same places, with the values that they had."""
        for _, owner, name, tensor, values in self._places:
            owner[name] = tensor
            if values is not None:
                tensor.copy_(values)


def _copy(tensor: Any) -> Any:
    return None if tensor is None else tensor.detach().clone()


class BufferPerRank:
    """Every virtual rank starts a window from the same buffers and then has its own; those of the first one are kept.

    So does it in DistributedDataParallel, where each virtual rank has a process of its own. Whatever runs between the
    passes (hooks, an optimizer's step) sees those of the first one, and changes them.
    """

    def __init__(self, module: nn.Module, strategy: Strategy, nb_here: int, keeps: bool = False) -> None:
        self._module, self._strategy = module, strategy
        there = any(submodule._buffers for submodule in module.modules())
        self._keeps = keeps and can_be_kept(module)
        self._swaps = nb_here > 1 and there
        self._shares = strategy.processes.nb > 1 and there
        self._at_start: Snapshot | None = None
        self._own: dict[int, Snapshot] = {}
        self._first: int | None = None
        self._of_first: Snapshot | None = None

    def open(self) -> None:
        """Begin a window."""
        if self._swaps or self._keeps:
            self._at_start, self._own, self._first = Snapshot(self._module), {}, None

    def at_start(self) -> dict[str, Tensor] | None:
        """What the window began with; None where that wasn't kept."""
        return None if self._at_start is None else self._at_start.by_name()

    def begin(self, virtual_rank: int) -> None:
        """``virtual_rank`` is about to run."""
        if self._swaps:
            self._first = virtual_rank if self._first is None else self._first
            if virtual_rank != self._first:
                self._of_first = Snapshot(self._module)
                snapshot = self._own.get(virtual_rank, self._at_start)
                assert snapshot is not None
                snapshot.put_back()

    def end(self, virtual_rank: int) -> None:
        """``virtual_rank`` has run."""
        if self._swaps and virtual_rank != self._first:
            self._own[virtual_rank] = Snapshot(self._module)
            assert self._of_first is not None
            self._of_first.put_back()

    def close(self) -> None:
        """End a window: everybody gets the buffers of virtual rank 0."""
        if self._shares:
            self._strategy.share_buffers(self._module)


@contextlib.contextmanager
def kept_buffers(module: nn.Module) -> Iterator[None]:
    """A scope whose end puts the buffers of ``module`` back as they were."""
    before = Snapshot(module)
    try:
        yield
    finally:
        before.put_back()


@torch.no_grad()
def _load(buffers: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for buffer, value in zip(buffers, values, strict=True):
        buffer.copy_(value)
