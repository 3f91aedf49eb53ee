"""One process per device, gradients averaged: torch's DistributedDataParallel."""

import re
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from inspect import signature
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from pytorch_lightning.data.casting import place
from pytorch_lightning.errors import FitError
from pytorch_lightning.processes import Processes, before_leaving
from pytorch_lightning.strategies.checksums import first_difference
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

    >>> from pytorch_lightning import Trainer
    >>> trainer = Trainer(nb_processes=2, distributed_backend=Distributed(find_unused_parameters=True))
    """

    name = "ddp"
    several_processes = True

    def __init__(self, find_unused_parameters: bool = False, **options: Any) -> None:
        self._find_unused, self._options = find_unused_parameters, options
        self._wrapped: Any = None
        self._known: list[Tensor] = []
        self._required: list[bool] = []
        self._names: list[str] = []
        self._exchanged: set[int] = set()
        self._outside: list[tuple[str, Tensor]] = []

    def attach(self, device: torch.device, processes: Processes, devices: Sequence[torch.device] = ()) -> None:
        super().attach(device, processes, devices)
        self._wrapped = None

    def place(self, module: nn.Module, dtype: torch.dtype | None) -> None:
        place(module, self.device, dtype)

    def shard(self, module: nn.Module) -> None:
        if self.processes.nb > 1:
            self.refuse_lazy(module)

    @property
    def resumes_otherwise(self) -> str:
        if self.processes.nb > 2 and self._options.get("static_graph"):
            return "with static_graph=True on three or more processes torch adds gradients up in another order at first"
        return ""

    def step_function(self, module: nn.Module, name: str, *, takes_optimizer: bool = False) -> Callable[..., Any]:
        if name != "training_step" or self.processes.nb == 1:
            return getattr(module, name)  # type: ignore[no-any-return]
        self._find_unused = self._find_unused or takes_optimizer
        self._wrap(StepAsForward(module, name, anchored=self._find_unused), set())
        _wrappers.add(self._wrapped)
        if _let_go not in before_leaving:
            before_leaving.append(_let_go)
        return self._wrapped  # type: ignore[no-any-return]

    @torch.no_grad()
    def manual_step_function(self, module: nn.Module) -> Callable[..., Any]:
        for tensor in (*module.parameters(), *module.buffers()) if self.processes.nb > 1 else ():
            dist.broadcast(tensor.detach(), src=0)  # as DistributedDataParallel begins
        return getattr(module, "training_step")  # type: ignore[no-any-return]  # noqa: B009

    def _wrap(self, step: StepAsForward, optimized: set[int]) -> None:
        """Wrap ``step`` for the parameters that require gradients now. A second time it is the same object, made
        again, since others have it."""
        again = self._wrapped is not None
        if again:
            self._wrapped.reducer = self._wrapped.logger = None  # or their hooks would take part in backward passes
        named = list(step.module.named_parameters())
        # one that may find no gradient may be frozen in some steps only: it is exchanged wherever it has one
        frozen = [p for _, p in named if self._find_unused and id(p) in optimized and not p.requires_grad]
        for parameter in frozen:
            parameter.requires_grad_(True)
        self._known, self._required = [p for _, p in named], [p.requires_grad for _, p in named]
        self._exchanged = {id(p) for _, p in named if p.requires_grad}
        self._outside = [(name, p) for name, p in named if not p.requires_grad]
        self._names = [name.removeprefix("module.") for name, p in step.named_parameters() if p.requires_grad]
        options = {**self._options, _SYNC_BUFFERS: False}  # see share_buffers
        make: Any = self._wrapped.__init__ if again else nn.parallel.DistributedDataParallel
        made = make(step, find_unused_parameters=self._find_unused, **options)
        for parameter in frozen:
            parameter.requires_grad_(False)
        self._wrapped = self._wrapped if again else made
        if self.processes.nb > 2 and not self._find_unused and not self._options.get("static_graph"):
            self._fix_order()

    def _fix_order(self) -> None:
        """Sums of three and more numbers depend on where they lie in torch's buckets, which it sorts after its first
        pass: a pass without effect comes first, here and at each resume."""
        kept = [(p, p.grad) for p in self._known]
        for parameter, _ in kept:
            parameter.grad = None
        with torch.enable_grad():
            self.run_idle()
        for parameter, gradient in kept:
            parameter.grad = gradient

    def changed(self, optimizers: Sequence[Optimizer]) -> list[str]:
        if self._wrapped is None:
            return []
        now = [p.requires_grad for p in self._known]
        each = [p for o in optimizers for group in o.param_groups for p in group["params"]]
        # a frozen one needs no exchange yet, unless whoever finds no gradient may still have one later
        held = [id(p) for p in each if p.requires_grad or self._find_unused]
        if now == self._required and self._exchanged.issuperset(held):
            return []
        named = list(self._wrapped.module.module.named_parameters())
        outside = set(held).difference(id(p) for _, p in named)
        if outside:
            raise FitError(
                f"an optimizer holds {len(outside)} parameters that aren't the module's, so processes can't exchange"
                " their gradients. Assign the layer or the nn.Parameter to an attribute of the module."
            )
        if self._find_unused:
            needed = {*held, *(id(p) for _, p in named if p.requires_grad)} - self._exchanged
            return [name for name, p in named if id(p) in needed]
        before = dict(zip(map(id, self._known), self._required, strict=True))
        return [name for name, p in named if before.get(id(p)) != p.requires_grad]

    def follow(self, optimizers: Sequence[Optimizer]) -> None:
        self._wrap(
            self._wrapped.module, {id(p) for o in optimizers for group in o.param_groups for p in group["params"]}
        )

    def exchanging(self, last: bool) -> AbstractContextManager[Any]:
        if last or self._wrapped is None:
            return nullcontext()
        if self._options.get("static_graph"):
            raise FitError(
                "static_graph=True needs an exchange of gradients in every batch, and here some wait for the next one:"
                " pass accumulate_grad_batches=1 and one virtual rank per process, or"
                " Distributed(find_unused_parameters=True)."
            )
        return self._wrapped.no_sync()  # type: ignore[no-any-return]

    def run_idle(self, before_backward: Callable[[], None] = lambda: None) -> None:
        if self._wrapped is not None and self._options.get("static_graph"):
            raise FitError(
                "static_graph=True needs a batch in every process, and the last round of an epoch has fewer batches"
                " than there are processes. Leave out static_graph, or give the loader a number of batches that"
                " the number of processes divides."
            )
        loss = None if self._wrapped is None else self._wrapped(IDLE_PASS)
        before_backward()
        if loss is not None:
            loss.backward()

    def not_exchanged(self) -> tuple[list[str], list[str]]:
        if self._wrapped is None:
            return [], []
        unused: list[str] = []
        try:
            self._wrapped.reducer._check_reducer_finalized()
        except RuntimeError as error:
            listed = re.search(r"did not receive grad for rank \d+: ([\d ]+)", str(error))
            unused = [self._names[int(i)] for i in listed[1].split()] if listed else ["unknown"]
        return unused, [name for name, p in self._outside if p.grad is not None]

    def first_difference(self, module: nn.Module) -> str | None:
        return first_difference(module, self.processes, self.device) if self.processes.nb > 1 else None
