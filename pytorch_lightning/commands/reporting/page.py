"""The HTML of a report: whatever came from a run is escaped, and the page may load nothing."""

import base64
import hashlib
import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from pytorch_lightning.commands.reporting.contents import Logged, Run, date_of, media_of, read_runs
from pytorch_lightning.commands.reporting.curves import SECTIONS, Chart, charts_of, color_of, marks, place_of, range_of
from pytorch_lightning.commands.runs import headline
from pytorch_lightning.commands.runs import shown as shown_number
from pytorch_lightning.errors import MisconfigurationException
from pytorch_lightning.timings import PHASES
from pytorch_lightning.version import __version__

TEMPLATE = Path(__file__).with_name("page.html")
MOST_CHARTS = 9
"""Of a section; the others are folded."""
MOST_DIFFERING, MOST_METRICS = 40, 24
"""Rows of the first table."""
MOST_BYTES_OF_MEDIA = 2_000_000
MOST_OF_A_TEXT, MOST_OF_A_CELL = 4000, 160
"""Characters."""
IMAGES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}
"""By the first bytes of a file: what isn't one of these is named, not shown."""


def report(runs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], path: Any = "report.html") -> Path:
    """Write a page about ``runs``, the folder of a run or several, to ``path``, and return that.

    It is one HTML file that needs no network: curves, hparams and options that differ, where the time went, resumes
    and failures, what was logged, the models and the versions. A file that is there is overwritten.

    Raises ``MisconfigurationException`` for a folder that isn't a run's, where no run has rows, where plotly (the
    extra ``[report]``) isn't installed, and where ``path`` can't be written.

    >>> import tempfile
    >>> from pytorch_lightning.loggers import CSVLogger
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     logger = CSVLogger(folder, name="digits")
    ...     for step in range(3):
    ...         logger.log_metrics({"tng_loss": 1 / (1 + step)}, step)
    ...     logger.close()
    ...     page = report(logger.folder, f"{folder}/report.html")
    >>> page.name
    'report.html'
    """
    try:
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError:
        raise MisconfigurationException(
            'a report needs plotly. Write: pip install "pytorch-lightning-classic[report]"'
        ) from None
    text = page_of(read_runs([runs] if isinstance(runs, (str, os.PathLike)) else runs), get_plotlyjs())
    target = Path(path)
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, target)
    except OSError as error:
        raise MisconfigurationException(f"{os.fspath(path)!r} can't be written: {error.strerror}.") from error
    return target


