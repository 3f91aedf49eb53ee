"""Go back to the newest save when the loss spikes, and leave out the batches around the spike."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from pytorch_lightning.callbacks.callback import Callback, Run
from pytorch_lightning.callbacks.monitor import check_count
from pytorch_lightning.errors import FitError, MisconfigurationException, describe
from pytorch_lightning.printing import tell

LEAST = 20
"""Losses that a mean must be of, before a loss is compared with it."""


class Rewind(Callback):
    """When the loss of a batch spikes, training goes back to the newest save from before that batch, exactly to its
    state, and leaves out the ``skip`` batches around the spike: half of them before it, as far as the save isn't later.

    ``when`` is a factor over the mean of the losses of up to 99 batches before (of 20 at least), or a function of the
    list of the last 100 losses that returns whether the last one is a spike. After ``max_rewinds`` the next spike is a
    ``FitError``.

    A rewind ends the program with exit code 75, as a signal does: run the same command again, or let SLURM or torchrun
    do it. That start resumes the save, with ``resume='auto'``, which is needed. The loss of every batch is read, which
    waits for a GPU. Raises ``MisconfigurationException`` for numbers that it can't use, and before the first batch for
    a fit that it can't rewind.

    >>> from pytorch_lightning import Trainer
    >>> rewind = Rewind(when=lambda losses: losses[-1] > 10.0, skip=20)
    >>> trainer = Trainer(callbacks=[rewind], resume="auto", save_every_nb_batches=500)
    """

    def __init__(self, when: float | Callable[[list[float]], bool] = 3.0, skip: int = 10, max_rewinds: int = 3) -> None:
        is_factor = isinstance(when, (int, float)) and not isinstance(when, bool) and 1 < when < math.inf
        if not (is_factor or callable(when)):
            raise MisconfigurationException(
                f"Rewind: when must be a factor above 1, or a function of a list of losses; received {describe(when)}."
            )
        check_count(self, "skip", skip, 1)
        check_count(self, "max_rewinds", max_rewinds, 1)
        self.when, self.skip, self.max_rewinds = when, skip, max_rewinds
        self.reset()

    def reset(self) -> None:
        self.rewinds: list[dict[str, Any]] = []
        """Each with the batch of the spike, its loss, the step of the save, and the batches that are left out."""

    def state_dict(self) -> dict[str, Any]:
        return {"rewinds": self.rewinds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rewinds = list(state["rewinds"])

    def on_fit_start(self, run: Run) -> None:
        if not run.fast_dev_run:
            problem = run.module.trainer._plan.rolling.why_no_way_back()
            if problem is not None:
                raise MisconfigurationException(f"Rewind can't go back exactly here: {problem}.")

    def on_batch_end(self, run: Run) -> None:
        losses = [] if run.fast_dev_run else run.metrics.read_losses()
        if not losses or not self._is_spike(losses):
            return
        batch, loss = run.progress.global_step, losses[-1]
        if len(self.rewinds) >= self.max_rewinds:
            raise FitError(
                f"the loss spiked again, to {loss:.6g} in batch {batch}, after {len(self.rewinds)} rewinds. Lower the"
                " learning rate, clip gradients, or look at the samples of these batches."
            )
        rolling = run.module.trainer._plan.rolling
        step = rolling.step_of_newest()
        first = max(step, batch - self.skip // 2)
        about = {"batch": batch, "loss": loss, "to": step, "skip": [first, first + self.skip]}
        how = rolling.rewind((first, first + self.skip), self, {"rewinds": [*self.rewinds, about]})
        tell(
            f"Rewind {len(self.rewinds) + 1} of at most {self.max_rewinds}: the loss spiked to {loss:.6g} in batch"
            f" {batch}; back to the save at {step}, {how}"
        )
        run.progress.stop_reason = f"rewind from batch {batch} to {step}"
        raise SystemExit(75)

    def _is_spike(self, losses: Sequence[float]) -> bool:
        if callable(self.when):
            return bool(self.when(list(losses)))
        before = losses[:-1]
        return len(before) >= LEAST and not losses[-1] <= self.when * sum(before) / len(before)
