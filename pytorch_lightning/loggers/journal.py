"""What a tracker is sent, kept in a file of the run's folder until it has arrived, and how far that is."""

import contextlib
import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pytorch_lightning.faults import fault
from pytorch_lightning.loggers.metrics_file import append_text, replace_file

MOST_IN_MEMORY = 10_000
"""Rows that may wait for a tracker that is down without being read again from the file."""


class TrackedRow(NamedTuple):
    """A row on its way to a tracker.

    >>> row = TrackedRow(number=3, step=30, seconds=1.7e9, metrics={"tng_loss": 0.5})
    >>> row.step, row.metrics
    (30, {'tng_loss': 0.5})
    """

    number: int
    """Its place in the run, counted from 0: two rows of one ``step`` have two numbers."""
    step: int
    seconds: float
    """When it was logged first, since 1970. Whole milliseconds, no two rows the same."""
    metrics: dict[str, float | int]
    file: dict[str, str] | None = None
    """For an image, a text or a file: its ``kind``, ``name`` and ``path``."""


class Journal:
    """Rows as lines of JSON. A row that the tracker may have stays: logged again after a resume, it is the same row.

    ``key`` names the run at the tracker. ``nb_sent`` rows have arrived; of those up to ``nb_tried`` it isn't known.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.path, self._about = folder / f"{kind}_rows.jsonl", folder / f"{kind}_run.json"
        try:
            about = json.loads(self._about.read_text())
        except (FileNotFoundError, ValueError):
            about = {}
        self.key: str = about.get("key") or secrets.token_hex(4)
        self.nb_sent, self.nb_tried = int(about.get("sent", 0)), int(about.get("tried", 0))
        self.hparams: dict[str, Any] = about.get("hparams", {})
        """The hyperparameters of the run, as JSON has them."""
        texts = self.path.read_text().split("\n") if self.path.exists() else [""]
        self.nb = len(texts) - 1
        """Rows in the file; what follows its last newline was cut off."""
        self._seconds = json.loads(texts[-2])["seconds"] if self.nb else 0.0
        self._is_torn = bool(texts[-1])
        self.nb_different = 0
        """Rows that were logged again with other numbers."""
        self._again: dict[str, list[TrackedRow]] = {}
        self._tail: list[TrackedRow] | None = None
        if not about:
            self.note()

    def note(self) -> None:
        """Write down how far the tracker is."""
        about = {"key": self.key, "sent": self.nb_sent, "tried": self.nb_tried, "hparams": self.hparams}
        replace_file(self._about, json.dumps(about, default=str))

    @property
    def nb_logged(self) -> int:
        """Rows in the file that won't be logged again."""
        return self.nb - sum(map(len, self._again.values()))

    def state_dict(self) -> dict[str, Any]:
        """How many rows were logged, and which of those in the file will be logged again."""
        again = sorted(row.number for rows in self._again.values() for row in rows)
        return {"rows": self.nb_logged, "again": again, "end": self.nb, "key": self.key}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Rows that were logged after ``state`` will be logged again. Those that the tracker may have stay, the others
        are removed."""
        rows, waiting = self.read(0), set(state.get("again", ()))
        end = min(state.get("end", state["rows"]), self.nb)
        logged = [i for i in range(end) if i not in waiting][: state["rows"]]
        again, keep = set(range(self.nb)) - set(logged), self.nb
        while keep > self.nb_tried and keep - 1 in again:
            keep -= 1
        if keep < self.nb or self._is_torn:
            replace_file(self.path, "".join(map(_line, rows[:keep])))
            self._is_torn = False
        self.nb, self._tail, self._again = keep, None, {}
        for i in sorted(again):
            if i < keep:
                self._again.setdefault(_place(rows[i]), []).append(rows[i])

    def read(self, first: int) -> list[TrackedRow]:
        """The rows in the file from number ``first`` on."""
        if self._tail and self._tail[0].number <= first:
            return self._tail[first - self._tail[0].number :]
        if first >= self.nb or not self.path.exists():
            return []
        texts = self.path.read_text().split("\n")[first : self.nb]
        return [TrackedRow(first + i, **json.loads(text)) for i, text in enumerate(texts)]

    def append(self, rows: Sequence[TrackedRow]) -> None:
        """Log ``rows``, whose numbers are given here."""
        made, seconds, known = list[TrackedRow](), self._seconds, list[tuple[TrackedRow, TrackedRow]]()
        waiting = {place: list(old) for place, old in self._again.items()}
        for row in rows:
            old = waiting.get(_place(row))
            if old:
                known.append((old.pop(0), row))
                continue
            seconds = max(round(row.seconds, 3), round(seconds + 0.001, 3))
            made.append(row._replace(number=self.nb + len(made), seconds=seconds))
        if made:
            if self._is_torn:
                replace_file(self.path, "".join(map(_line, self.read(0))))
                self._is_torn = False
            self.path.touch()
            fault("rows.columns")
            append_text(self.path, "".join(map(_line, made)))
            fault("rows.written")
            is_next = not self._tail or self._tail[-1].number + 1 == made[0].number
            self._tail = [*(self._tail or []), *made] if is_next and len(self._tail or []) < MOST_IN_MEMORY else None
        self.nb_different += sum(_numbers(old) != _numbers(row) for old, row in known)
        self._again = {place: old for place, old in waiting.items() if old}
        self._seconds, self.nb = seconds, self.nb + len(made)

    def forget(self) -> None:
        """Keep in memory what wasn't sent alone."""
        if self._tail:
            self._tail = [row for row in self._tail if row.number >= self.nb_sent]


def _line(row: TrackedRow) -> str:
    values = row._asdict()
    del values["number"]
    if row.file is None:
        del values["file"]
    return f"{json.dumps(values)}\n"


def _place(row: TrackedRow) -> str:
    """What tells a row from the others: its step, and what was logged."""
    return json.dumps([row.step, sorted(row.metrics), row.file])


def _numbers(row: TrackedRow) -> str:
    """What must be the same in a row that is logged again."""
    return json.dumps({name: value for name, value in row.metrics.items() if not name.startswith("gpu_")})


def code_version() -> str | None:
    """The git commit of the program, or of the folder that it runs in; None without one."""
    import subprocess
    import sys

    program = getattr(sys.modules.get("__main__"), "__file__", None)
    command = ["git", "-C", str(Path(program).absolute().parent if program else Path.cwd()), "rev-parse", "HEAD"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip() or None
    return None
