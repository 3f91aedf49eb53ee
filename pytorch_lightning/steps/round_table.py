"""What everybody knows of a round: the loss and the weight of each virtual rank's batch."""

import math
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from pytorch_lightning.data.sharing import IDLE
from pytorch_lightning.errors import FitError
from pytorch_lightning.processes import Share
from pytorch_lightning.run.metrics import at
from pytorch_lightning.steps.step_inputs import StepInputs
from pytorch_lightning.strategies.strategy import Strategy

LOSS, PRESENT, WEIGHT, COUNTED, ENDED = range(5)
"""The columns of a table with a row for each virtual rank."""


class RoundWeights:
    """How much the batches of a window weigh together.

    A loss that comes with a count is multiplied by ``count / reference``. The reference is a power of two of about
    the counts' size: it keeps numbers in range and changes no bit of the result.
    """

    def __init__(self) -> None:
        self.total: Any = 0.0
        self.reference = 1.0
        self.counted = False

    def close(self, parameters: Sequence[Tensor], averaged_over: int) -> bool:
        """Divide the gradients of ``parameters`` by the weight; False where there is none. Then start anew."""
        total, self.total = self.total, 0.0
        if isinstance(total, Tensor):  # on an accelerator, which isn't waited for
            factor = averaged_over * self.reference / total.clamp(min=torch.finfo(total.dtype).tiny)
            for parameter in parameters:
                assert parameter.grad is not None
                parameter.grad.mul_(factor.to(parameter.grad.dtype))
            return True
        if not total:
            return False
        factor = averaged_over * self.reference / total
        if factor != 1.0:
            for parameter in parameters:
                assert parameter.grad is not None
                parameter.grad.mul_(factor)
        if self.counted:
            self.reference = 2.0 ** round(math.log2(total))
        return True


class RoundTable:
    """Collects the rows of this process's virtual ranks, then adds those of all others.

    Losses on an accelerator stay there, and the rest of the table follows them in one copy that isn't waited for.
    """

    def __init__(self, inputs: StepInputs, strategy: Strategy, share: Share) -> None:
        self._inputs, self._strategy, self._nb = inputs, strategy, share.nb
        self._rows: list[list[float]] = []
        self._losses: dict[int, Tensor] = {}
        """By virtual rank, on an accelerator."""
        self.any_present = True
        """Whether any virtual rank had a batch; on an accelerator only known where a hook may end the epoch."""

    def open(self, ended: Collection[int]) -> None:
        """Begin a pass over a round. ``ended`` are the virtual ranks whose hook ends the epoch."""
        self._rows = [[0.0] * 5 for _ in range(self._nb)]
        self._losses.clear()
        for virtual_rank in ended:
            self._rows[virtual_rank][ENDED] = 1.0

    def note(self, virtual_rank: int, loss: Tensor, count: float | None) -> None:
        """The loss of a virtual rank's batch, and the number of items that it is a mean over."""
        row = self._rows[virtual_rank]
        row[PRESENT : COUNTED + 1] = [1.0, 1.0 if count is None else count, float(count is not None)]
        if self._inputs.on_device:
            self._losses[virtual_rank] = loss.detach()
        else:
            row[LOSS] = loss.item()

    def close(self, weight: RoundWeights, prog: Any) -> tuple[Any, Any]:
        """Exchange the rows, record the round's mean loss, and weigh it. Returns the weighted sum of its losses and
        the sum of their weights."""
        table: Any = self._rows
        if self._inputs.on_device:
            table = self._on_device()
        several = self._strategy.processes.nb > 1
        if several:
            table = self._strategy.add_up(torch.as_tensor(table, dtype=torch.float64))
        if self._inputs.on_device:
            return self._close_on_device(table, weight, prog)
        rows = table.tolist() if several else table
        if any(row[ENDED] for row in rows):
            self._inputs.progress.epoch_over = True
        rows = [row for row in rows if row[PRESENT]]
        self.any_present = bool(rows)
        if not all(math.isfinite(row[LOSS]) for row in rows):
            self._refuse(table.tolist() if isinstance(table, Tensor) else table)
        if rows:
            self._inputs.metrics.record(sum(row[LOSS] for row in rows) / len(rows), prog)
            weight.counted = bool(rows[0][COUNTED])
        if len({row[COUNTED] for row in rows}) > 1:
            raise FitError(
                "training_step returned 'loss_count' for some batches of a window and not for others."
                f" Return it always or never. {at(self._inputs.progress)}"
            )
        total = sum(row[WEIGHT] for row in rows)
        weight.total += total
        return sum(row[WEIGHT] * row[LOSS] for row in rows), total

    def _on_device(self) -> Tensor:
        table = torch.tensor(self._rows, dtype=torch.float64)
        device = self._strategy.device
        if device.type == "cuda":
            table = table.pin_memory()  # otherwise the copy would be waited for
        table = table.to(device, non_blocking=True)
        for virtual_rank, loss in self._losses.items():
            table[virtual_rank, LOSS] = loss.reshape(())
        return table

    def _refuse(self, table: Sequence[Sequence[float]]) -> None:
        """A loss isn't finite. Everybody sees every loss; whose loss it is keeps its batch."""
        current = self._inputs.current
        for virtual_rank, row in enumerate(table):
            if row[PRESENT] and not math.isfinite(row[LOSS]):
                current.virtual_rank = virtual_rank
                current.arguments = (dict(current.slots).get(virtual_rank, IDLE), *current.arguments[1:])
                self._inputs.nonfinite(row[LOSS])

    def _close_on_device(self, table: Tensor, weight: RoundWeights, prog: Any) -> tuple[Any, Any]:
        """The same without reading a number, unless a hook may end the epoch."""
        inputs = self._inputs
        if inputs.before_batch:
            self.any_present = bool(table[:, PRESENT].any())
            if bool(table[:, ENDED].any()):
                inputs.progress.epoch_over = True
        present = table[:, PRESENT]
        inputs.metrics.record((table[:, LOSS] * present).sum() / present.sum().clamp(min=1), prog)
        total = table[:, WEIGHT].sum()
        weight.total = weight.total + total
        return (table[:, WEIGHT] * table[:, LOSS]).sum(), total
