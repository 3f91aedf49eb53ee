"""One process per device, gradients averaged: torch's DistributedDataParallel."""

import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from inspect import signature
from typing import Any

import torch
from torch import nn

from pytorch_lightning.data.casting import place
from pytorch_lightning.processes import Processes, before_leaving
from pytorch_lightning.strategies.step_as_forward import IDLE_PASS, StepAsForward
from pytorch_lightning.strategies.strategy import Strategy

_SYNC_BUFFERS = (
    "forward_sync_buffers"  # torch 2.14's name
    if "forward_sync_buffers" in signature(nn.parallel.DistributedDataParallel).parameters
    else "broadcast_buffers"
)


_wrappers = weakref.WeakSet[Any]()


def _let_go() -> None:
    """Free what holds the process group."""
    for wrapped in _wrappers:
        wrapped.reducer = wrapped.logger = wrapped.process_group = None


class Distributed(Strategy):
    """The whole module in each process. ``options`` go to ``torch.nn.parallel.DistributedDataParallel``.

    ``find_unused_parameters=True`` is for steps that leave some parameters without a gradient; it costs a walk over
    the graph in each step. A step of three arguments turns it on by itself. Source: Li et al., "PyTorch Distributed:
    Experiences on Accelerating Data Parallel Training" (2020).
    """

    name = "ddp"
    several_processes = True

    def __init__(self, find_unused_parameters: bool = False, **options: Any) -> None:
        self._find_unused, self._options = find_unused_parameters, options
        self._wrapped: Any = None

    def attach(self, device: torch.device, processes: Processes, devices: Sequence[torch.device] = ()) -> None:
        super().attach(device, processes, devices)
        self._wrapped = None

    def place(self, module: nn.Module, dtype: torch.dtype | None) -> None:
        place(module, self.device, dtype)

    def shard(self, module: nn.Module) -> None:
        if self.processes.nb > 1:
            self.refuse_lazy(module)

    def step_function(self, module: nn.Module, name: str, *, takes_optimizer: bool = False) -> Callable[..., Any]:
        if name != "training_step" or self.processes.nb == 1:
            return getattr(module, name)  # type: ignore[no-any-return]
        self._find_unused = self._find_unused or takes_optimizer
        self._wrapped = nn.parallel.DistributedDataParallel(
            StepAsForward(module, name, anchored=self._find_unused),
            find_unused_parameters=self._find_unused,
            **{**self._options, _SYNC_BUFFERS: False},  # see share_buffers
        )
        _wrappers.add(self._wrapped)
        if _let_go not in before_leaving:
            before_leaving.append(_let_go)
        return self._wrapped  # type: ignore[no-any-return]

    def exchanging(self, last: bool) -> AbstractContextManager[Any]:
        return nullcontext() if last or self._wrapped is None else self._wrapped.no_sync()

    def run_idle(self, before_backward: Callable[[], None] = lambda: None) -> None:
        loss = None if self._wrapped is None else self._wrapped(IDLE_PASS)
        before_backward()
        if loss is not None:
            loss.backward()

    def unused_parameters(self) -> list[str]:
        if self._wrapped is None or self._find_unused:
            return []
        module = self._wrapped.module.module
        return [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None]
