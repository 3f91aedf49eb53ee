"""The progress bar in a notebook: a table of epochs, which stays in the notebook when it is saved."""

import html
import time
from collections.abc import Sequence
from typing import Any

from pytorch_lightning.callbacks.bar_text import Shown, interval, line, short

MOST_ROWS = 100
"""Epochs in the table: the last ones."""


class NotebookTable:
    """A row for each epoch, and below it what is going on."""

    draw_seconds = 0.5

    def __init__(self) -> None:
        self._rows: list[dict[str, str]] = []
        self._handle: Any = None
        self._status = ""
        self._drawn = 0.0

    def show(self, shown: Shown) -> None:
        """Draw this in place of what was drawn before."""
        self._status = line(shown, 10_000)
        self._draw()

    def keep(self, shown: Shown) -> None:
        """Leave this as a row."""
        cells = {"epoch": shown.name.removeprefix("epoch "), **{k: short(v) for k, v in shown.numbers.items()}}
        if not shown.is_over or shown.done != shown.total:
            cells["batches"] = shown.counted.strip()
        self._rows.append({**cells, "time": interval(shown.elapsed)})
        rest = [shown.rate, *(f"{name}={value}" for name, value in shown.fixed.items())]
        self._status = ", ".join(text for text in rest if text)
        if time.monotonic() - self._drawn >= self.draw_seconds:
            self._draw()

    def wipe(self) -> None:
        """Nothing is going on any more."""
        if self._handle is not None and not self._rows:
            self._status = ""
            self._draw()

    def close(self) -> None:
        """The end; what is drawn now stays."""
        if self._rows:
            self._draw()

    def _draw(self) -> None:
        from IPython.display import display

        self._drawn = time.monotonic()
        if self._handle is None:
            self._handle = display(self, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(self)

    def _table(self) -> tuple[list[str], list[list[str]]]:
        rows = self._rows[-MOST_ROWS:]
        names = list(dict.fromkeys(name for row in rows for name in row if name != "time"))
        return [*names, "time"], [[row.get(name, "") for name in (*names, "time")] for row in rows]

    def _notes(self) -> Sequence[str]:
        nb = len(self._rows) - MOST_ROWS
        return [*([f"{nb} earlier epochs aren't shown"] if nb > 0 else []), *([self._status] if self._status else [])]

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        names, rows = self._table()
        widths = [max(len(row[i]) for row in [names, *rows]) for i in range(len(names))]
        plain = [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [names, *rows]
        ]
        cells = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
        head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{cells}</tbody></table>" if rows else ""
        notes = "".join(f"<pre>{html.escape(note)}</pre>" for note in self._notes())
        return {"text/plain": "\n".join([*(plain if rows else []), *self._notes()]), "text/html": table + notes}
