"""The progress bar: what is shown of a run, and when."""

import os
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pytorch_lightning.callbacks.callback import Callback, Run
from pytorch_lightning.printing import STDERR

if TYPE_CHECKING:
    from pytorch_lightning.callbacks.bar_text import Shown

REPLAY_SECONDS = 1.0
"""A replay of data that takes no longer isn't shown."""
LINE_SECONDS = 5.0


class Display(Protocol):
    """Where a bar is shown: in a terminal, in a notebook, or as lines of a file."""

    draw_seconds: float

    def show(self, shown: "Shown") -> None:
        """Show this in place of what was shown before."""

    def keep(self, shown: "Shown") -> None:
        """Leave this for good."""

    def wipe(self) -> None:
        """Nothing is going on any more."""

    def close(self) -> None:
        """The end."""


class PlainLines:
    """What isn't a terminal gets a line from time to time."""

    def __init__(self) -> None:
        self.draw_seconds = LINE_SECONDS

    def show(self, shown: "Shown") -> None:
        """Print a line."""
        from pytorch_lightning.callbacks.bar_text import line

        if shown.rate:  # otherwise nothing is done yet
            print(line(shown, sys.maxsize, bars=False), file=STDERR, flush=True)

    keep = show

    def wipe(self) -> None:
        """Lines stay."""

    close = wipe


@dataclass
class Pass:
    """A pass over data that is going on: an epoch, or an evaluation."""

    name: str
    total: int | None
    first: int
    began: float
    paused: float = 0.0
    """Seconds in which it waited for an evaluation."""
    first_items: float = 0.0


