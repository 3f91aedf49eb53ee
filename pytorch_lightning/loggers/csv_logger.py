"""Rows logged to a folder of their own, without test-tube."""

import datetime
import os
import shutil
import time
from abc import abstractmethod
from pathlib import Path
from typing import Any

from pytorch_lightning.lightning2 import refuse_arguments
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.loggers.metrics_file import MetricsFile, write_tags


class FolderLogger(Logger):
    """The base of loggers that write to a folder, ``{save_dir}/{name}/version_{n}``, which is made at once."""

    def __init__(
        self, save_dir: str | Path = "", name: str = "default", version: int | str | None = None, **others: Any
    ) -> None:
        kind = type(self).__name__
        refuse_arguments(kind, "logger_arguments", others, ("save_dir", "name", "version"))
        if not str(save_dir):
            raise TypeError(f"{kind} needs save_dir, the folder: {kind}('logs')")
        self.save_dir, self.name = Path(save_dir), name
        self._version: int | str = make_folder(self.save_dir / name) if version is None else version
        self._folder = self.save_dir / name / f"version_{self._version}"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._begin()

    @abstractmethod
    def _begin(self) -> None: ...

    @property
    def folder(self) -> Path | None:
        return self._folder

    @property
    def version(self) -> int | str | None:
        return self._version

    def resume(self, version: int, step: int) -> None:
        if version != self._version:
            remove_unused(self._folder)
        FolderLogger.__init__(self, self.save_dir, self.name, version)

    def log_hyperparams(self, hparams: dict[str, Any]) -> None:
        write_tags(self._folder / "meta_tags.csv", hparams)


class CSVLogger(FolderLogger):
    """Writes ``{save_dir}/{name}/version_{n}/metrics.csv`` and ``meta_tags.csv`` in test-tube's layout.

    ``version=None`` takes the next free number. The folder is made at once; an ``OSError`` says that it can't be.
    Raises ``TypeError`` without a ``save_dir``.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     logger = CSVLogger(folder, name="digits")  # pass it as Trainer(experiment=logger)
    ...     logger.log_metrics({"tng_loss": 0.5}, step=0)
    ...     logger.close()
    ...     print((logger.folder / "metrics.csv").read_text()[:19])
    tng_loss,created_at
    """

    def _begin(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._file = MetricsFile(self._folder / "metrics.csv")

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self._file.nb_rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._file.cut(state["rows"])

    def log_metrics(self, metrics: dict[str, float | int], step: int) -> None:
        self._rows.append({**metrics, "created_at": time.time()})

    def save(self) -> None:
        # as text only here: a step that logs waits for less
        self._file.append([{**row, "created_at": _date(row["created_at"])} for row in self._rows])
        self._rows = []

    def close(self) -> None:
        self.save()


def _date(seconds: float) -> str:
    return str(datetime.datetime.fromtimestamp(seconds, datetime.UTC).replace(tzinfo=None))


def remove_unused(folder: Path) -> None:
    """Remove the folder of a run that was only just made: one without a file."""
    if folder.is_dir() and not any(path.is_file() for path in folder.rglob("*")):
        shutil.rmtree(folder)


def make_folder(parent: Path) -> int:
    """Make the next free ``version_{n}`` in ``parent`` and return n. Two processes never get the same."""
    parent.mkdir(parents=True, exist_ok=True)
    numbers = [int(p.name[8:]) for p in parent.glob("version_*") if p.name[8:].isdigit()]
    number = max(numbers, default=-1) + 1
    while True:
        try:
            os.mkdir(parent / f"version_{number}")
        except FileExistsError:
            number += 1
        else:
            return number
