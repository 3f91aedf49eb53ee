"""Sums of gradients whose bits don't depend on how many processes there are."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from pytorch_lightning.processes import Processes, Share
from pytorch_lightning.steps.optimizers import parameters_of

BUCKET = 2**22
"""Numbers that are exchanged at once."""


def adds_in_order(
    exact_elastic: bool, share: Share, nb_processes: int, accumulate: int | dict[int, int], module: nn.Module
) -> bool:
    """Whether each virtual rank's gradients are kept apart.

    Two virtual ranks are always bit-identical: each of two processes sums its own window before the two are summed,
    so one process must too.
    """
    largest = max(accumulate.values(), default=1) if isinstance(accumulate, dict) else accumulate
    sparse = any(getattr(layer, "sparse", False) for layer in module.modules())  # a word may be in one batch twice
    return exact_elastic or (share.nb == 2 and nb_processes == 1 and (largest > 1 or sparse))


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
        rows = self._rows_with_gradient(places)
        for bucket in self._buckets(list(rows)):
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
            pieces = torch.split(total, [p.numel() for p in parts])
            for i, parameter, piece in zip(bucket, parts, pieces, strict=True):
                gradient = piece.view_as(parameter)
                parameter.grad = gradient.clone() if rows[i] is None else _only_rows(gradient, rows[i])

    def _rows_with_gradient(self, places: Sequence[int]) -> dict[int, Any]:
        """Those of ``places`` that have a gradient in any process, and which rows it has where it is sparse, None where
        it isn't."""
        here = [[_rows(kept[place]) for kept in self._kept.values() if place in kept] for place in places]
        rows: dict[int, Any] = {}
        for place, *own in zip(places, *self._processes.gather(here), strict=True):
            found = [*chain.from_iterable(own)]
            if found:
                rows[place] = None if None in found else sorted(set(chain.from_iterable(found)))
        return rows

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
    if gradient is None:
        return torch.zeros_like(parameter).reshape(-1)
    return (gradient.coalesce().to_dense() if gradient.is_sparse else gradient).reshape(-1)


def _rows(gradient: Tensor) -> list[int] | None:
    return gradient.coalesce().indices()[0].tolist() if gradient.is_sparse else None


def _only_rows(gradient: Tensor, rows: Sequence[int]) -> Tensor:
    chosen = torch.tensor(rows, device=gradient.device)
    return torch.sparse_coo_tensor(
        chosen.unsqueeze(0), gradient[chosen], gradient.shape, is_coalesced=True, check_invariants=False
    )