class ProgressBar(Callback):
    """One line below all that is printed: how far the epoch is, its numbers, the time left and the rate.

    In a terminal it is drawn at most 10 times a second, and numbers are read from the device only then; in a notebook
    it is a table of epochs. On something that is neither one plain line is printed every 5 seconds. At each epoch's
    end a line stays, with the mean loss of the epoch. ``process_position``, counted from 0, keeps the line of a run
    apart from those of others in one terminal. ``gpu_name`` is shown where it isn't 0.

    >>> from pytorch_lightning import Trainer
    >>> trainer = Trainer(progress_bar=False, callbacks=[ProgressBar(process_position=1)])  # on the second line
    """

    only_first = True

    def __init__(self, process_position: int = 0, gpu_name: Any = 0) -> None:
        self.process_position, self.gpu_name = process_position, gpu_name
        self._display: Display | None = None
        self._in_fit = False
        self._drawn = 0.0
        self._next = 0.0
        self._epoch: Pass | None = None
        self._evaluation: Pass | None = None

    def reset(self) -> None:
        self._close()

    def on_fit_start(self, run: Run) -> None:
        self._open_display()
        self._in_fit = True
        if run.progress.epoch_started:  # a fit that resumes in the middle of an epoch
            self.on_epoch_start(run)

    def on_epoch_start(self, run: Run) -> None:
        progress = run.progress
        self._epoch = Pass(f"epoch {progress.epoch + 1}", run.nb_tng_batches, progress.batch_nb, time.monotonic())
        self._epoch.first_items = run.metrics.nb_items
        self._show(run, self._epoch, progress.batch_nb)

    def on_batch_end(self, run: Run) -> None:
        if time.monotonic() >= self._next and self._epoch is not None:
            self._show(run, self._epoch, run.progress.batch_nb + 1)

    def on_epoch_end(self, run: Run) -> None:
        self._keep(run, is_over=True)

    def on_fit_end(self, run: Run) -> None:
        if run.progress.batch_nb:
            self._keep(run, is_over=False)
        self._close()

    def on_dropped(self, nb: int, total: int) -> None:
        """``nb`` of ``total`` batches were fetched again and dropped, since they were trained on before the cut."""
        from pytorch_lightning.callbacks.bar_text import Shown, rate_of

        now = time.monotonic()
        if nb == 1:
            self._open_display()
            self._evaluation = Pass("replaying data", total, 0, now)
            self._next = now + max(REPLAY_SECONDS, 0.0 if self._display is None else self._display.draw_seconds)
        replayed, display = self._evaluation, self._display
        if display is None or replayed is None:
            return
        if now >= self._next:
            self._next = now + display.draw_seconds
            elapsed = now - replayed.began
            rate = rate_of(nb, elapsed, "batches")
            display.show(Shown(replayed.name, nb, total, {}, elapsed, elapsed / nb * (total - nb), rate))
        if nb == total:
            display.wipe()
            self._evaluation = None

    def on_evaluation_start(self, run: Run, stage: str, nb_batches: int | None) -> None:
        self._open_display()
        self._evaluation = Pass(stage, nb_batches, 0, time.monotonic())
        self._show(run, self._evaluation, 0)

    def on_evaluation_batch_end(self, run: Run, stage: str, batch_nb: int) -> None:
        if time.monotonic() >= self._next and self._evaluation is not None:
            self._show(run, self._evaluation, batch_nb + 1)

    def on_evaluation_end(self, run: Run, stage: str) -> None:
        ended, self._evaluation = self._evaluation, None
        if self._epoch is not None and ended is not None:
            self._epoch.paused += time.monotonic() - ended.began
        elif self._display is not None:
            self._display.wipe()
        if not self._in_fit:
            self._close()

    def _show(self, run: Run, of: Pass, nb_done: int) -> None:
        display = self._display
        if display is None:
            return
        shown = self._shown(run, of, nb_done)
        display.show(shown)
        self._next = time.monotonic() + display.draw_seconds

    def _keep(self, run: Run, is_over: bool) -> None:
        epoch, self._epoch = self._epoch, None
        if epoch is not None and self._display is not None:
            shown = self._shown(run, epoch, run.progress.batch_nb)
            mean = run.metrics.epoch_loss
            if mean is not None:
                shown.numbers = {"mean_loss": mean, **{k: v for k, v in shown.numbers.items() if k != "tng_loss"}}
            shown.is_over = is_over
            self._display.keep(shown)

    def _shown(self, run: Run, of: Pass, nb_done: int) -> "Shown":
        from pytorch_lightning.callbacks.bar_text import Shown, rate_of

        elapsed, nb = time.monotonic() - of.began, nb_done - of.first
        working = elapsed - of.paused
        left = None if not nb or of.total is None else working / nb * (of.total - nb_done)
        amount, unit = float(nb), "batches"
        if of is not self._evaluation:
            items, samples = run.metrics.nb_items, [run.nb_samples_in(n) for n in (of.first, nb_done)]
            if items > of.first_items:
                amount, unit = items - of.first_items, "items"
            elif None not in samples:
                amount, unit = samples[1] - samples[0], "samples"  # type: ignore[operator]
        rate = rate_of(amount, working, unit) if nb else ""
        numbers = run.metrics.shown()
        return Shown(of.name, nb_done, of.total, numbers, elapsed, left, rate, self._fixed(run))

    def _fixed(self, run: Run) -> dict[str, str]:
        gpu = {"gpu": str(self.gpu_name)} if self.gpu_name not in (0, None) else {}
        return {**gpu, **({} if run.version is None else {"v_nb": str(run.version)})}

    def _open_display(self) -> None:
        if self._display is not None:
            return
        shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
        if hasattr(shell, "kernel"):
            from pytorch_lightning.callbacks.bar_notebook import NotebookTable

            self._display = NotebookTable()
        elif STDERR.isatty() and os.environ.get("TERM") != "dumb":
            from pytorch_lightning.callbacks.bar_terminal import TerminalBar

            self._display = TerminalBar(self.process_position or None)
        else:
            self._display = PlainLines()

    def _close(self) -> None:
        display, self._display, self._in_fit = self._display, None, False
        self._epoch = self._evaluation = None
        if display is not None:
            display.close()
