"""Sums of gradients whose bits don't depend on how many processes there are."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from pytorch_lightning.processes import Processes, Share
from pytorch_lightning.steps.optimizers import parameters_of

BUCKET = 2**22
"""Numbers that are exchanged at once."""


def adds_in_order(exact_elastic: bool, share: Share, nb_processes: int, accumulate: int | dict[int, int]) -> bool:
    """Whether each virtual rank's gradients are kept apart.

    Two virtual ranks are always bit-identical: each of two processes sums its own window before the two are summed,
    so one process must too.
    """
    largest = max(accumulate.values(), default=1) if isinstance(accumulate, dict) else accumulate
    return exact_elastic or (share.nb == 2 and nb_processes == 1 and largest > 1)


class ExactSum:
    """Keeps each virtual rank's gradients apart, then adds them up in the order of the virtual ranks, everywhere.

    It costs memory for one more set of gradients per virtual rank of this process, and an exchange of V sets of
    gradients in the place of one sum.
    """

    def __init__(self, optimizers: Sequence[Optimizer], share: Share, processes: Processes) -> None:
        self._share, self._processes = share, processes
        self._optimizers = optimizers
        self._parameters: list[Tensor] = []
        self._kept: dict[int, dict[int, Tensor]] = {v: {} for v in share.mine}

    def open(self) -> None:
        """Begin a window: a hook may have given an optimizer more parameters."""
        self._parameters = list(dict.fromkeys(parameters_of(self._optimizers)))

    def begin(self, virtual_rank: int) -> None:
        """``virtual_rank`` is about to run: what it adds goes onto its own gradients."""
        kept = self._kept[virtual_rank]
        for place, parameter in enumerate(self._parameters):
            parameter.grad = kept.get(place)

    def end(self, virtual_rank: int) -> None:
        """``virtual_rank`` has run: put its gradients aside."""
        kept = self._kept[virtual_rank]
        for place, parameter in enumerate(self._parameters):
            if parameter.grad is not None:
                kept[place], parameter.grad = parameter.grad, None

    def scale(self, optimizers: Sequence[Optimizer], factor: Any) -> None:
        """Multiply what is put aside of the gradients of ``optimizers``."""
        chosen = {id(p) for p in parameters_of(optimizers)}
        for kept in self._kept.values():
            for place, gradient in kept.items():
                parameter = self._parameters[place]
                if id(parameter) in chosen and parameter.grad is not gradient:  # this one uses it from now on
                    gradient.mul_(factor)

    def put_sums(self, optimizers: Sequence[Optimizer]) -> None:
        """Give the parameters of ``optimizers`` the sums of everybody's gradients."""
        chosen = {id(p) for p in parameters_of(optimizers)}
        places = [i for i, p in enumerate(self._parameters) if id(p) in chosen]
        for bucket in self._buckets(self._with_gradient(places)):
            parts = [self._parameters[i] for i in bucket]
            mine = [
                torch.cat([_flat(kept.pop(i, None), p) for i, p in zip(bucket, parts, strict=True)])
                for kept in self._kept.values()
            ]
            total: Tensor | None = None
            for gradients in self._all_of(torch.stack(mine)):
                for row in gradients:  # one after the other: a sum over a dimension may take another order
                    total = row.clone() if total is None else total.add_(row)
            assert total is not None
            for parameter, piece in zip(parts, torch.split(total, [p.numel() for p in parts]), strict=True):
                parameter.grad = piece.view_as(parameter).clone()

    def _with_gradient(self, places: Sequence[int]) -> list[int]:
        """Those of ``places`` that have a gradient in any process."""
        here = [any(place in kept for kept in self._kept.values()) for place in places]
        everywhere = self._processes.gather(here)
        return [place for place, *found in zip(places, *everywhere, strict=True) if any(found)]

    def _buckets(self, places: Sequence[int]) -> Iterator[list[int]]:
        bucket: list[int] = []
        for place in places:
            parameter = self._parameters[place]
            size = sum(self._parameters[i].numel() for i in bucket)
            other = bucket and self._parameters[bucket[0]].dtype != parameter.dtype
            if bucket and (other or size + parameter.numel() > BUCKET):
                yield bucket
                bucket = []
            bucket.append(place)
        if bucket:
            yield bucket

    def _all_of(self, mine: Tensor) -> Sequence[Tensor]:
        if self._processes.nb == 1:
            return [mine]
        everybodys = [torch.empty_like(mine) for _ in range(self._processes.nb)]
        dist.all_gather(everybodys, mine)
        return everybodys


def _flat(gradient: Tensor | None, parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter).reshape(-1) if gradient is None else gradient.reshape(-1)
