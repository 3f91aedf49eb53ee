"""How fast training is."""

import time
from typing import Any

from pytorch_lightning.callbacks.callback import Callback, Run


class ThroughputMonitor(Callback):
    """Measures how much is trained on in a second, and logs that at the end of each epoch.

    ``rates`` may be read at any time: of the epoch so far, or of the last one. It holds ``batches_per_second`` (with
    several processes a batch is one of each of them), ``samples_per_second`` where the loader says how many there are,
    ``items_per_second`` where ``training_step`` returns ``loss_count`` (the number of tokens, say), and with
    ``flops=True`` ``flops_per_second``. All processes count. The time of validations isn't in it; that of saving and
    of waiting for data is. In a step nothing is measured, so it costs nothing.

    Args:
        flops: Count the floating point operations of one batch, forward, backward and step: the first one of each fit.
            torch's own counter does that (``torch.utils.flop_counter``), which knows matrix products, convolutions and
            attention, a multiplication and an addition being two operations. ``flops_per_batch`` is the number, None
            before that. Bits don't change; that batch takes longer. Default: False.

    Source of the counter: https://docs.pytorch.org/docs/stable/generated/torch.utils.flop_counter.FlopCounterMode.html

    >>> from pytorch_lightning import Trainer
    >>> monitor = ThroughputMonitor(flops=True)
    >>> trainer = Trainer(callbacks=[monitor])
    >>> monitor.rates
    {}
    """

    only_first = True

    def __init__(self, flops: bool = False) -> None:
        self.flops = flops
        if flops:  # otherwise no hook is called in a step
            vars(self).update(on_batch_start=self._begin_count, on_batch_end=self._note_count)
        self.reset()

    def reset(self) -> None:
        self.flops_per_batch: int | None = None
        self._run: Run | None = None
        self._counter: Any = None
        self._began = self._since = self._paused = 0.0
        self._first, self._first_items = 0, 0.0
        self._last: dict[str, float] = {}

    @property
    def rates(self) -> dict[str, float]:
        """What was trained on in a second, by name."""
        return self._last if self._run is None else self._rates(self._run)

    def on_fit_start(self, run: Run) -> None:
        if run.progress.epoch_started:  # a fit that resumes in the middle of an epoch
            self.on_epoch_start(run)

    def on_epoch_start(self, run: Run) -> None:
        self._run, self._began, self._paused = run, time.monotonic(), 0.0
        self._first, self._first_items = run.progress.batch_nb, run.metrics.nb_items

    def _begin_count(self, run: Run, data_batch: Any) -> None:
        if self.flops_per_batch is None and self._counter is None:
            from torch.utils.flop_counter import FlopCounterMode

            self._counter = FlopCounterMode(display=False)
            self._counter.__enter__()

    def _note_count(self, run: Run) -> None:
        if self._counter is not None:
            self.flops_per_batch = self._end_count() * run.module.trainer.world_size

    def _end_count(self) -> int:
        counter, self._counter = self._counter, None
        counter.__exit__(None, None, None)
        return int(counter.get_total_flops())

    def on_evaluation_start(self, run: Run, stage: str, nb_batches: int | None) -> None:
        self._since = time.monotonic()

    def on_evaluation_end(self, run: Run, stage: str) -> None:
        self._paused += time.monotonic() - self._since

    def on_epoch_end(self, run: Run) -> None:
        self._last, self._run = self._rates(run), None
        if self._last:
            run.module.experiment.log(dict(self._last))

    def on_fit_end(self, run: Run) -> None:
        if self._counter is not None:  # the step failed
            self._end_count()
        self._last, self._run = self.rates, None

    def _rates(self, run: Run) -> dict[str, float]:
        nb_done = run.progress.batch_nb
        seconds, nb = time.monotonic() - self._began - self._paused, nb_done - self._first
        if nb <= 0 or seconds <= 0:
            return {}
        rates = {"batches_per_second": nb / seconds}
        before, after = run.nb_samples_in(self._first), run.nb_samples_in(nb_done)
        if before is not None and after is not None:
            rates["samples_per_second"] = (after - before) / seconds
        items = run.metrics.nb_items - self._first_items
        if items > 0:
            rates["items_per_second"] = items / seconds
        if self.flops_per_batch is not None:
            rates["flops_per_second"] = self.flops_per_batch * nb / seconds
        return rates
