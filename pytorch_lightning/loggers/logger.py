"""The interface of loggers, and a group of loggers whose failures never stop training."""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.errors import Notices, describe

Noted = tuple[float, int, list[int]]
"""A moment: its time, how many rows there were, and in each logger to which user code may add some."""

MEDIA = {"log_figure": "image", "log_image": "image", "log_text": "text", "log_file": "file"}
"""What else ``self.experiment`` can log, and what becomes of it."""


class Logger(ABC):
    """Logs the hyperparameters once, and rows of numbers.

    An exception in a logger never stops training: it is reported once, and the row is logged again later.

    >>> class InMemory(Logger):
    ...     folder = version = None
    ...     def __init__(self):
    ...         self.rows = []
    ...     def log_hyperparams(self, hparams):
    ...         self.hparams = hparams
    ...     def log_metrics(self, metrics, step):
    ...         self.rows.append((step, metrics))
    ...     def save(self): ...
    ...     def close(self): ...
    >>> from pytorch_lightning import Trainer
    >>> trainer = Trainer(experiment=InMemory())
    """

    @property
    @abstractmethod
    def folder(self) -> Path | None:
        """The folder of the run; None if nothing is written to disk."""

    @property
    @abstractmethod
    def version(self) -> int | str | None:
        """The version of the run, among the runs of the same name."""

    @abstractmethod
    def log_hyperparams(self, hparams: dict[str, Any]) -> None:
        """Log the hyperparameters of the run: plain data by name."""

    @abstractmethod
    def log_metrics(self, metrics: dict[str, float | int], step: int) -> None:
        """Log one row. ``step`` is the trainer's ``global_step``."""

    @abstractmethod
    def save(self) -> None:
        """Flush to disk what isn't there yet."""

    @abstractmethod
    def close(self) -> None:
        """Save, and release resources. Rows may still be logged afterwards."""

    def log_file(self, kind: str, name: str, path: Path, step: int) -> bool:
        """Show the file ``path`` of the run's folder: an "image" (PNG), a "text" or another "file". Returns whether it
        can. Does nothing by default."""
        return False

    def resume(self, version: int, step: int) -> None:
        """Resume run ``version`` of the same name, which had trained ``step`` batches, instead of starting a new one.
        Does nothing by default."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint stores, plain data: the number of rows as ``rows``, or the id of a run elsewhere."""
        return {}

    def count_rows(self) -> int:
        """How many rows there are. Override it where user code may add rows by itself, past the trainer."""
        return 0

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``, before ``log_hyperparams`` is called. Remove the rows that were logged after the
        checkpoint: they will be logged again."""


class LoggerGroup:
    """All loggers of a run. If one fails, a notice reports it once, and its rows are kept and retried."""

    def __init__(self, loggers: Sequence[Logger], notices: Notices) -> None:
        self.loggers = list(loggers)
        self._notices = notices
        self.nb_rows = 0
        """Rows in this fit."""
        self._counting = [i for i, logger in enumerate(loggers) if type(logger).count_rows is not Logger.count_rows]
        self._kept: Noted | None = None
        self._waiting: list[list[tuple[dict[str, Any], int]]] = [[] for _ in self.loggers]

    @property
    def folders(self) -> list[Path]:
        """Where the loggers write."""
        return list({logger.folder: None for logger in self.loggers if logger.folder is not None})

    def log_hyperparams(self, hparams: dict[str, Any]) -> None:
        """Pass ``hparams`` on."""
        for logger in self.loggers:
            self._try(logger, logger.log_hyperparams, hparams)

    def log_metrics(self, metrics: dict[str, float | int], step: int) -> None:
        """Pass a row on, after those that a logger didn't take before."""
        self.nb_rows += 1
        for logger, waiting in zip(self.loggers, self._waiting, strict=True):
            waiting.append((metrics, step))
            while waiting and self._try(logger, logger.log_metrics, *waiting[0]):
                waiting.pop(0)

    def log_media(self, method: str, progress: Any, name: str, value: Any) -> None:
        """Write what ``self.experiment``'s ``method`` was given to the run's folder, and pass that on."""
        if not self.folders:
            if self.loggers:
                text = f"{method}({name!r}) writes nothing: no logger of this run has a folder"
                self._notices.say(f"not-logged-{name}", text)
            return
        from pytorch_lightning.loggers.media import write

        path, step = write(self.folders[0], method, name, value, progress.global_step), progress.global_step
        for logger in self.loggers:
            self._try(logger, logger.log_file, MEDIA[method], name, path, step)

    def save(self) -> None:
        """Bring every logger's rows to the disk."""
        for logger, waiting in zip(self.loggers, self._waiting, strict=True):
            while waiting and self._try(logger, logger.log_metrics, *waiting[0]):
                waiting.pop(0)
            self._try(logger, logger.save)

    def close(self) -> None:
        """Save and close every logger."""
        self.save()
        for logger in self.loggers:
            self._try(logger, logger.close)

    def note_rows(self) -> Noted:
        """The time, how many rows there are, and in each logger to which user code may have added some."""
        return time.time(), self.nb_rows, [self.loggers[i].count_rows() for i in self._counting]

    def keep_rows(self, noted: Noted) -> None:
        """Checkpoints from now on leave out what was logged since ``note_rows``."""
        self._kept = noted

    def _nb_to_forget(self, i: int) -> int:
        """How many of the last rows of a logger a checkpoint is to leave out."""
        if self._kept is None:
            return 0
        _, nb_rows, counted = self._kept
        if i in self._counting:
            return self.loggers[i].count_rows() - counted[self._counting.index(i)]
        return self.nb_rows - nb_rows

    def state_dict(self) -> dict[str, Any]:
        """How far each logger is, once it has written what it has."""
        self.save()
        states: dict[str, Any] = {}
        for i, logger in enumerate(self.loggers):
            self._try(logger, lambda name, own: states.update({name: _state_of(own)}), _name(logger, i), logger)
        for i, logger in enumerate(self.loggers):
            state, nb_to_forget = states.get(_name(logger, i), {}), self._nb_to_forget(i)
            if "rows" in state:
                state["rows"] -= nb_to_forget
            if "events" in state and self._kept is not None:
                state["since"] = self._kept[0]
        # the saves lie in the folder of the first
        versions = {_name(logger, i): logger.version for i, logger in enumerate(self.loggers) if logger.folder}
        own = {name: version for name, version in versions.items() if version != next(iter(versions.values()))}
        return {**states, "versions": own} if own else states

    def resume(self, version: int, step: int, state: dict[str, Any]) -> None:
        """Have each logger resume ``version``, or the other one that it had at the save with this ``state``."""
        for i, logger in enumerate(self.loggers):
            logger.resume(state.get("versions", {}).get(_name(logger, i), version), step)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Cut each logger back to where it was, and report what isn't there any more."""
        for i, logger in enumerate(self.loggers):
            saved = state.get(_name(logger, i))
            if saved and self._try(logger, logger.load_state_dict, saved):
                self._try(logger, self._compare, logger, saved)

    def _compare(self, logger: Logger, saved: dict[str, Any]) -> None:
        found = logger.state_dict()
        sizes = found.get("events", {})
        lost = [f"a part of {name}" for name, size in saved.get("events", {}).items() if sizes.get(name, -1) < size]
        if isinstance(saved.get("rows"), int) and found["rows"] < saved["rows"]:
            lost.insert(0, f"{saved['rows'] - found['rows']} of its {saved['rows']} rows")
        if lost:
            self._notices.say(
                f"log-incomplete-{type(logger).__name__}",
                f"the log in {logger.folder} isn't as it was at the save that is resumed: it lacks"
                f" {', '.join(lost)}. What was lost stays lost; training and logging continue after the save.",
            )

    def _try(self, logger: Logger, call: Any, *arguments: Any) -> bool:
        try:
            call(*arguments)
        except Exception as error:  # whatever a logger does, training continues
            self._notices.say_again(
                f"logger-failed-{type(logger).__name__}",
                f"{type(logger).__name__} failed; training continues, and its rows are kept and retried:"
                f" {type(error).__name__}: {error}",
            )
            return False
        return True


def _state_of(logger: Logger) -> dict[str, Any]:
    state: Any = logger.state_dict()
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise TypeError(f"its state_dict() returned {describe(state)}; expected a dict of values by name, or {{}}")
    return state


def _name(logger: Logger, i: int) -> str:
    return f"{type(logger).__name__}_{i}"
