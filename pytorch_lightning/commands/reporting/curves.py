"""The curves of a report: a chart for each column, drawn with few points of which none hides a spike."""

import html
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy

from pytorch_lightning.commands.reporting.contents import Run, marks_of
from pytorch_lightning.run.listing import PLACES

if TYPE_CHECKING:
    from numpy.typing import NDArray

Values: TypeAlias = "NDArray[numpy.float64]"

MOST_POINTS = 120_000
"""Of a page; each curve has its share."""
BUCKETS = (50, 1000)
"""Of a curve, at least and at most: from each its lowest and its highest point are drawn."""
SMOOTHED_POINTS, WINDOW = 400, 50
"""Of a smoothed curve: how many points, each the mean of one in so many of the rows."""
SECTIONS = ("Training loss", "Validation and epochs", "Learning rates", "Gradient norms", "Other columns")
COLORS = ("#2f7fd6", "#d9691e", "#27936a", "#b8549f", "#8a6fd8", "#9a8416", "#1b93a8", "#d64f5c")
DASHES = ("solid", "dash", "dot", "dashdot")
FAILED = "#d64545"
MARK_WIDTH = 36
"""Characters of a line of text, so that a phone shows it."""


@dataclass(frozen=True)
class Chart:
    """A column of the rows, with the curves of all runs that have it."""

    name: str
    section: str
    note: str
    traces: list[dict[str, Any]]


def color_of(run: int) -> str:
    """The color of a run by its number."""
    return COLORS[run % len(COLORS)]


def place_of(runs: Sequence[Run]) -> str:
    """What the x axes show: what the rows of all runs have."""
    all_columns = [run.columns for run in runs if run.columns]
    return next((name for name in ("global_step", "epoch") if all(name in c for c in all_columns)), "row")


def section_of(name: str, runs: Sequence[Run]) -> str:
    """The section of a column, by its name and the rows that it is in."""
    if re.fullmatch(r"lr_\d+(_\d+)?", name):
        return "Learning rates"
    if re.match(r"grad_.+_norm_", name):
        return "Gradient norms"
    is_trained = any(name in run.columns and (_training(run) & _there(run.columns[name])).any() for run in runs)
    if name == "tng_loss_epoch" or ("loss" in name and is_trained):
        return "Training loss"
    is_named = re.match(r"(val|test)", name) is not None
    has_rows = any(_training(run).any() for run in runs)
    return "Other columns" if is_trained or not (is_named or has_rows) else "Validation and epochs"


def _there(values: Values) -> "NDArray[numpy.bool_]":
    return ~numpy.isnan(values)


def _training(run: Run) -> "NDArray[numpy.bool_]":
    """Which rows are of training."""
    nb_rows = max(map(len, run.columns.values()), default=0)
    found = numpy.zeros(nb_rows, bool)
    for name in {"tng_loss", "lr_0"} & run.columns.keys():
        found |= _there(run.columns[name])
    return found


def thinned(x: Values, y: Values, nb_buckets: int) -> tuple[Values, Values]:
    """The points of a curve, of which x rises: the first, the last, and of each of ``nb_buckets`` equal pieces of the
    axis the lowest and the highest. All of them where there are no more than that."""
    if len(x) <= 2 * nb_buckets:
        return x, y
    bucket = numpy.floor((x - x[0]) / max(x[-1] - x[0], 1e-300) * nb_buckets)
    order = numpy.lexsort((y, bucket))
    starts = numpy.flatnonzero(numpy.diff(bucket[order], prepend=-1))
    ends = numpy.append(starts[1:], len(x)) - 1
    kept = numpy.unique(numpy.concatenate([order[starts], order[ends], [0, len(x) - 1]]))
    return x[kept], y[kept]


def smoothed(x: Values, y: Values) -> tuple[Values, Values] | None:
    """Means of the rows around each of a few; None where there are too few rows."""
    half = len(y) // (2 * WINDOW)
    if half < 2:
        return None
    middles = numpy.unique(numpy.linspace(0, len(y) - 1, SMOOTHED_POINTS).round().astype(int))
    means = [y[max(0, i - half) : i + half + 1].mean() for i in middles]
    return x[middles], numpy.array(means)


