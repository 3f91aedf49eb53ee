"""What everybody knows of a round: the loss and the weight of each virtual rank's batch."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pytorch_lightning.data.sharing import IDLE
from pytorch_lightning.errors import FitError
from pytorch_lightning.processes import Share
from pytorch_lightning.run.metrics import NO_LOSS, Weighed, at
from pytorch_lightning.steps.step_inputs import StepInputs
from pytorch_lightning.steps.weights import RoundWeights, mixed_counts
from pytorch_lightning.strategies.strategy import Strategy

LOSS, PRESENT, WEIGHT, COUNTED, ENDED = range(5)
"""The columns of a table with a row for each virtual rank. A batch whose ``loss_count`` is 0 is present, and weighs
nothing; one without a loss isn't counted either."""
UNCOUNTED = [1.0, 1.0, 0.0, 0.0]
"""All but the loss, of a batch whose gradients are the same whatever the others weigh."""
CHANGED = 2.0
"""In the last column: the process sees that other parameters are to be trained. See ``replicas``."""


@dataclass
class Round:
    """What this process has of a round."""

    slots: list[tuple[int, Any]] = field(default_factory=list)
    """(virtual rank, its batch or ``IDLE``) for each virtual rank that this process runs."""
    ended: list[int] = field(default_factory=list)
    """The virtual ranks whose ``on_batch_start`` ends the epoch."""
    place: tuple[int, int] = 0, 0
    """``batch_nb`` and ``global_step``, where several rounds are taken before they run."""