def page_of(runs: Sequence[Run], plotly: str) -> str:
    """The page as a text."""
    template = TEMPLATE.read_text(encoding="utf-8")
    script = re.search(r"<script>(\n.*?)</script>", template, re.DOTALL)
    assert script is not None
    charts = charts_of(runs)
    data = {"charts": [chart.traces for chart in charts], "marks": marks(runs)}
    data |= {"x": place_of(runs), "range": range_of(charts)}
    models = Counter(str(run.record.get("model") or "") for run in runs)
    title = f"{len(runs)} runs" if len(runs) > 1 else runs[0].name
    title += f" of {next(iter(models))}" if len(runs) > 1 and len(models) == 1 and "" not in models else ""
    parts = {
        "title": escape(title),
        "about": f"{date_of(time.time())}, pytorch-lightning-classic {__version__}",
        "legend": "".join(_button(i, run.name) for i, run in enumerate(runs)),
        "body": "\n".join([_overview(runs), *_curves(charts), _times(runs), _logged(runs), _details(runs)]),
        "data": json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
        "plotly": plotly,
        "hashes": f"{_hash(plotly)} {_hash(script[1])}",
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def _hash(script: str) -> str:
    """The one script that may run, for the page's policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _named(i: int, name: str) -> str:
    return f'<i style="background:{color_of(i)}"></i>{escape(name)}'


def _button(i: int, name: str) -> str:
    return f'<button type="button" aria-pressed="true" data-run="{i}">{_named(i, name)}</button>'


# ------------------------------------------------------------------ tables
def _cell(value: Any) -> str:
    text = "" if value is None else shown_number(value)
    return escape(text if len(text) <= MOST_OF_A_CELL else f"{text[:MOST_OF_A_CELL]}...")


def _table(runs: Sequence[Run], rows: Iterable[tuple[str, Sequence[Any]]]) -> str:
    """A row for each property, a column for each run. Labels and values are texts of users."""
    dots = "".join(f'<th scope="col">{_named(i, run.name)}</th>' for i, run in enumerate(runs))
    lines = [
        f'<tr><th scope="row">{_cell(label)}</th>{"".join(f"<td>{_cell(value)}</td>" for value in values)}</tr>'
        for label, values in rows
    ]
    head = f"<thead><tr><th></th>{dots}</tr></thead>"
    return f'<div class="wide" tabindex="0"><table>{head}<tbody>{"".join(lines)}</tbody></table></div>'


def _rows(given: Sequence[Mapping[str, Any]], differing: bool = False) -> list[tuple[str, list[Any]]]:
    """The entries of several mappings side by side; ``differing``: only those that aren't the same in all."""
    rows = [(name, [each.get(name) for each in given]) for name in dict.fromkeys(n for each in given for n in each)]
    return [(n, values) for n, values in rows if not differing or len({repr(value) for value in values}) > 1]


def _overview(runs: Sequence[Run]) -> str:
    rows: list[tuple[str, Sequence[Any]]] = [("state", [headline(run.row) for run in runs])]
    rows += _rows([{**run.hparams, "resume": None} for run in runs], differing=len(runs) > 1)[:MOST_DIFFERING]
    rows += _rows([run.options for run in runs], differing=True)[:MOST_DIFFERING]
    rows += _rows([_metrics(run.row) for run in runs])[:MOST_METRICS]
    told = [row for row in rows if any(value is not None for value in row[1])]
    return f"<section><h2>Runs</h2>{_table(runs, told)}</section>"


def _metrics(row: Mapping[str, Any]) -> dict[str, str]:
    """The last and the best value of what tells how good a run is."""
    found = {}
    for name in (key[5:] for key in row if re.match(r"last\.(val|test|tng_loss$)", key)):
        last, best = shown_number(row[f"last.{name}"]), shown_number(row[f"best.{name}"])
        found[name] = last if last == best else f"{last} (best {best})"
    return found


def _details(runs: Sequence[Run]) -> str:
    alike = {str(run.record.get("summary") or ""): run.name for run in reversed(runs)}
    models = "".join(
        f"<h3>{escape(name)}</h3><pre>{escape(text)}</pre>" for text, name in reversed(alike.items()) if text
    )
    given: dict[str, list[Mapping[str, Any]]] = {
        "All hparams": [run.hparams for run in runs],
        "All options": [run.options for run in runs],
        "Versions": [run.versions for run in runs],
        "Folders": [{"folder": str(run.folder)} for run in runs],
    }
    parts = {name: _table(runs, _rows(each)) for name, each in given.items() if any(each)}
    parts |= {"Models" if len(alike) > 1 else "Model": models} if models else {}
    folded = [f"<details><summary>{name}</summary>{text}</details>" for name, text in parts.items()]
    return f"<section><h2>Details</h2>{''.join(folded)}</section>"


# ------------------------------------------------------------------ curves, times
def _curves(charts: Sequence[Chart]) -> list[str]:
    sections = []
    for name in SECTIONS:
        cards = [_card(i, chart) for i, chart in enumerate(charts) if chart.section == name]
        nb = 1 if name == "Gradient norms" else MOST_CHARTS
        text = _grid(cards[:nb])
        text += f"<details><summary>{len(cards) - nb} more</summary>{_grid(cards[nb:])}</details>" if cards[nb:] else ""
        sections += [f"<section><h2>{name}</h2>{text}</section>"] if cards else []
    return sections


def _grid(cards: Sequence[str], kind: str = "grid") -> str:
    return f'<div class="{kind}">{"".join(cards)}</div>'


def _card(i: int, chart: Chart) -> str:
    note = f"<small>{escape(chart.note)}</small>" if chart.note else ""
    place = f'<div class="chart" data-chart="{i}"></div>'
    return f"<figure><figcaption>{_cell(chart.name)}{note}</figcaption>{place}</figure>"


def _times(runs: Sequence[Run]) -> str:
    given = [run.seconds for run in runs]
    if not any(given):
        return ""
    phases = {**PHASES, "": "killed: not recorded"}
    bars = []
    for run, seconds in zip(runs, given, strict=True):
        total = sum(seconds.values())
        pieces = [
            f'<b class="p{i}" style="width:{100 * seconds[p] / total:.2f}%" title="{escape(phases[p])}"></b>'
            for i, p in enumerate(phases)
            if seconds.get(p) and total
        ]
        bars.append(f'<div class="bar"><span>{escape(run.name)}</span><div>{"".join(pieces)}</div></div>')
    rows = []
    for i, (phase, text) in enumerate(phases.items()):
        if any(phase in seconds for seconds in given):
            cells = "".join(f"<td>{_share(seconds, phase)}</td>" for seconds in given)
            rows.append(f'<tr><th scope="row"><i class="p{i}"></i>{escape(text)}</th>{cells}</tr>')
    table = _table(runs, []).replace("<tbody>", f"<tbody>{''.join(rows)}", 1)
    return f'<section><h2>Where the time went</h2><div class="bars">{"".join(bars)}</div>{table}</section>'


def _share(seconds: Mapping[str, float], phase: str) -> str:
    value = seconds.get(phase)
    return "" if value is None else f"{value:.1f} s <small>{value / max(sum(seconds.values()), 1e-9):.0%}</small>"


# ------------------------------------------------------------------ what was logged
def _logged(runs: Sequence[Run]) -> str:
    newest: list[tuple[Run, Logged]] = []
    earlier: list[tuple[Run, Logged]] = []
    for run in runs:
        names = set[str]()
        for logged in media_of(run):
            (earlier if logged.name in names else newest).append((run, logged))
            names.add(logged.name)
    if not newest:
        return ""
    room, left_out = [MOST_BYTES_OF_MEDIA], list[str]()
    shown = [_file(run, logged, room, left_out) for run, logged in sorted(newest, key=lambda pair: pair[1].name)]
    older = [_file(run, logged, room, left_out) for run, logged in earlier]
    text, nb = _grid(shown, "grid small"), sum(map(bool, older))
    text += f"<details><summary>{nb} earlier</summary>{_grid(older, 'grid small')}</details>" if nb else ""
    if left_out:
        listed = ", ".join(left_out[:20]) + (f" and {len(left_out) - 20} more" if len(left_out) > 20 else "")
        text += f'<p class="soft">In the folders, not on this page: {escape(listed)}</p>'
    return f"<section><h2>Logged</h2>{text}</section>"


def _file(run: Run, logged: Logged, room: list[int], left_out: list[str]) -> str:
    """An image or a text as a figure; empty for what isn't shown, which is named in ``left_out``."""
    try:
        data = logged.path.read_bytes() if logged.path.stat().st_size <= room[0] else b""
    except OSError:
        data = b""
    kind = next((kind for first, kind in IMAGES.items() if data.startswith(first)), None)
    if kind is not None:
        body = f'<img alt="{escape(logged.name)}" src="data:{kind};base64,{base64.b64encode(data).decode()}">'
    elif data and logged.path.suffix == ".txt":
        text = data.decode(errors="replace")
        body = f"<pre>{escape(text[:MOST_OF_A_TEXT])}{'...' * (len(text) > MOST_OF_A_TEXT)}</pre>"
    else:
        left_out.append(f"{run.name}/{logged.path.relative_to(run.folder)}")
        return ""
    room[0] -= len(data)
    about = f"<small>{escape(run.name)}, step {logged.step}</small>"
    return f"<figure><figcaption>{escape(logged.name)}{about}</figcaption>{body}</figure>"
