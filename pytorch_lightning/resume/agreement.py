"""What the processes of a run agree on between two steps: to stop, to save, and when to ask again."""

import time
from pathlib import Path

from pytorch_lightning.processes import Processes
from pytorch_lightning.run.run import FitRun
from pytorch_lightning.run.wishes import SaveRequest

SECONDS_BETWEEN = 1.0
"""About how often processes ask each other in the middle of an epoch."""


class Agreement:
    """Every process comes here at the same steps: after each validation and epoch, and in between about once a
    second, at steps that were agreed on before. So nobody waits for anybody at a step that only one thinks of."""

    def __init__(self, run: FitRun, processes: Processes) -> None:
        self._run, self._processes = run, processes
        self._asked_at, self._asked_step = time.monotonic(), 0

    def settle(self) -> tuple[str, int]:
        """Share all requested saves among the processes. Returns the first request to stop, if any, and the
        ``global_step`` at which to settle again.

        A wish that comes while they talk (a signal, say) stays where it is: it is the next time's.
        """
        wishes = self._run.wishes
        nb_asked = len(wishes.saves)
        told = self._processes.gather(
            (wishes.stop, [request.without_callback() for request in wishes.saves[:nb_asked]])
        )
        # all processes or a single one may request a file; rank 0 writes it, and so knows when it exists
        wanted: dict[Path | None, SaveRequest] = {}
        if self._processes.is_first:
            wanted = {request.path: request for request in wishes.saves[:nb_asked]}
        refusals = {request.path: request.on_refused for request in wishes.saves[:nb_asked]}
        for _, requests in told:
            for request in requests:
                wanted.setdefault(request[0], SaveRequest(*request)._replace(on_refused=refusals.get(request[0])))
        wishes.saves[:nb_asked] = wanted.values()
        again = self._run.progress.global_step + int(self._processes.from_first(self._steps_to_next()))
        return next((reason for reason, _ in told if reason), ""), again

    def _steps_to_next(self) -> int:
        now, step = time.monotonic(), self._run.progress.global_step
        per_step = (now - self._asked_at) / max(1, step - self._asked_step)
        self._asked_at, self._asked_step = now, step
        return max(1, min(1000, int(SECONDS_BETWEEN / max(per_step, 1e-6))))
