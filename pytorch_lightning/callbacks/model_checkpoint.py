"""Save checkpoints after validations."""

import re
from inspect import signature
from pathlib import Path
from typing import Any

from pytorch_lightning.callbacks.callback import Callback, Run
from pytorch_lightning.callbacks.monitor import check_count, direction, is_better, say_guess, worst
from pytorch_lightning.errors import MisconfigurationException, describe
from pytorch_lightning.lightning2 import refuse_arguments
from pytorch_lightning.printing import tell

VERSION = re.compile(r"(?<=version_)\d+")


class ModelCheckpoint(Callback):
    """Saves ``{filepath}/{prefix}_ckpt_epoch_{n}.ckpt`` after validations, n counting epochs from 1.

    ``filepath`` is a folder. Without validation it saves at the end of every epoch. A later file of the same epoch
    replaces the earlier one; if only the best is kept, only if it is better. If the k best are kept, a file of a
    validation within an epoch is called ``{prefix}_ckpt_epoch_{n}_batch_{m}.ckpt``, after the m-th batch.

    ``monitor``, ``mode``: the metric, and whether lower or higher is better ('auto': by the name, max for accuracy, F1,
    AUC and the like, otherwise min).
    ``save_best_only``: save only if ``monitor`` is better than ever before, and keep only the newest of these files.
    ``save_top_k``: keep the k best (0: save nothing; None or -1: all). ``save_weights_only``: leave out the state of
    optimizers and everything else that only a resume needs. ``period=n``: save after epochs n, 2n, 3n, ...
    ``verbose``: 1 prints a line per file. ``save_function`` is accepted for compatibility and not used.

    Only files that this callback wrote are ever deleted, and only after their replacement is on disk; and, at a start,
    partial files of the same names that a process left when it died.
    """

    def __init__(
        self,
        filepath: str | Path = "",
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        period: int = 1,
        prefix: str = "",
        save_top_k: int | None = None,
        save_function: Any = None,
        **others: Any,
    ) -> None:
        refuse_arguments("ModelCheckpoint", "callback_arguments", others, signature(ModelCheckpoint).parameters)
        check_count(self, "period", period, 1)
        if save_top_k is not None:
            check_count(self, "save_top_k", save_top_k, -1)
        if not isinstance(filepath, (str, Path)) or not str(filepath):
            raise MisconfigurationException(
                f"ModelCheckpoint: filepath must be a folder; received {describe(filepath)}."
                " Pass 'checkpoints', for example."
            )
        if Path(filepath).suffix in (".ckpt", ".pt", ".pth", ".keras", ".h5") and not Path(filepath).is_dir():
            raise MisconfigurationException(
                f"ModelCheckpoint: filepath is a folder, and the files in it get their names; received"
                f" {describe(filepath)}. Pass 'checkpoints', and a prefix for the names."
            )
        if save_best_only and save_top_k not in (None, 1):
            raise MisconfigurationException(
                f"ModelCheckpoint: save_best_only=True keeps one file, but save_top_k={save_top_k}. Pass one of them."
            )
        self.filepath, self.monitor, self.verbose = str(filepath), monitor, verbose
        self.save_best_only, self.save_weights_only = save_best_only, save_weights_only
        self.mode, self.period, self.prefix = direction(monitor, mode), period, prefix
        self._is_guess = mode == "auto"
        self.save_top_k = 1 if save_best_only else (None if save_top_k == -1 else save_top_k)
        self.save_function = save_function
        self.reset()

    def reset(self) -> None:
        self.best = worst(self.mode)
        self.best_path: str | None = None
        """The kept file with the best value, which is ``best``; the newest where ``monitor`` isn't known."""
        self.kept: dict[str, float | None] = {}
        """The files that this callback keeps, with their values."""
        self._written: set[str] = set()
        self._last_epoch: int | None = None
        self._before = self.filepath
        self._kept_before: dict[str, float | None] = {}
        self._continues = False

    @property
    def names(self) -> re.Pattern[str]:
        """What the files of this callback are called."""
        return re.compile(rf"{re.escape(self.prefix)}_ckpt_epoch_\d+(_batch_\d+)?\.ckpt")

    def on_fit_start(self, run: Run) -> None:
        if run.scratch is None and not self._continues:  # a run that was killed writes the same files again
            self._say_what_is_there(run)

    def _say_what_is_there(self, run: Run) -> None:
        """Files of an earlier run that this one may write over are named before it does."""
        folder = Path(self.filepath)
        there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        ours = [name for name in there if self.names.fullmatch(name) and str(folder / name) not in self.kept]
        epochs = [int(name.removeprefix(self.prefix).removesuffix(".ckpt").split("_")[3]) for name in ours]
        names = [n for n, e in zip(ours, epochs, strict=True) if run.progress.epoch < e <= run.max_nb_epochs]
        if names and self.save_top_k != 0:
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            run.notices.say(
                "writes-over",
                f"{folder} holds checkpoints of an earlier run, and those of the same names are replaced: {shown}; use"
                " another folder or prefix to keep them",
            )

    def on_validation_end(self, run: Run, metrics: dict[str, float | int]) -> None:
        self._save(run, metrics.get(self.monitor))

    def on_epoch_end(self, run: Run) -> None:
        if run.nb_val_batches == 0:
            self._save(run, run.metrics.of_training().get(self.monitor))

    def _save(self, run: Run, value: float | None) -> None:
        epoch, last = run.progress.epoch + 1, self._last_epoch or 0
        if epoch != last and epoch // self.period == last // self.period:
            return
        if self._is_guess and value is not None:
            say_guess(run, self.monitor)
        folder = Path(self.filepath) if run.scratch is None else run.scratch / "checkpoints"
        within = self.save_top_k not in (None, 1) and run.nb_epochs_completed < epoch
        place = f"{epoch}_batch_{run.progress.batch_nb}" if within else str(epoch)
        path = str(folder / f"{self.prefix}_ckpt_epoch_{place}.ckpt")
        before = self.best, self.best_path, dict(self.kept), self._last_epoch
        self._last_epoch = epoch
        if not self._is_kept(path, value):
            return
        self.kept.pop(path, None)
        self.kept[path] = value
        surplus = self._forget_surplus()
        self.best = self._worth(self._best_kept())
        self.best_path = path if self.best == worst(self.mode) else self._best_kept()

        def saved() -> None:
            self._written.add(path)
            for old in self._written & surplus:
                Path(old).unlink(missing_ok=True)
            self._written -= surplus
            if self.verbose:
                tell(f"saved {path}")

        def refused() -> None:
            self.best, self.best_path, self.kept, self._last_epoch = before

        run.save(path, on_saved=saved, weights_only=self.save_weights_only, on_refused=refused)

    def _is_kept(self, path: str, value: float | None) -> bool:
        """Whether a file at ``path`` with this value is worth being kept."""
        if self.save_top_k is None:
            return True
        if self.save_top_k == 0 or value is None or value != value:
            return False
        if path in self.kept:
            return is_better(value, self._worth(path), self.mode)
        return len(self.kept) < self.save_top_k or any(
            is_better(value, self._worth(old), self.mode) for old in self.kept
        )

    def _worth(self, path: str) -> float:
        """The value of a file; the worst there is where it has none, or NaN."""
        value = self.kept[path]
        return worst(self.mode) if value is None or value != value else value

    def _forget_surplus(self) -> set[str]:
        ranked = sorted(self.kept, key=self._worth, reverse=self.mode == "max")
        surplus = set() if self.save_top_k is None else set(ranked[self.save_top_k :])
        for path in surplus:
            del self.kept[path]
        return surplus

    @property
    def state_name(self) -> str:
        return f"{type(self).__name__} {self.monitor}"

    def needed_metric(self) -> str | None:
        return None if self.save_top_k is None else self.monitor

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "best_path": self.best_path,
            "kept": dict(self.kept),
            "last_epoch": self._last_epoch,
            "filepath": self.filepath,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what an earlier fit has kept, as names of files in this callback's folder: a checkpoint that names
        other files has none of them read or deleted. In another folder, nothing is kept yet."""
        epoch, values = state["last_epoch"], {Path(path).name: value for path, value in state["kept"].items()}
        self.best, self._last_epoch = float(state["best"]), None if epoch is None else int(epoch)
        self._before = str(state.get("filepath", self.filepath))
        self._kept_before = {
            name: None if value is None else float(value)
            for name, value in values.items()
            if self.names.fullmatch(name)
        }
        self._continues = self._before == self.filepath
        if self._continues:
            self._find_kept()

    def follow(self, filepath: str, kept: dict[str, float | None], best_path: str | None) -> None:
        """Take what this callback has kept in another process of the same fit: those files are its own."""
        self.filepath, self.kept, self.best_path = filepath, kept, best_path
        self._written = set(kept)

    def resume(self, version: int | None) -> None:
        """Write to the folder of the resumed run, if the two folders differ only in the number of a version, which
        must be that of the resumed run if it is known."""
        before, now = VERSION.findall(self._before), VERSION.findall(self.filepath)
        same = VERSION.sub("", self._before) == VERSION.sub("", self.filepath)
        if same and all(old in (new, str(version)) or version is None for old, new in zip(before, now, strict=True)):
            self.filepath, self._continues = self._before, True
            self._find_kept()

    def _find_kept(self) -> None:
        self.kept = {str(Path(self.filepath) / name): value for name, value in self._kept_before.items()}
        self._written = set(self.kept)
        if self.kept and self.best != worst(self.mode):
            self.best_path = self._best_kept()
        else:
            self.best_path = next(reversed(self.kept), None)

    def _best_kept(self) -> str:
        pick = min if self.mode == "min" else max
        return pick(self.kept, key=self._worth)
