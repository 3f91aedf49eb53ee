"""metrics.csv: rows appended at a flat cost, in the layout that pandas reads."""

import csv
import itertools
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.faults import fault


def cell(value: Any) -> str:
    """A value as text: '' for None and NaN, the shortest exact form of a float.

    >>> cell(0.1), cell(3), cell(None), cell(float("nan"))
    ('0.1', '3', '', '')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return repr(float(value)) if isinstance(value, float) else str(value)  # numpy's floats have another repr


def lines(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """``rows`` as the lines of a csv file, cells in the order of ``columns``."""
    written = _Written()
    # the csv module quotes a carriage return only where it is in the terminator
    csv.writer(written, lineterminator="\r\n").writerows([cell(row.get(column)) for column in columns] for row in rows)
    return "".join(f"{line[:-2]}\n" for line in written)


class _Written(list[str]):
    write = list.append


def whole_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a csv file, without a last one that was cut off while it was written."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return rows[:-1] if is_torn(path) else rows


def whole_columns(path: Path) -> dict[str, Sequence[str]]:
    """The same by column, '' where a row is too short."""
    with open(path, newline="") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        rows = [row for row in reader if row]
    del rows[len(rows) - is_torn(path) :]
    columns = itertools.zip_longest(*rows, fillvalue="")
    return {name: next(columns, ()) for name in header}


def is_torn(path: Path) -> bool:
    """Whether the last line of a file has no end."""
    with open(path, "rb") as file:
        file.seek(-min(1, file.seek(0, os.SEEK_END)), os.SEEK_END)
        return file.read() not in (b"", b"\n")


def read_columns(path: Path) -> list[str]:
    """The columns of a csv file; an empty list if it doesn't exist."""
    try:
        with open(path, newline="") as file:
            return next(csv.reader(file), [])
    except FileNotFoundError:
        return []


def replace_file(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` by a rename, so that a reader sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.tmp")  # one name: what a killed process left is replaced by the next
    temporary.write_text(text)
    fault("rows.rewritten")
    os.replace(temporary, path)


def mark(found: os.stat_result) -> tuple[int, int, int]:
    """A value that changes when a file is written or replaced."""
    return found.st_ino, found.st_size, found.st_mtime_ns


def append_text(path: Path, text: str) -> tuple[int, int, int]:
    """Write ``text`` at the end of ``path``: all of it or, where that fails, nothing, so that it can be tried again.
    Returns the ``mark`` of what was written."""
    size = path.stat().st_size
    try:
        with open(path, "a", newline="") as file:
            file.write(text)
            file.flush()
            return mark(os.fstat(file.fileno()))
    except OSError:
        os.truncate(path, size)
        raise


class MetricsFile:
    """A csv file that grows by rows, and by columns when a row brings a new one.

    Appending costs the same at row 50,000 as at row 100. A new column means that the file is written anew.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: list[str] = read_columns(path)
        self.nb_rows = len(whole_rows(path)) if self.columns else 0
        self._left: tuple[int, int, int] | None = None

    def cut(self, nb_rows: int) -> None:
        """Keep the first ``nb_rows`` rows."""
        if nb_rows < self.nb_rows or (self.columns and is_torn(self.path)):
            header = lines([dict(zip(self.columns, self.columns, strict=True))], self.columns)
            rows = whole_rows(self.path)[:nb_rows]
            replace_file(self.path, header + lines(rows, self.columns))
            self.nb_rows = len(rows)

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write ``rows`` at the file's end."""
        if not rows:
            return
        if not self._is_as_left():  # another process may have written it
            self.columns = read_columns(self.path)
        new = [key for key in dict.fromkeys(key for row in rows for key in row) if key not in self.columns]
        if new or (self._left is None and is_torn(self.path)):
            columns = self.columns + new
            replace_file(
                self.path, lines([dict(zip(columns, columns, strict=True))], columns) + self._old_rows(columns)
            )
            self.columns = columns
        fault("rows.columns")
        self._left = append_text(self.path, lines(rows, self.columns))
        fault("rows.written")
        self.nb_rows += len(rows)

    def _is_as_left(self) -> bool:
        return self._left is not None and self.path.exists() and mark(os.stat(self.path)) == self._left

    def _old_rows(self, columns: Sequence[str]) -> str:
        if not self.columns or not self.path.exists():
            return ""
        return lines(whole_rows(self.path), columns)


def write_tags(path: Path, tags: Mapping[str, Any]) -> None:
    """Write meta_tags.csv: a row (key, value) for each tag."""
    rows = [{"key": key, "value": str(value)} for key, value in tags.items()]
    replace_file(path, "key,value\n" + lines(rows, ["key", "value"]))
