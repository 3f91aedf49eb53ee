"""What keeps the replicas of several processes equal: everybody exchanges the same gradients."""

import torch

from pytorch_lightning.errors import FitError
from pytorch_lightning.processes import Share
from pytorch_lightning.run.metrics import at
from pytorch_lightning.steps.round_table import CHANGED, ENDED, changed_alone
from pytorch_lightning.steps.step_inputs import StepInputs
from pytorch_lightning.strategies.strategy import Strategy


class Replicas:
    """Looks, before each round and after each exchange, whether all trained parameters take part in it."""

    def __init__(self, inputs: StepInputs, strategy: Strategy, share: Share) -> None:
        self._inputs, self._strategy, self._share = inputs, strategy, share

    def follow(self) -> None:
        """Parameters may have begun or ceased to require gradients, or may be new: exchange what is trained now.

        Those who see a change send a table in the place of the round's one. So a process that sees none meets no
        other call than it makes, and reads in it what happened.
        """
        changed = self._strategy.changed(self._inputs.optimizers)
        if not changed:
            return
        table = torch.zeros(self._share.nb, ENDED + 1, dtype=torch.float64)
        table[list(self._share.mine), ENDED] = CHANGED
        ended = self._strategy.add_up(table.to(self._strategy.device))[:, ENDED].tolist()
        told = self._strategy.processes.gather(changed) if all(mark == CHANGED for mark in ended) else []
        if any(names != changed for names in told) or not told:
            raise changed_alone(f"{', '.join(changed[:5])} {at(self._inputs.progress)}")
        self._strategy.follow(self._inputs.optimizers)

    def check_exchange(self) -> None:
        """Raises ``FitError`` where a gradient is missing that others wait for, or one wasn't exchanged: before the
        optimizers step."""
        unused, alone = self._strategy.not_exchanged()
        if unused:
            raise FitError(
                f"{len(unused)} parameters got no gradient from {self._inputs.name}: {_shown(unused)}. With several"
                " processes every step waits for the gradients of all parameters. Freeze them (requires_grad=False) in"
                " a hook before the step, or pass distributed_backend=Distributed(find_unused_parameters=True) from"
                f" pytorch_lightning.strategies. {at(self._inputs.progress)}"
            )
        if alone:
            raise FitError(
                f"{len(alone)} parameters began or ceased to require gradients in the middle of a step, so that theirs"
                f" weren't exchanged between the processes: {_shown(alone)}. Set requires_grad before the step: in"
                f" on_epoch_start, or in on_batch_start of a window's first batch. {at(self._inputs.progress)}"
            )


def _shown(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
