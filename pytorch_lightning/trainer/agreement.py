"""What the processes of a run agree on between two steps: to stop, to save, and when to ask again."""

import time

from pytorch_lightning.processes import Processes
from pytorch_lightning.trainer.run import FitRun, SaveRequest

SECONDS_BETWEEN = 1.0
"""About how often processes ask each other in the middle of an epoch."""


class Agreement:
    """Every process comes here at the same steps: after each validation and epoch, and in between about once a
    second, at steps that were agreed on before. So nobody waits for anybody at a step that only one thinks of."""

    def __init__(self, run: FitRun, processes: Processes) -> None:
        self._run, self._processes = run, processes
        self._asked_at, self._asked_step = time.monotonic(), 0

    def settle(self) -> int:
        """Make the first wish to stop everybody's, and rank 0's saves everybody's. Returns the ``global_step`` at
        which to settle again."""
        run = self._run
        told = self._processes.gather((run.stop_wanted, [request.without_callback() for request in run.requests]))
        run.stop_wanted = next((reason for reason, _ in told if reason), "")
        if not self._processes.is_first:
            run.requests[:] = [SaveRequest(*request) for request in told[0][1]]
        return run.progress.global_step + int(self._processes.from_first(self._steps_to_next()))

    def _steps_to_next(self) -> int:
        now, step = time.monotonic(), self._run.progress.global_step
        per_step = (now - self._asked_at) / max(1, step - self._asked_step)
        self._asked_at, self._asked_step = now, step
        return max(1, min(1000, int(SECONDS_BETWEEN / max(per_step, 1e-6))))
