"""What several processes tell each other where ``training_step`` makes its own steps.

Before each exchange, and at the end of each batch, every process says where it is. So processes that make different
steps get an error, and don't wait for each other.
"""

from collections.abc import Iterable, Sequence
from typing import Any
from zlib import crc32

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pytorch_lightning.data.sharing import IDLE
from pytorch_lightning.errors import FitError
from pytorch_lightning.run.metrics import at
from pytorch_lightning.steps.exact_sum import BUCKET
from pytorch_lightning.steps.step_inputs import StepInputs
from pytorch_lightning.strategies.strategy import Strategy

END, NO_BATCH = 0.0, -1.0
"""Where a process is: at the end of its batch, or without one. A positive number is a step of an optimizer."""
RAN, ENDS, LOSS, WEIGHT = range(1, 5)
"""What a process says beside that, at the end of a batch."""


class Exchange:
    """Of the gradients of a step, and of what a batch gave."""

    def __init__(self, inputs: StepInputs, strategy: Strategy, module: nn.Module) -> None:
        self._inputs, self._strategy, self._module = inputs, strategy, module
        self._has_buffers = any(submodule._buffers for submodule in module.modules())

    def has(self, batch: Any) -> bool:
        """Whether this process has a batch in the round."""
        return batch is not IDLE

    def _meet(self, where: float, *numbers: float) -> list[list[float]]:
        """What everybody says, by rank. Raises ``FitError`` in all processes where they aren't at the same place."""
        processes = self._strategy.processes
        mine = torch.tensor([where, *numbers, *[0.0] * (4 - len(numbers))], dtype=torch.float64)
        everybodys = [torch.empty_like(mine) for _ in range(processes.nb)]
        dist.all_gather(everybodys, mine, group=processes.group)
        rows = [row.tolist() for row in everybodys]
        if len({row[0] for row in rows}) > 1:
            raise self._different(rows)
        return rows

    def _different(self, rows: Sequence[Sequence[float]]) -> FitError:
        places = [
            "without a batch" if row[0] == NO_BATCH
            else "at the end of the batch" if row[0] == END
            else f"at a step of optimizer {int(row[0]) - 1}"
            for row in rows
        ]  # fmt: skip
        said = ", ".join(f"process {rank} is {place}" for rank, place in enumerate(places))
        if any(row[0] == NO_BATCH for row in rows):
            advice = "Pass uneven_batches='drop', which leaves out a round that has fewer batches than processes"
        else:
            advice = "Decide on each step by batch_nb or by numbers that all of them have"
        return FitError(f"the processes don't make the same steps: {said}. {advice}. {at(self._inputs.progress)}")

    def share_gradients(self, i: int, parameters: Iterable[Any]) -> None:
        """Give the parameters of optimizer ``i`` the means of everybody's gradients, before a step of it."""
        known = list(parameters)
        there = bytes(parameter.grad is not None for parameter in known)
        rows = self._meet(i + 1.0, float(crc32(there)))
        if len({row[1] for row in rows}) > 1:  # a process that has none where others have some adds zeros
            flags = torch.tensor(list(there), dtype=torch.uint8)
            dist.all_reduce(flags, dist.ReduceOp.MAX, group=self._strategy.processes.group)
            there = bytes(flags.tolist())
        chosen = [parameter for parameter, has in zip(known, there, strict=True) if has]
        sparse = [parameter for parameter in chosen if parameter.grad is not None and parameter.grad.is_sparse]
        if sparse:
            text = "manual_step can't exchange sparse gradients between processes. Use sparse=False in the embedding"
            raise FitError(f"{text}. {at(self._inputs.progress)}")
        for bucket in _buckets(chosen):
            self._average(bucket)

    @torch.no_grad()
    def _average(self, parameters: Sequence[Any]) -> None:
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = self._strategy.add_up(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        flat.div_(self._strategy.processes.nb)
        pieces = torch.split(flat, [gradient.numel() for gradient in gradients])
        for parameter, gradient, piece in zip(parameters, gradients, pieces, strict=True):
            gradient.copy_(piece.view_as(gradient))
            parameter.grad = gradient

    def end(self, output: Any, batch: Any, ends: bool) -> tuple[bool, bool]:
        """The batch has been trained on. Returns whether anybody had one, and whether a hook ends the epoch. The loss
        of ``output`` becomes the mean, weighted by ``loss_count`` where there is one."""
        loss, weight = 0.0, 0.0
        if output is not None and output.loss is not None:
            weight = 1.0 if output.count is None else output.count
            loss = float(output.loss) * weight if weight else 0.0
        where = NO_BATCH if batch is IDLE else END
        rows = self._meet(where, float(output is not None), float(ends), loss, weight)
        total = sum(row[WEIGHT] for row in rows)
        if output is not None and total:
            output.loss = sum(row[LOSS] for row in rows) / total
            output.count = None if output.count is None else total
        if self._has_buffers:
            self._strategy.share_buffers(self._module)
        return any(row[RAN] for row in rows), any(row[ENDS] for row in rows)


def _buckets(parameters: Sequence[Any]) -> Iterable[list[Tensor]]:
    """``parameters`` in their order, by dtype and device, each bucket to be exchanged at once."""
    kinds: dict[Any, list[Tensor]] = {}
    for parameter in parameters:
        bucket = kinds.setdefault((parameter.dtype, parameter.device), [])
        bucket.append(parameter)
        if sum(p.numel() for p in bucket) >= BUCKET:
            yield kinds.pop((parameter.dtype, parameter.device))
    yield from kinds.values()
