"""Save checkpoints after validations, or every few batches or minutes."""

import re
import time
from datetime import timedelta
from inspect import signature
from itertools import islice
from math import nan
from pathlib import Path
from typing import Any

from pytorch_lightning.callbacks.callback import Callback, Run
from pytorch_lightning.callbacks.monitor import check_count, direction, from_first, is_better, say_guess, worst
from pytorch_lightning.errors import MisconfigurationException, describe, near
from pytorch_lightning.lightning2 import refuse_arguments
from pytorch_lightning.printing import tell

VERSION = re.compile(r"(?<=version_)\d+")
NEVER = 2**62
NEWEST = 5
"""So many of the files are named in a checkpoint where all are kept, and the best."""


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
    ``every_nb_batches=n``: save every n training batches, counted across epochs, and not after validations; where one
    runs after the same batch, after it. ``every_minutes``: the same by the clock (a timedelta is taken too).
    Such a file is called ``{prefix}_ckpt_epoch_{n}_batch_{m}.ckpt``.
    ``save_last``: write each time to ``{prefix}_ckpt_last.ckpt`` too (``last.ckpt`` with a ``filename``), whatever
    ``save_top_k`` keeps. ``filename``: the names instead, from ``epoch`` (from 1), ``global_step`` and metrics:
    ``'{epoch}-{global_step}-{val_loss:.3f}'`` gives ``epoch=2-global_step=200-val_loss=0.125.ckpt``, and ``nan`` for a
    metric that isn't there yet. A later file of the same name replaces the earlier one.

    Only files that this callback wrote are ever deleted, and only after their replacement is on disk; and, at a start,
    partial files of the same names that a process left when it died. Raises ``MisconfigurationException`` for a value
    that none of these can have.

    >>> from pytorch_lightning import Trainer
    >>> best = ModelCheckpoint("checkpoints", monitor="val_acc", save_top_k=3, filename="{epoch}-{val_acc:.3f}")
    >>> trainer = Trainer(checkpoint_callback=best)
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
        every_nb_batches: int | None = None,
        every_minutes: Any = None,
        save_last: bool = False,
        filename: str | None = None,
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
        self._template: Any = None
        if filename is not None:
            from pytorch_lightning.callbacks.file_names import FileName

            self._template = FileName(filename)
        self.every_nb_batches = every_nb_batches
        is_delta = isinstance(every_minutes, timedelta)
        self.every_minutes = every_minutes.total_seconds() / 60 if is_delta else every_minutes
        self.save_last, self.filename = bool(save_last), filename
        self._check_times(period, prefix)
        self.filepath, self.monitor, self.verbose = str(filepath), monitor, verbose
        self.save_best_only, self.save_weights_only = save_best_only, save_weights_only
        self.mode, self.period, self.prefix = direction(monitor, mode), period, prefix
        self._is_guess = mode == "auto"
        self.save_top_k = 1 if save_best_only else (None if save_top_k == -1 else save_top_k)
        self.save_function = save_function
        self.reset()

    def _check_times(self, period: int, prefix: str) -> None:
        number, minutes = self.every_nb_batches, self.every_minutes
        if number is not None:
            check_count(self, "every_nb_batches", number, 1)
        if minutes is not None and (isinstance(minutes, bool) or not isinstance(minutes, (int, float)) or minutes <= 0):
            raise MisconfigurationException(
                f"ModelCheckpoint: every_minutes must be a positive number or timedelta; received {describe(minutes)}."
            )
        given = {"every_nb_batches": number is not None, "every_minutes": minutes is not None, "period": period != 1}
        times = [name for name, is_given in given.items() if is_given]
        if len(times) > 1:
            raise MisconfigurationException(
                f"ModelCheckpoint: {' and '.join(times)} both say when to save. Pass one of them, or make two"
                " ModelCheckpoints, each with a prefix."
            )
        if self.filename is not None and prefix:
            raise MisconfigurationException(
                f"ModelCheckpoint: filename={self.filename!r} is the whole name, and prefix={prefix!r} was passed too."
                " Write it into filename."
            )

    def reset(self) -> None:
        self.best = worst(self.mode)
        self.best_path: str | None = None
        """The kept file with the best value, which is ``best``; the newest where ``monitor`` isn't known."""
        self.kept: dict[str, float | None] = {}
        """The files that this callback keeps, with their values; of all, a resumed run knows the best and newest."""
        self._written: set[str] = set()
        self._last_epoch: int | None = None
        self._last_step = 0
        """``global_step`` when it was time to save last, where that is counted in batches."""
        self._looked = (time.monotonic(), -1)
        self._due = self._looked[0] + 60 * (self.every_minutes or 0.0)
        self._before = self.filepath
        self._kept_before: dict[str, float | None] = {}
        self._continues = False

    @property
    def names(self) -> re.Pattern[str]:
        """What the files of this callback are called."""
        last = rf"|{re.escape(self.last_name)}" if self.save_last else ""
        if self._template is not None:
            return re.compile(rf"{self._template.pattern}\.ckpt{last}")
        return re.compile(rf"{re.escape(self.prefix)}_ckpt_epoch_\d+(_batch_\d+)?\.ckpt{last}")

    @property
    def last_name(self) -> str:
        """What the file of ``save_last`` is called."""
        return "last.ckpt" if self._template is not None else f"{self.prefix}_ckpt_last.ckpt"

    @property
    def is_timed(self) -> bool:
        """Whether batches or the clock say when to save, not validations."""
        return self.every_nb_batches is not None or self.every_minutes is not None

    def on_fit_start(self, run: Run) -> None:
        if run.scratch is None and not self._continues:  # a run that was killed writes the same files again
            self._say_what_is_there(run)

    def _say_what_is_there(self, run: Run) -> None:
        """Files of an earlier run that this one may write over are named before it does."""
        folder = Path(self.filepath)
        there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        ours = [name for name in there if self.names.fullmatch(name) and str(folder / name) not in self.kept]
        names = [name for name in ours if self._may_be_replaced(name, run)]
        if names and (self.save_top_k != 0 or self.save_last):
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            run.notices.say(
                "writes-over",
                f"{folder} holds checkpoints of an earlier run, and those of the same names are replaced: {shown}; use"
                " another folder or prefix to keep them",
            )

    def _may_be_replaced(self, name: str, run: Run) -> bool:
        if name == self.last_name or self._template is not None:
            return True
        epoch = int(name.removeprefix(self.prefix).removesuffix(".ckpt").split("_")[3])
        return run.progress.epoch < epoch <= run.max_nb_epochs

    def on_validation_end(self, run: Run, metrics: dict[str, float | int]) -> None:
        if not self.is_timed and (self.monitor in metrics or self.monitor not in run.metrics.epoch_names):
            self._save_in_epoch(run, metrics.get(self.monitor))

    def on_epoch_end(self, run: Run) -> None:
        of_epoch = self.monitor in run.metrics.epoch_names and self.monitor not in run.metrics.validation
        if (run.nb_val_batches == 0 or of_epoch) and not self.is_timed:
            self._save_in_epoch(run, run.metrics.of_training().get(self.monitor))

    def look(self, run: Run) -> None:
        """State is whole, and no validation follows: save if it is time, by the clock of the first process."""
        step, now = run.progress.global_step, time.monotonic()
        if self.every_nb_batches is not None:
            is_time = step // self.every_nb_batches > self._last_step // self.every_nb_batches
        else:
            is_time = self.is_timed and from_first(run, now >= self._due) and step > self._last_step
        if is_time and run.progress.epoch_started:  # its end was named after that epoch already
            self._last_step, self._due = step, now + 60 * (self.every_minutes or 0.0)
            self._save(run, run.metrics.all().get(self.monitor))

    def next_look(self, run: Run, alone: bool) -> int:
        """The ``global_step`` at which to look next. By the clock: after half of the time that is left, or, where this
        process isn't alone, whenever all come together."""
        step, now = run.progress.global_step, time.monotonic()
        if self.every_nb_batches is not None:
            return (self._last_step // self.every_nb_batches + 1) * self.every_nb_batches
        if self.every_minutes is None or not alone:
            return NEVER
        if step == self._looked[1]:  # how long a step takes isn't known
            return step + 1
        per_step = (now - self._looked[0]) / (step - self._looked[1])
        self._looked = (now, step)
        return step + max(1, int((self._due - now) / 2 / max(per_step, 1e-6)))

    def begin(self, run: Run) -> None:
        """Training begins, or goes on."""
        self.check_names(run)
        self._looked = (time.monotonic(), run.progress.global_step)
        self._due = self._looked[0] + 60 * (self.every_minutes or 0.0)

    def check_names(self, run: Run) -> None:
        """Before the first batch: ``MisconfigurationException`` for a name of a validation's metric that it doesn't
        give."""
        names = run.metrics.validation_names
        for name in self.named_metrics if names else ():
            if name.startswith(("val_", "val/")) and name not in names:
                raise MisconfigurationException(
                    f"ModelCheckpoint: filename names the metric {name!r}, which doesn't exist. Available:"
                    f" {', '.join(sorted(names))}.{near(name, names)}"
                )

    def _save_in_epoch(self, run: Run, value: float | None) -> None:
        epoch, last = run.progress.epoch + 1, self._last_epoch or 0
        if epoch == last or epoch // self.period != last // self.period:
            self._save(run, value)

    def _name(self, run: Run) -> str:
        epoch = run.progress.epoch + 1
        if self._template is None:
            within = self.save_top_k not in (None, 1) and run.nb_epochs_completed < epoch
            place = f"{epoch}_batch_{run.progress.batch_nb}" if within or self.is_timed else str(epoch)
            return f"{self.prefix}_ckpt_epoch_{place}.ckpt"
        values = run.metrics.all()
        absent = [name for name in self.named_metrics if name not in values]
        if absent:
            run.notices.say(
                f"unnamed-{absent[0]}",
                f"there is no {' or '.join(absent)} yet at global_step {run.progress.global_step}, so the name of the"
                " checkpoint says nan",
            )
        counters = {"epoch": epoch, "global_step": run.progress.global_step}
        return str(self._template.of({**dict.fromkeys(absent, nan), **values, **counters}))

    def _save(self, run: Run, value: float | None) -> None:
        if self._is_guess and value is not None:
            say_guess(run, self.monitor)
        folder = Path(self.filepath) if run.scratch is None else run.scratch / "checkpoints"
        name, value = from_first(run, (self._name(run), value))  # what training gives may differ between processes
        path = str(folder / name)
        before = self.best, self.best_path, dict(self.kept), self._last_epoch
        self._last_epoch = run.progress.epoch + 1
        if self._is_kept(path, value):
            self._keep(run, path, value, before)
        if self.save_last:
            run.save(folder / self.last_name, weights_only=self.save_weights_only, on_refused=lambda: None)

    def _keep(self, run: Run, path: str, value: float | None, before: tuple[Any, ...]) -> None:
        self.kept.pop(path, None)
        self.kept[path] = value
        surplus = self._forget_surplus()
        self._note_best(path)

        def saved() -> None:
            self._written.add(path)
            for old in self._written & surplus:
                self.remove(old)
            self._written -= surplus
            if self.verbose:
                tell(f"saved {path}")

        def refused() -> None:
            self.best, self.best_path, self.kept, self._last_epoch = before

        run.save(path, on_saved=saved, weights_only=self.save_weights_only, on_refused=refused)

    def _note_best(self, path: str) -> None:
        """A file was added. Where another one was the best and is still there, only these two compete."""
        if self.best_path in self.kept and self.best_path != path and self.best != worst(self.mode):
            if path in self.kept and is_better(self._worth(path), self.best, self.mode):
                self.best, self.best_path = self._worth(path), path
            return
        self.best = self._worth(self._best_kept())
        self.best_path = path if self.best == worst(self.mode) else self._best_kept()

    def remove(self, path: str) -> None:
        """Delete a file that is no longer kept."""
        Path(path).unlink(missing_ok=True)

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
        if self.save_top_k is None:
            return set()
        ranked = sorted(self.kept, key=self._worth, reverse=self.mode == "max")
        surplus = set(ranked[self.save_top_k :])
        for path in surplus:
            del self.kept[path]
        return surplus

    @property
    def state_name(self) -> str:
        return f"{type(self).__name__} {self.monitor}"

    def needed_metric(self) -> str | None:
        return None if self.save_top_k is None else self.monitor

    @property
    def named_metrics(self) -> tuple[str, ...]:
        """The metrics in the names of its files."""
        return () if self._template is None else self._template.metrics

    def state_dict(self) -> dict[str, Any]:
        return {
            **({"last_step": self._last_step} if self.is_timed else {}),
            "best": self.best,
            "best_path": self.best_path,
            "kept": self._kept_to_save(),
            "last_epoch": self._last_epoch,
            "filepath": self.filepath,
        }

    def _kept_to_save(self) -> dict[str, float | None]:
        """What decides which files are deleted. Where none is, the best and a few, or files would grow with the run."""
        if self.save_top_k is not None:
            return dict(self.kept)
        names = {self.best_path, *islice(reversed(self.kept), NEWEST)}
        return {path: value for path, value in self.kept.items() if path in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what an earlier fit has kept, as names of files in this callback's folder: a checkpoint that names
        other files has none of them read or deleted. In another folder, nothing is kept yet."""
        epoch, values = state["last_epoch"], {Path(path).name: value for path, value in state["kept"].items()}
        self.best, self._last_epoch = float(state["best"]), None if epoch is None else int(epoch)
        self._last_step = int(state.get("last_step", 0))
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
