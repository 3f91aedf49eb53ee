"""The progress bar: one line, redrawn by the clock."""

import sys
import time
from typing import Any

from pytorch_lightning.callbacks.callback import Callback, Run
from pytorch_lightning.printing import STDERR

DRAW_SECONDS = 0.1
REPLAY_SECONDS = 1.0
"""A replay of data that takes no longer isn't shown."""
LINE_SECONDS = 5.0


class ProgressBar(Callback):
    """A tqdm bar over the batches of an epoch, with its validations nested below.

    Drawn at most 10 times a second; numbers are read from the device only then. On something that isn't a
    terminal one plain line is printed every 5 seconds, and one at each epoch's end. ``process_position``, counted
    from 0, keeps the two lines of a run apart from those of others in one terminal. ``gpu_name`` is shown where
    it isn't 0.
    """

    only_first = True

    def __init__(self, process_position: int = 0, gpu_name: Any = 0) -> None:
        self.process_position, self.gpu_name = process_position, gpu_name
        self._bar: Any = None
        self._nested: Any = None
        self._drawn = self._began = 0.0
        self._first_batch = 0
        self._nb_evaluated: int | None = None
        self._plain = False

    def on_fit_start(self, run: Run) -> None:
        self._plain = not _can_draw()
        if run.progress.epoch_started:  # a fit that resumes in the middle of an epoch
            self._open(run)

    def on_epoch_start(self, run: Run) -> None:
        self._open(run)

    def _open(self, run: Run) -> None:
        self._began, self._first_batch = time.monotonic(), run.progress.batch_nb
        self._drawn = self._began
        if not self._plain:
            self._bar = _tqdm()(
                total=run.nb_tng_batches,
                initial=run.progress.batch_nb,
                desc=f"epoch {run.progress.epoch + 1}",
                position=2 * self.process_position,
                unit="batch",
                dynamic_ncols=True,
                leave=True,
                file=STDERR,
            )

    def on_batch_end(self, run: Run) -> None:
        now = time.monotonic()
        if now - self._drawn >= (LINE_SECONDS if self._plain else DRAW_SECONDS):
            self._drawn = now
            self._draw(run, run.progress.batch_nb + 1)

    def on_epoch_end(self, run: Run) -> None:
        self._draw(run, run.progress.batch_nb)
        self._close()

    def on_fit_end(self, run: Run) -> None:
        if self._bar is not None and run.progress.batch_nb:
            self._draw(run, run.progress.batch_nb)
        self._close()

    def on_dropped(self, nb: int, total: int) -> None:
        """``nb`` of ``total`` batches were fetched again and dropped, since they were trained on before the cut."""
        if nb == 1:
            self._drawn, self._plain = time.monotonic(), not _can_draw()
            if not self._plain:
                self._nested = _tqdm()(
                    total=total,
                    desc="replaying data",
                    delay=REPLAY_SECONDS,
                    position=2 * self.process_position,
                    unit="batch",
                    dynamic_ncols=True,
                    leave=False,
                    file=STDERR,
                )
        if self._nested is not None:
            self._nested.update()
            if nb == total:
                self._nested.close()
                self._nested = None
        elif time.monotonic() - self._drawn >= LINE_SECONDS:
            self._drawn = time.monotonic()
            print(f"replaying data: {nb}/{total} batches", file=STDERR, flush=True)

    def on_evaluation_start(self, run: Run, stage: str, nb_batches: int | None) -> None:
        self._plain, self._nb_evaluated = not _can_draw(), nb_batches
        self._drawn = self._drawn or time.monotonic()
        if self._bar is not None:
            self._draw(run, run.progress.batch_nb)
        if not self._plain:
            self._nested = _tqdm()(
                total=nb_batches,
                desc=f"  {stage}",
                position=2 * self.process_position + (self._bar is not None),
                unit="batch",
                dynamic_ncols=True,
                leave=False,
                file=STDERR,
            )

    def on_evaluation_batch_end(self, run: Run, stage: str, batch_nb: int) -> None:
        now = time.monotonic()
        if self._nested is not None:
            self._nested.n = batch_nb + 1
        if now - self._drawn < (LINE_SECONDS if self._plain else DRAW_SECONDS):
            return
        self._drawn = now
        if self._nested is not None:
            self._nested.refresh()
        elif self._plain:
            total = "" if self._nb_evaluated is None else f"/{self._nb_evaluated}"
            print(f"{stage}: {batch_nb + 1}{total} batches", file=STDERR, flush=True)

    def on_evaluation_end(self, run: Run, stage: str) -> None:
        if self._nested is not None:
            self._nested.close()
            self._nested = None

    def _draw(self, run: Run, nb_done: int) -> None:
        values = {**self._fixed(run), **run.metrics.shown()}
        if self._bar is not None:
            self._bar.n = nb_done
            self._bar.set_postfix({k: _short(v) for k, v in values.items()}, refresh=False)
            self._bar.refresh()
        elif self._plain:
            total = "" if run.nb_tng_batches is None else f"/{run.nb_tng_batches}"
            rate = (nb_done - self._first_batch) / max(time.monotonic() - self._began, 1e-9)
            left = (
                "" if run.nb_tng_batches is None else f", {(run.nb_tng_batches - nb_done) / max(rate, 1e-9):.0f} s left"
            )
            numbers = " ".join(f"{k}={_short(v)}" for k, v in values.items())
            print(
                f"epoch {run.progress.epoch + 1}: {nb_done}{total} batches, {rate:.1f} batch/s{left}  {numbers}",
                file=STDERR,
                flush=True,
            )

    def _fixed(self, run: Run) -> dict[str, Any]:
        version = {} if run.version is None else {"v_nb": str(run.version)}
        return {**version, **({"gpu": str(self.gpu_name)} if self.gpu_name not in (0, None) else {})}

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._began = 0.0


def _tqdm() -> Any:
    from tqdm.auto import tqdm

    return tqdm


def _can_draw() -> bool:
    """Whether stderr is a terminal, or this is a notebook (where tqdm draws a widget)."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return STDERR.isatty() or hasattr(shell, "kernel")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
