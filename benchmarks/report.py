"""Measurements as a table, as JSON, and as a chart."""

import json
import statistics
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from benchmarks.targets import verdicts
from benchmarks.workloads import WORKLOADS

Measured = dict[str, dict[str, list[dict[str, Any]]]]
"""By workload and contestant: what each round gave."""

NAMES = {"cpu": "CPU", "wall": "wall"}
CROWDED = 1.15
"""Wall time for each second of CPU time, from which on the machine was busy with other things."""


BASES = {"lean": ("_ratio", "_over"), "direct": ("_to_direct", "_over_direct")}
"""What contestants are compared with, and how those figures end."""


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def summarize(measured: Measured) -> dict[str, dict[str, dict[str, Any]]]:
    """Medians with their spread, and those of each round's ratio to the lean loop and of the difference from it."""
    summary: dict[str, dict[str, dict[str, Any]]] = {}
    for workload, contestants in measured.items():
        summary[workload] = {}
        for name, rounds in contestants.items():
            kept = [r for r in rounds if "skipped" not in r]
            if not kept:
                reason = rounds[0]["skipped"] if rounds else ""
                if reason:
                    summary[workload][name] = {"skipped": reason}
                continue
            keys = [key for key in kept[0] if all(key in r for r in kept)]
            entry: dict[str, Any] = {key: spread([r[key] for r in kept]) for key in keys}
            for base, (ratio, over) in BASES.items():
                pairs = [*zip(rounds, contestants.get(base, []), strict=False)]
                for key in keys:
                    both = [(own[key], its[key]) for own, its in pairs if key in own and key in its]
                    ratios = [own / its for own, its in both if own > 0 and its > 0]
                    if ratios:
                        entry[key + ratio] = spread(ratios)
                    if both:
                        entry[key + over] = spread([own - its for own, its in both])
            summary[workload][name] = entry
    return summary


def warnings_of(summary: Mapping[str, Any]) -> list[str]:
    """Where wall and CPU time disagree."""
    lines = []
    for workload, contestants in summary.items():
        for name, entry in contestants.items():
            if "wall" in entry and entry["wall"]["median"] > CROWDED * entry["cpu"]["median"]:
                share = entry["wall"]["median"] / max(entry["cpu"]["median"], 1e-9)
                lines.append(f"{workload}, {name}: wall time is {share:.2f} times CPU time: the machine was crowded")
    return lines


def clock_of(about: Mapping[str, Any]) -> str:
    """Which time counts: that of the processor; where a GPU computes, that of the clock on the wall."""
    return "wall" if "device" in about else "cpu"


