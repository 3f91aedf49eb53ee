"""A trace of a few steps, by ``torch.profiler``."""

from typing import Any

from pytorch_lightning.callbacks.callback import Callback, Run

WAIT, ACTIVE = 10, 5
"""Batches: how many run before the trace, and how many are in it."""


class Profiler(Callback):
    """Writes ``trace.json`` to the run's folder (open it in chrome://tracing or ui.perfetto.dev)."""

    def __init__(self) -> None:
        self._profile: Any = None
        self._nb_seen = 0

    def on_fit_start(self, run: Run) -> None:
        self._nb_seen = 0
        if run.folder is None:
            run.notices.say("no-profile", "profile is on but the run has no folder, so no trace is written")
            self._nb_seen = WAIT + ACTIVE + 1

    def on_batch_end(self, run: Run) -> None:
        self._nb_seen += 1
        if self._nb_seen == WAIT:
            import torch

            self._profile = torch.profiler.profile()
            self._profile.start()
        elif self._nb_seen == WAIT + ACTIVE:
            self._finish(run)

    def on_fit_end(self, run: Run) -> None:
        self._finish(run)

    def _finish(self, run: Run) -> None:
        profile, self._profile = self._profile, None
        if profile is not None:
            profile.stop()
            profile.export_chrome_trace(str(run.folder) + "/trace.json")
