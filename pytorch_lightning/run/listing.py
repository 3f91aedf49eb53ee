"""The runs in a folder, each with its hparams, metrics and state: ``pytorch_lightning.runs('lightning_logs')``."""

import contextlib
import csv
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy

from pytorch_lightning.errors import CheckpointError, MisconfigurationException, near
from pytorch_lightning.run import record

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytorch_lightning.checkpoints.run_store import Position

FILES = {record.NAME, "meta_tags.csv", "metrics.csv"}
"""A folder with one of these is a run's, and so is a ``version_n`` with ``checkpoints``."""
PLACES = ("epoch", "batch_nb", "global_step", "created_at")
"""Columns of a row that aren't metrics."""
Columns = dict[str, "NDArray[numpy.float64]"]


def runs(folder: str | os.PathLike[str] = "lightning_logs", best: str | None = None, differ: bool = False) -> Any:
    """The runs below ``folder``, one a row: a ``pandas.DataFrame`` where pandas is installed, otherwise a list of
    dicts. ``best`` sorts by the best value of that metric, ``differ`` leaves out hparams that are the same in all.

    Raises ``MisconfigurationException`` for a folder or a metric that there isn't.

    >>> import tempfile
    >>> from pytorch_lightning.loggers import CSVLogger
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for loss in (0.5, 0.25):
    ...         logger = CSVLogger(folder, name="digits")
    ...         logger.log_metrics({"val_loss": loss}, step=9)
    ...         logger.close()
    ...     table = runs(folder, best="val_loss")
    ...     print(len(table))
    2
    """
    rows = rows_of(folder, best, differ)
    try:
        import pandas
    except ModuleNotFoundError:
        return rows
    return pandas.DataFrame(rows)


def rows_of(folder: str | os.PathLike[str], best: str | None = None, differ: bool = False) -> list[dict[str, Any]]:
    """The rows of ``runs``. Raises ``MisconfigurationException`` for a folder or a metric that there isn't."""
    if not os.path.isdir(folder):
        raise MisconfigurationException(f"there is no folder {os.fspath(folder)!r}. Pass the one that holds the runs.")
    rows = [row_of(path) for path in sorted(folders_in(folder), key=_by_number)]
    if best is not None:
        names = {key[5:] for row in rows for key in row if key.startswith("best.")}
        if best not in names:
            raise MisconfigurationException(f"no run in {folder} has the metric {best!r}.{near(best, names)}")
        from pytorch_lightning.callbacks.monitor import direction

        sign = -1 if direction(best, "auto") == "max" else 1
        rows.sort(key=lambda row: sign * row.get(f"best.{best}", sign * math.inf))
    if differ:
        keys = {key for row in rows for key in row if key.startswith("hparams.")}
        same = {key for key in keys if len({repr(row.get(key, FILES)) for row in rows}) == 1}
        rows = [{key: value for key, value in row.items() if key not in same} for row in rows]
    return rows


def _by_number(path: Path) -> list[tuple[str, int, str]]:
    """Version 10 comes after version 9."""
    parts = [part.rpartition("_") for part in path.parts]
    return [(head, int(n) if n.isascii() and n.isdigit() else -1, n) for head, _, n in parts]


def folders_in(folder: str | os.PathLike[str]) -> list[Path]:
    """The folders of runs below ``folder``."""
    found = []
    for place, inner, _ in os.walk(folder):
        inner[:] = [name for name in inner if not name.startswith(".")]  # a fork that is being made, say
        if is_run(Path(place)):
            found.append(Path(place))
            inner.clear()
    return found


def is_run(folder: Path) -> bool:
    """Whether it is the folder of a run."""
    has_saves = folder.name.startswith("version_") and (folder / "checkpoints").is_dir()
    return has_saves or any((folder / name).is_file() for name in FILES)