def charts_of(runs: Sequence[Run]) -> list[Chart]:
    """The charts, in the order of their sections."""
    place = place_of(runs)
    names = [name for name in dict.fromkeys(n for run in runs for n in run.columns) if name not in PLACES]
    nb_curves = sum(name in run.columns for run in runs for name in names)
    nb_buckets = min(BUCKETS[1], max(BUCKETS[0], MOST_POINTS // (2 * max(1, nb_curves))))
    charts = [_chart(name, section_of(name, runs), runs, place, nb_buckets) for name in names]
    charts.sort(key=lambda chart: (SECTIONS.index(chart.section), not chart.name.endswith("_total")))
    return charts


def _chart(name: str, section: str, runs: Sequence[Run], place: str, nb_buckets: int) -> Chart:
    traces, nb_lost, is_thinned = [], 0, False
    is_smoothed = section == "Training loss"
    for i, run in enumerate(runs):
        if name not in run.columns:
            continue
        y = run.columns[name]
        x = run.columns[place] if place in run.columns else numpy.arange(float(len(y)))
        nb_lost += int(numpy.isinf(y).sum())
        is_drawn = numpy.isfinite(x) & numpy.isfinite(y)
        order = numpy.argsort(x[is_drawn], kind="stable")
        x, y = x[is_drawn][order], y[is_drawn][order]
        smooth = smoothed(x, y) if is_smoothed else None
        drawn = thinned(x, y, nb_buckets)
        is_thinned = is_thinned or len(drawn[0]) < len(x)
        traces.append(_trace(i, run.name, drawn, is_faint=smooth is not None))
        if smooth is not None:
            traces.append({**_trace(i, run.name, smooth, is_faint=False), "hoverinfo": "skip"})
    notes = [f"bold: means of {100 // WINDOW} % of the rows"] if any("hoverinfo" in trace for trace in traces) else []
    notes += [f"lowest and highest of {nb_buckets:,} pieces each"] if is_thinned else []
    notes += [f"{nb_lost:,} infinite, not drawn"] if nb_lost else []
    return Chart(name, section, ", ".join(notes), traces)


def _trace(i: int, name: str, points: tuple[Values, Values], is_faint: bool) -> dict[str, Any]:
    x, y = map(_numbers, points)
    mode, opacity = "lines+markers" if len(x) <= 60 else "lines", 0.3 if is_faint else 1
    line = {"color": color_of(i), "width": 1 if is_faint else 1.8, "dash": DASHES[i // len(COLORS) % len(DASHES)]}
    look = {"mode": mode, "line": line, "marker": {"size": 4}, "opacity": opacity}
    return {"x": x, "y": y, "name": shown(name), "meta": i, **look}


def _numbers(values: Values) -> list[float]:
    return [int(v) if abs(v) < 1e15 and v.is_integer() else float(f"{v:.7g}") for v in values.tolist()]


def shown(text: str) -> str:
    """A text that plotly draws as it is: it reads some HTML."""
    return html.escape(text[:300], quote=False)


def range_of(charts: Sequence[Chart]) -> list[float] | None:
    """What all x axes show, from the first point of any curve to the last."""
    ends = [x for chart in charts for trace in chart.traces for x in (*trace["x"][:1], *trace["x"][-1:])]
    room = 0.01 * (max(ends) - min(ends)) if ends else 0.0
    return [min(ends) - room, max(ends) + room] if room else None


def marks(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Lines where runs were resumed or failed, with what happened as their text; empty where the axis has no steps."""
    traces = []
    fixed = {"y": [0, 1], "yaxis": "y2", "hoverinfo": "text", "mode": "lines+markers", "cliponaxis": False}
    for i, run in enumerate(runs if place_of(runs) == "global_step" else ()):
        for kind, at, text in marks_of(run):
            color, symbol = (FAILED, "x") if kind == "failed" else (color_of(i), "triangle-right")
            marker = {"size": [0, 9], "symbol": symbol, "color": color, "line": {"width": 0}}
            look = {"line": {"color": color, "width": 1, "dash": "dot"}, "marker": marker, **fixed}
            lines = [*textwrap.wrap(run.name, MARK_WIDTH), *textwrap.wrap(text, MARK_WIDTH)]
            traces.append({"x": [at, at], "name": kind, "text": "<br>".join(map(shown, lines)), "meta": i, **look})
    return traces