class RoundTable:
    """Collects the rows of this process's virtual ranks, then adds those of all others.

    They are exchanged before the last backward pass of a round, so that everybody knows by then what the batches weigh,
    and whether a loss isn't finite. Where this process's batches have no ``loss_count``, that pass doesn't depend on
    it: then the exchange goes on beside it.
    """

    def __init__(self, inputs: StepInputs, strategy: Strategy, share: Share) -> None:
        self._inputs, self._strategy, self._nb, self._mine = inputs, strategy, share.nb, share.mine
        self._rows: list[list[float]] = []
        self._losses: dict[int, Tensor] = {}
        self._mean: Tensor | float | None = None
        self._begun: tuple[RoundWeights, Callable[[], Tensor]] | None = None
        self.any_present = True
        """Whether any virtual rank had a batch; on an accelerator only known where a hook may end the epoch."""
        self.weighted: tuple[Any, Any] = 0.0, 0.0
        """The weighted sum of the round's losses, and the sum of their weights."""

    def open(self, ended: Collection[int]) -> None:
        """Begin a pass over a round. ``ended`` are the virtual ranks whose hook ends the epoch."""
        self._rows, self._losses, self._mean = [[0.0] * 5 for _ in range(self._nb)], {}, None
        for virtual_rank in ended:
            self._rows[virtual_rank][ENDED] = 1.0

    def note(self, virtual_rank: int, loss: Tensor, count: float | None) -> None:
        """The loss of a virtual rank's batch, and the number of items that it is a mean over."""
        value = 0.0
        if self._inputs.on_device:
            self._losses[virtual_rank] = loss.detach().reshape(())
        else:
            value = loss.item()
        counted = count is not None and loss is not NO_LOSS
        self._inputs.metrics.saw_none = self._inputs.metrics.saw_none or loss is NO_LOSS
        self._rows[virtual_rank][LOSS:ENDED] = [value, 1.0, 1.0 if count is None else count, float(counted)]
        if self._strategy.processes.nb == 1:  # others wait for the exchange
            self._check(virtual_rank, self._rows[virtual_rank])

    def exchange(self, weight: RoundWeights) -> None:
        """Add everybody's rows, and see what the batches weigh. Raises where a loss isn't finite."""
        nb_processes = self._strategy.processes.nb
        if self._inputs.on_device:
            self._exchange_on_device(weight, nb_processes)
        elif nb_processes == 1:
            self._settle(weight, self._rows)
        else:
            self._begun = weight, self._strategy.begin_add_up(torch.tensor(self._rows, dtype=torch.float64))
            if any(self._rows[virtual_rank][1:] != UNCOUNTED for virtual_rank in self._mine):
                self.end_exchange()

    def end_exchange(self) -> None:
        """What was begun before a backward pass is needed now."""
        if self._begun is None:
            return
        (weight, finish), self._begun = self._begun, None
        rows = finish().tolist()
        for virtual_rank, row in enumerate(rows):
            self._check(virtual_rank, row)
        self._settle(weight, rows)

    def _settle(self, weight: RoundWeights, rows: list[list[float]]) -> None:
        inputs = self._inputs
        if any(row[ENDED] for row in rows):
            if any(row[ENDED] == CHANGED for row in rows):
                raise changed_alone(f"not in process {self._strategy.processes.rank}")
            inputs.progress.epoch_over = True
        rows = [row for row in rows if row[PRESENT]]
        self.any_present = bool(rows)
        if len({row[COUNTED] for row in rows if row[WEIGHT] or row[COUNTED]}) > 1:
            raise mixed_counts(at(inputs.progress))
        rows = [row for row in rows if row[WEIGHT]]
        total = sum(row[WEIGHT] for row in rows)
        if rows:
            weight.settle(max(row[WEIGHT] for row in rows), total, bool(rows[0][COUNTED]))
            self._mean = sum(row[LOSS] for row in rows) / len(rows)
        self.weighted = sum(row[WEIGHT] * row[LOSS] for row in rows), total

    def record(self, prog: Any, joins: bool) -> None:
        """Record the round's mean loss, once it has its gradients. ``joins``: of another optimizer than the first."""
        self.end_exchange()
        if self._mean is not None:
            summed, weight = self.weighted
            counted = any(row[COUNTED] for row in self._rows)
            weighed = Weighed(self._mean, weight, summed, counted, joins)
            self._inputs.metrics.record(self._mean, prog, joins, weighed)

    def _check(self, virtual_rank: int, row: Sequence[float]) -> None:
        """Whether a loss is finite. Whose loss isn't keeps its batch."""
        if row[WEIGHT] and not math.isfinite(row[LOSS]):
            current = self._inputs.current
            current.virtual_rank = virtual_rank
            current.arguments = (dict(current.slots).get(virtual_rank, IDLE), *current.arguments[1:])
            self._inputs.nonfinite(row[LOSS])

    def _exchange_on_device(self, weight: RoundWeights, nb_processes: int) -> None:
        """The same without reading a number, unless a hook may end the epoch."""
        inputs = self._inputs
        table = torch.tensor(self._rows, dtype=torch.float64)
        if self._strategy.device.type == "cuda":
            table = table.pin_memory()  # otherwise the copy would be waited for
        table = table.to(self._strategy.device, non_blocking=True)
        for virtual_rank, loss in self._losses.items():
            if self._rows[virtual_rank][WEIGHT]:
                table[virtual_rank, LOSS] = loss
        if nb_processes > 1:
            table = self._strategy.add_up(table)
        if inputs.before_batch:
            self.any_present = bool(table[:, PRESENT].any())
            if bool(table[:, ENDED].any()):
                inputs.progress.epoch_over = True
        weights = table[:, WEIGHT]
        if nb_processes > 1:
            weight.settle(weights.max(), weights.sum(), table[:, COUNTED].any())
        else:
            own = [row[WEIGHT] for row in self._rows]
            weight.settle(max(own), sum(own), any(row[COUNTED] for row in self._rows))
        self._mean = table[:, LOSS].sum() / (weights > 0).sum().clamp(min=1)
        self.weighted = (weights * table[:, LOSS]).sum(), weights.sum()


def do_nothing() -> None:
    """Between two passes after which nobody has to agree on anything."""


def changed_alone(what: str) -> FitError:
    """What is raised where some processes freeze or add a parameter, and others don't."""
    return FitError(
        f"parameters began or ceased to require gradients, or are new, in some processes and not in all: {what}."
        " Every process must train the same parameters: decide by epoch and batch_nb, or by numbers that all have; in"
        " on_epoch_start rather than on_batch_start, which isn't called where a process has no batch in an epoch's last"
        " round."
    )
