"""Whether all processes use the same parts of a module whose weights are sharded.

What one of them gathers or reduces meets what the others do at that moment, whatever that is: weights and gradients of
the same size would be mixed without an error.
"""

from collections.abc import Sequence
from typing import Any
from zlib import crc32

import torch
import torch.distributed as dist
from torch import nn

from pytorch_lightning.errors import FitError
from pytorch_lightning.processes import Processes

SAME_USE = (
    "with distributed_backend='fsdp' every process must use the same layers and parameters in a step: where one leaves"
    " out what another one uses, they wait for each other. Use all of them in every step (multiply by 0 what is left"
    " out), or pass distributed_backend=Distributed(find_unused_parameters=True) from pytorch_lightning.strategies."
)


class SameUse:
    """Compares, in each round, which of the ``groups`` of ``module`` were called, and before each step which
    parameters have a gradient. Everybody makes the same calls."""

    advice = SAME_USE

    def __init__(self, module: nn.Module, groups: Sequence[nn.Module], processes: Processes) -> None:
        self._module, self._processes = module, processes
        self._crc, self._called = 0, set[str]()
        names = {part: name for name, part in module.named_modules()}
        self._handles = [group.register_forward_pre_hook(self._noting(names[group])) for group in groups]

    def _noting(self, name: str) -> Any:
        def note(*_: Any) -> None:
            if not torch.compiler.is_compiling():
                self._crc = crc32(name.encode(), self._crc)
                self._called.add(name)

        return note

    def begin(self) -> None:
        """A pass begins."""
        self._crc = 0
        self._called.clear()

    def compare_groups(self) -> None:
        """Between the passes: raise ``FitError`` where others called other groups, or in another order."""
        if self._handles:
            self._compare(self._crc, sorted(self._called), "used")

    def compare_gradients(self) -> None:
        """After the passes: raise ``FitError`` where other parameters have a gradient in another process."""
        found = [name for name, p in self._module.named_parameters() if p.grad is not None]
        self._compare(crc32(" ".join(found).encode()), found, "got a gradient")

    def _compare(self, crc: int, names: list[str], what: str) -> None:
        told = torch.tensor([crc, -crc])
        dist.all_reduce(told, dist.ReduceOp.MAX, group=self._processes.group)
        if told[0] == -told[1]:
            return
        everybodys = self._processes.gather(names)
        in_all = set(everybodys[0]).intersection(*everybodys)
        some = sorted(set().union(*everybodys) - in_all)
        shown = ", ".join(some[:5]) + (", ..." if some[5:] else "")
        which = f"only some of them {what} {shown}" if what == "used" else f"{shown} {what} in some of them only"
        raise FitError(f"the processes did different things in a step: {which or 'another order'}. {SAME_USE}")

    def end(self) -> None:
        """The module is whole again."""
        for handle in self._handles:
            handle.remove()
