"""Keep the weights after validations."""

from pathlib import Path
from typing import Any

from pytorch_lightning.callbacks.callback import Callback, Run
from pytorch_lightning.callbacks.monitor import direction, is_better, worst
from pytorch_lightning.errors import MisconfigurationException


class ModelCheckpoint(Callback):
    """Saves ``{filepath}/{prefix}_ckpt_epoch_{n}.ckpt`` after validations, n counting epochs from 1.

    ``filepath`` is a folder. Without validation it saves at the end of each epoch. A later file of the same epoch
    replaces the earlier one; where values are compared, only a better one does.

    ``monitor``, ``mode``: the metric and its better direction ('auto': max where the name holds 'acc').
    ``save_best_only``: only where ``monitor`` beat every value so far, and only the newest of these is kept.
    ``save_top_k``: keep the k best (0: save nothing; None or -1: all). ``save_weights_only``: leave the state of
    optimizers and everything else that a resume needs out. ``period``: epochs between two saves. ``verbose``: 1
    prints a line per file. ``save_function`` is accepted and not needed.

    Only files that this callback wrote are ever deleted, and only after their replacement is on the disk.
    """

    def __init__(
        self,
        filepath: str | Path,
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        period: int = 1,
        prefix: str = "",
        save_top_k: int | None = None,
        save_function: Any = None,
    ) -> None:
        if period < 1:
            raise MisconfigurationException(f"ModelCheckpoint: period must be at least 1; received {period}.")
        if save_best_only and save_top_k not in (None, 1):
            raise MisconfigurationException(
                f"ModelCheckpoint: save_best_only keeps one file and save_top_k={save_top_k} another number."
                " Pass one of them."
            )
        self.filepath, self.monitor, self.verbose = str(filepath), monitor, verbose
        self.save_best_only, self.save_weights_only = save_best_only, save_weights_only
        self.mode, self.period, self.prefix = direction(monitor, mode), period, prefix
        self.save_top_k = 1 if save_best_only else (None if save_top_k == -1 else save_top_k)
        self.save_function = save_function
        self.best = worst(self.mode)
        self.best_path: str | None = None
        """The file with the best value so far (the newest where nothing is compared)."""
        self.kept: dict[str, float] = {}
        """The files that this callback wrote and hasn't deleted, with their values."""
        self._last_epoch: int | None = None

    def on_validation_end(self, run: Run, metrics: dict[str, float | int]) -> None:
        self._save(run, metrics.get(self.monitor))

    def on_epoch_end(self, run: Run) -> None:
        if run.nb_val_batches == 0:
            self._save(run, run.metrics.of_training().get(self.monitor))

    def _save(self, run: Run, value: float | None) -> None:
        epoch = run.progress.epoch + 1
        if self._last_epoch is not None and epoch != self._last_epoch and epoch - self._last_epoch < self.period:
            return
        folder = Path(self.filepath) if run.scratch is None else run.scratch / "checkpoints"
        path = str(folder / f"{self.prefix}_ckpt_epoch_{epoch}.ckpt")
        if self.save_top_k is None:
            value = 0.0 if value is None else value
        elif value is None or self.save_top_k == 0 or not self._among_best(path, value):
            return
        self._last_epoch = epoch
        self.kept[path] = value
        if self.save_top_k is None or is_better(value, self.best, self.mode):
            self.best_path = path
        if is_better(value, self.best, self.mode):
            self.best = value
        surplus = self._forget_surplus()

        def saved() -> None:
            for old in surplus:
                Path(old).unlink(missing_ok=True)
            if self.verbose:
                print(f"saved {path}", flush=True)

        run.save(path, on_saved=saved, weights_only=self.save_weights_only)

    def _among_best(self, path: str, value: float) -> bool:
        assert self.save_top_k is not None
        if path in self.kept:  # an earlier one of the same epoch, which it would replace
            return is_better(value, self.kept[path], self.mode)
        if len(self.kept) < self.save_top_k and not self.save_best_only:
            return value == value  # NaN is never among the best
        return any(is_better(value, old, self.mode) for old in self.kept.values()) or not self.kept

    def _forget_surplus(self) -> list[str]:
        if self.save_top_k is None:
            return []
        ranked = sorted(self.kept, key=lambda path: self.kept[path], reverse=self.mode == "max")
        surplus = ranked[self.save_top_k :]
        for path in surplus:
            del self.kept[path]
        return surplus

    def needed_metric(self) -> str | None:
        return None if self.save_top_k is None else self.monitor

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_path": self.best_path, "kept": dict(self.kept), "last_epoch": self._last_epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.best_path = state["best"], state["best_path"]
        self.kept, self._last_epoch = dict(state["kept"]), state["last_epoch"]
