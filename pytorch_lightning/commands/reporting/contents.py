"""What a report says of a run, read from the run's folder."""

import datetime
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from pytorch_lightning.errors import MisconfigurationException
from pytorch_lightning.root_module.tags import SECRET
from pytorch_lightning.run import record
from pytorch_lightning.run.listing import FILES, Columns, columns_in, folders_in, is_number, is_run, row_of

MEDIA = re.compile(r"(?P<name>.+)_(?P<step>\d+)(?P<suffix>\.[^./]*)?")
MOST_BYTES_OF_OPTIONS = 2**22
HIDDEN = "(hidden)"


@dataclass(frozen=True)
class Run:
    """A run, as its files tell."""

    name: str
    folder: Path
    columns: Columns
    row: Mapping[str, Any]
    """What ``pytorch_lightning.runs`` says of it."""
    record: Mapping[str, Any]
    options: Mapping[str, str]
    """The lines of options.yaml, by name, that aren't hparams."""

    @property
    def starts(self) -> list[dict[str, Any]]:
        return record.starts_of(self.record)

    @property
    def hparams(self) -> dict[str, Any]:
        own = {key[8:]: value for key, value in self.row.items() if key.startswith("hparams.")}
        return {name: HIDDEN if SECRET.search(name.lower()) else value for name, value in own.items()}

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by phase of all starts; '' is what no start recorded, as one that was killed."""
        found: dict[str, float] = {}
        for start in self.starts:
            times = start.get("seconds")
            for phase, value in times.items() if isinstance(times, dict) else ():
                if is_number(value):
                    found[phase] = found.get(phase, 0.0) + max(0.0, value)
        rest = (self.row["seconds"] or 0.0) - sum(found.values())
        return {**found, "": rest} if rest > 0.01 * sum(found.values()) + 0.5 else found

    @property
    def versions(self) -> dict[str, str]:
        """What it ran with; where a later start had another version, both."""
        found: dict[str, dict[str, None]] = {}
        for start in self.starts:
            given = start.get("versions")
            for name, value in given.items() if isinstance(given, dict) else ():
                found.setdefault(str(name), {})[str(value or "none")] = None
        return {name: ", then ".join(values) for name, values in found.items()}


@dataclass(frozen=True)
class Logged:
    """A file in the ``media`` folder of a run."""

    name: str
    step: int
    path: Path


def read_runs(folders: Sequence[str | os.PathLike[str]]) -> list[Run]:
    """The runs in ``folders``. Raises ``MisconfigurationException`` for a folder that isn't a run's, and where no run
    has a row."""
    if not folders:
        raise MisconfigurationException("a report needs the folder of a run. Received none.")
    for folder in folders:
        _check(Path(folder))
    paths = list(dict.fromkeys(Path(os.path.abspath(folder)) for folder in folders))
    parent = os.path.commonpath(paths) if len(paths) > 1 else paths[0].parent.parent
    runs = [_read(path, os.path.relpath(path, parent)) for path in paths]
    if not any(run.columns for run in runs):
        raise MisconfigurationException(
            f"no row of numbers in {', '.join(map(str, paths[:3]))}: there is no metrics.csv, or an empty one."
            " A CSVLogger or an Experiment writes it, and so does a run without a logger."
        )
    return runs


def _check(path: Path) -> None:
    if not path.is_dir():
        raise MisconfigurationException(f"there is no folder {str(path)!r}. Pass those of runs, such as .../version_0.")
    if not is_run(path):
        below = [str(folder) for folder in sorted(folders_in(path))[:3]]
        hint = f" Below it there are: {', '.join(below)}." if below else ""
        raise MisconfigurationException(
            f"{str(path)!r} isn't the folder of a run: it has none of {', '.join(sorted(FILES))}.{hint}"
        )


def _read(folder: Path, name: str) -> Run:
    columns = columns_in(folder)
    row = row_of(folder, columns)
    options: dict[str, str] = {}
    path = folder / "options.yaml"
    if path.is_file() and path.stat().st_size < MOST_BYTES_OF_OPTIONS:
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.removeprefix("# ").partition(": ")
            if key and f"hparams.{key}" not in row:
                options[key] = HIDDEN if SECRET.search(key.lower()) else value
    return Run(name, folder, columns, row, record.read(folder), options)


def date_of(seconds: Any) -> str:
    """A time as a text, in UTC; empty where there is none."""
    try:
        return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%d %H:%M} UTC"
    except (TypeError, ValueError, OverflowError, OSError):
        return ""


def marks_of(run: Run) -> Iterator[tuple[str, float, str]]:
    """What happened to a run: ``("resumed" or "failed", at which step, in words)``."""
    ends = [str(start.get("state") or "killed") for start in run.starts]
    for number, (start, end) in enumerate(zip(run.starts, ends, strict=True), 1):
        since, at, why = start.get("from_step"), start.get("global_step"), start.get("error") or start.get("reason")
        if number > 1 and is_number(since):
            how = f"resumed at {since}" if since else "began anew"
            text = f"{how}, {date_of(start.get('began'))}: start {number}. The one before: {ends[number - 2]}"
            yield "resumed", float(since), text
        if end in ("failed", "interrupted") and is_number(at):
            yield "failed", float(at), f"{end} at {at}, {date_of(start.get('ended'))}: {why or ''}"
    steps = run.columns.get("global_step")
    if run.row["state"] == "interrupted" and ends[-1:] == ["killed"] and steps is not None:
        last = steps[numpy.isfinite(steps)].max(initial=0.0)
        yield "failed", float(last), f"killed; its last row is at {last:g}"


def media_of(run: Run) -> list[Logged]:
    """What was logged to the folder of a run, by name, the newest first."""
    root, found = run.folder / "media", []
    for place, _, files in os.walk(root):
        for file in files:
            path, match = Path(place, file), MEDIA.fullmatch(file)
            if match and not file.startswith(".") and path.is_file() and not path.is_symlink():
                name = (path.parent.relative_to(root) / match["name"]).as_posix()
                found.append(Logged(name, int(match["step"]), path))
    return sorted(found, key=lambda logged: (logged.name, -logged.step))