def markdown(about: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    """The table of every workload."""
    clock = clock_of(about)
    text = [f"# Benchmarks, {about['date']}", "", *(f"- {k}: {v}" for k, v in about.items() if k != "date"), ""]
    text += targets_table(summary) if clock == "cpu" else []
    text.append("Medians (lowest to highest). A ratio is the median of each round's ratio to the lean raw loop.")
    for workload, contestants in summary.items():
        spec = WORKLOADS[workload]
        unit = spec.unit if 0 < spec.small < spec.full else "us a step"
        text += ["", f"## {workload}: {spec.what}", ""]
        text += [
            f"| | CPU, {unit} | wall, {unit} | ratio, {NAMES[clock]} | ratio, whole run | other |",
            "|---|--:|--:|--:|--:|--|",
        ]
        for name, entry in contestants.items():
            if "skipped" in entry:
                text.append(f"| {name} | | | | | skipped: {entry['skipped'].splitlines()[0][:120]} |")
                continue
            other = [
                f"{key} {_short(value['median'])} ({_short(value['low'])} to {_short(value['high'])})"
                + (f" {spec.unit}" if key == "value" and workload != "GROWTH" else "")
                for key, value in entry.items()
                if key not in ("cpu", "wall", "whole_cpu", "whole_wall", "instructions")
                and not key.endswith(tuple(ending for endings in BASES.values() for ending in endings))
            ]
            if "instructions" in entry:
                other.append(f"{entry['instructions']['median']:,.0f} instructions {unit.removeprefix('us ')}")
            cells = [_cell(entry.get(key)) for key in ("cpu", "wall")]
            ratios = [_cell(entry.get(key), 2) for key in (f"{clock}_ratio", f"whole_{clock}_ratio")]
            text.append(f"| {name} | {' | '.join(cells + ratios)} | {', '.join(other)} |")
    notes = warnings_of(summary) if clock == "cpu" else []
    return "\n".join(text + (["", "**Read with care:**", "", *(f"- {line}" for line in notes)] if notes else [])) + "\n"


def targets_table(summary: Mapping[str, Any]) -> list[str]:
    """Lines that say which figures were met."""
    found = verdicts(summary)
    if not found:
        return []
    lines = ["| workload | what | at most | measured | met |", "|---|---|--:|--:|---|"]
    for v in found:
        numbers = f"{v['target']:.3g} {v['unit']}".strip(), f"{v['measured']:.3g} {v['unit']}".strip()
        spread = f" ({v['low']:.3g} to {v['high']:.3g})" if v["low"] < v["high"] else ""
        met = "**no**" if v["verdict"] == "no" else v["verdict"]
        lines.append(f"| {v['workload']} | {v['what']} | {' | '.join(numbers)}{spread} | {met} |")
    missed = [f"- {v['workload']}, {v['what']}: {v['why']}." for v in found if v["why"] and v["verdict"] == "no"]
    return [*lines, "", *missed, *([""] if missed else [])]


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"


def _cell(value: Mapping[str, float] | None, digits: int = 0) -> str:
    if value is None:
        return ""
    return f"{value['median']:.{digits}f} ({value['low']:.{digits}f} to {value['high']:.{digits}f})"


SHOWN = {
    "W1": "a small network, batches from a DataLoader",
    "W1list": "the same, batches ready in a list",
    "W4": "evaluating it",
    "W3": "a small GPT (time on the clock)",
}
"""The workloads of the chart, in plain words: three of several libraries, and one of large steps."""
CALLED = {
    "lean": "shortest hand-written loop",
    "direct": "the same, tensors indexed directly",
    "naive": "hand-written loop of tutorials",
    "ours": "this library",
    "lightning": "Lightning",
    "accelerate_peer": "Accelerate",
    "ignite_peer": "Ignite",
    "hf_trainer": "Hugging Face Trainer",
    "keras_peer": "Keras on torch",
    "fastai_peer": "fastai",
    "skorch_peer": "skorch",
}


def bars_of(contestants: Mapping[str, Any], clock: str) -> list[tuple[str, float]]:
    """The contestants in plain words, and their time relative to the lean loop's, the shortest first."""
    ratios = {name: entry.get(f"{clock}_ratio", entry.get("value_ratio")) for name, entry in contestants.items()}
    found = [(CALLED.get(name, name), ratio["median"]) for name, ratio in ratios.items() if ratio is not None]
    return sorted(found, key=lambda bar: bar[1])


def chart(about: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    """Bars of the time of a step for each of the lean loop's, as SVG."""
    clock = clock_of(about)
    groups = {title: bars_of(summary[name], clock) for name, title in SHOWN.items() if name in summary}
    longest = max((ratio for bars in groups.values() for _, ratio in bars), default=1.0)
    scale, row, left = 480 / max(longest, 1.0), 18, 190
    height = 60 + sum(30 + row * len(bars) for bars in groups.values())
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{height}" font-size="12"',
        ' font-family="sans-serif">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="10" y="20" font-size="14">{NAMES[clock]} time of a step, shortest hand-written loop = 1 (shorter is'
        " better)</text>",
        f'<text x="10" y="38" fill="#666">{escape(str(about["machine"]))}, {escape(str(about["date"]))}</text>',
    ]
    y = 44
    for title, bars in groups.items():
        out.append(f'<text x="10" y="{y + 18}" font-weight="bold">{escape(title)}</text>')
        y += 24
        for name, ratio in bars:
            colour = {CALLED["ours"]: "#c8102e", CALLED["lean"]: "#444"}.get(name, "#9bb")
            out.append(f'<text x="{left - 6}" y="{y + 13}" text-anchor="end">{escape(name)}</text>')
            out.append(f'<rect x="{left}" y="{y + 2}" width="{ratio * scale:.1f}" height="{row - 4}" fill="{colour}"/>')
            out.append(f'<text x="{left + ratio * scale + 5:.1f}" y="{y + 13}">{ratio:.2f}</text>')
            y += row
        y += 6
    middle = left + scale
    out.append(f'<line x1="{middle:.1f}" x2="{middle:.1f}" y1="48" y2="{y}" stroke="#444" stroke-dasharray="3"/>')
    return "\n".join([*out, "</svg>"]) + "\n"


def write(folder: Path, about: Mapping[str, Any], measured: Measured) -> str:
    """Write results.md, results.json and results.svg; returns the table."""
    folder.mkdir(parents=True, exist_ok=True)
    summary = summarize(measured)
    table = markdown(about, summary)
    (folder / "results.md").write_text(table)
    targets = verdicts(summary) if clock_of(about) == "cpu" else []
    everything = {"about": about, "targets": targets, "summary": summary, "rounds": measured}
    (folder / "results.json").write_text(json.dumps(everything, indent=1))
    (folder / "results.svg").write_text(chart(about, summary))
    return table