def row_of(folder: Path, columns: Columns | None = None) -> dict[str, Any]:
    """What is known of the run in ``folder``; ``columns`` are its metrics, if they were read already."""
    about = record.read(folder)
    starts, fork = record.starts_of(about), record.fork_line(folder, about)
    last: Mapping[str, Any] = starts[-1] if starts else {}
    has_saves, position = _look_into_saves(folder, last)
    state = _state(last, position)
    finished = position is not None and position.finished
    metrics, step = _metrics(columns_in(folder) if columns is None else columns)
    ended = [_end(start, folder, state, start is last) for start in starts]
    times = [
        max(0.0, end - start["began"])
        for start, end in zip(starts, ended, strict=True)
        if is_number(start.get("began"))
    ]
    known: list[Any] = [step, None if position is None else position.step, last.get("from_step")]
    epoch = None if position is None else position.epoch
    return {
        "folder": str(folder),
        "state": state,
        "resumable": has_saves and not finished and state not in ("running", "complete", "elsewhere"),
        "error": last.get("error"),
        "seconds": sum(times) if times else None,
        "starts": len(starts) or None,
        "epoch": last.get("epoch", epoch),
        "global_step": last.get("global_step", max((n for n in known if is_number(n)), default=None)),
        **({} if fork is None else {"fork": fork}),
        **_hparams(folder),
        **metrics,
    }


def _look_into_saves(folder: Path, last: Mapping[str, Any]) -> "tuple[bool, Position | None]":
    """Whether there are saves, and the position of the newest one; not where ``last``, the last start, says all. To
    read a save imports torch, which takes seconds."""
    is_known = last.get("state") == "complete" and {"epoch", "global_step"} <= last.keys()
    if is_known or not (folder / "checkpoints").is_dir():
        return False, None
    from pytorch_lightning.checkpoints.run_store import look_into

    return look_into(f"{folder}/checkpoints")


def is_number(value: Any) -> TypeGuard[float]:
    """Whether it is a finite number, and one that a float can hold."""
    return isinstance(value, (int, float)) and abs(value) < 1e300


def _state(last: Mapping[str, Any], position: "Position | None") -> str:
    """'running', 'complete', 'interrupted' (a kill too) or 'failed'; 'elsewhere' where a process of another machine
    began it and wrote no end, 'unknown' where a version before run.json wrote it and it wasn't complete."""
    if not last:
        return "complete" if position is not None and position.finished else "unknown"
    alive = record.is_running(last)
    return str(last.get("state") or {True: "running", None: "elsewhere", False: "interrupted"}[alive])


def _end(start: Mapping[str, Any], folder: Path, state: str, is_last: bool) -> float:
    """When a start ended; for one that was killed, when it last wrote, or saved if it was resumed since."""
    known = start.get("ended", start.get("saved"))
    if is_number(known):
        return float(known)
    if not is_last:
        return float(start["began"]) if is_number(start.get("began")) else 0.0
    if state == "running":
        return time.time()
    paths = [folder / record.NAME, folder / "metrics.csv", *folder.glob("checkpoints/*")]
    return max((path.stat().st_mtime for path in paths if path.exists()), default=time.time())


def _hparams(folder: Path) -> dict[str, Any]:
    from pytorch_lightning.root_module.tags import read_tags

    try:
        return {f"hparams.{name}": value for name, value in vars(read_tags(folder / "meta_tags.csv")).items()}
    except CheckpointError:  # another's file, or none
        return {}


def columns_in(folder: Path) -> Columns:
    """The numbers of the run's rows by column, NaN where there is none; empty without a metrics.csv."""
    from pytorch_lightning.loggers.metrics_file import whole_columns

    columns: dict[str, Sequence[str]] = {}
    with contextlib.suppress(OSError, ValueError, csv.Error):
        columns = whole_columns(folder / "metrics.csv") if (folder / "metrics.csv").is_file() else {}
    found = {name: _numbers(texts) for name, texts in columns.items() if texts}
    return {name: values for name, values in found.items() if not numpy.isnan(values).all()}


def _numbers(texts: Sequence[str]) -> "NDArray[numpy.float64]":
    try:
        return numpy.array([float(text) if text else math.nan for text in texts])
    except ValueError:  # there are words among them
        return numpy.array([_number(text) for text in texts])


def _number(text: str) -> float:
    try:
        return float(text) if text else math.nan
    except ValueError:
        return math.nan


def _metrics(columns: Columns) -> tuple[dict[str, float], int | None]:
    """The last and best value of each metric in the run's rows, and the batches that they tell of."""
    from pytorch_lightning.callbacks.monitor import direction

    last, best, step = dict[str, float](), dict[str, float](), None
    for name, values in columns.items():
        finite = values[numpy.isfinite(values)]
        if name == "global_step" and len(finite):
            step = int(finite[-1])
        if name not in PLACES and len(finite):
            last[f"last.{name}"] = float(finite[-1])
            value = finite.max() if direction(name, "auto") == "max" else finite.min()
            best |= {} if name.startswith("lr_") else {f"best.{name}": float(value)}
    return {**last, **best}, step
