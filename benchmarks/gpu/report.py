"""What was run, as a page and as data that can be committed as they are."""

import json
import os
import re
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.checking import ROOT, Entry
from benchmarks.workloads import WORKLOADS

OUTCOMES = ("passed", "failed", "skipped", "not run")


def without_places(text: str) -> str:
    """``text`` without the folders of this machine."""
    places = [(str(ROOT), "."), (sysconfig.get_paths()["purelib"], "site-packages"), (sys.prefix, "python")]
    places += [(os.path.expanduser("~"), "~")]
    for folder, name in places:
        text = text.replace(folder, name) if len(folder) > 1 else text
    return re.sub(rf"{re.escape(tempfile.gettempdir())}/[^\s'\",:)]*", "FOLDER", text)


def counts(tests: Sequence[Entry]) -> dict[str, int]:
    """How many tests had each outcome."""
    found = Counter(entry["outcome"] for entry in tests)
    return {outcome: found[outcome] for outcome in OUTCOMES}


def markdown(about: Mapping[str, Any], tests: Sequence[Entry], benchmarks: Mapping[str, Any]) -> str:
    """The page."""
    numbers = ", ".join(f"{nb} {outcome}" for outcome, nb in counts(tests).items())
    text = [f"# {about['title']}, {about['date']}", ""]
    text += [f"- {key}: {value}" for key, value in about.items() if key not in ("title", "date")]
    text += [f"- tests: {numbers}", ""]
    failed = [entry for entry in tests if entry["outcome"] == "failed"]
    if failed:
        text += ["## Failed", ""]
        for entry in failed:
            text += [f"### {entry['test']}", "", entry.get("shows", ""), "", "```text"]
            text += [entry.get("error", "").strip("\n").replace("```", "'''"), "```", ""]
    text += _benchmarks(benchmarks) + ["## Tests", ""]
    text += ["| test | what it shows | ran on | | seconds | figures |", "|---|---|---|---|--:|---|"]
    for entry in tests:
        why = ": " + entry["error"].splitlines()[-1] if entry["outcome"] == "skipped" and entry.get("error") else ""
        figures = "; ".join(f"{name} {_short(value)}" for name, value in entry.get("figures", {}).items())
        cells = [entry["test"].replace("tests/gpu/", ""), entry.get("shows", ""), entry.get("where", "")]
        cells += [entry["outcome"] + why, f"{entry.get('seconds', 0.0):.1f}", figures]
        text.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return without_places("\n".join(text)) + "\n"


def _benchmarks(benchmarks: Mapping[str, Any]) -> list[str]:
    summary = benchmarks.get("summary", {})
    if not summary:
        return []
    names = list(dict.fromkeys(name for contestants in summary.values() for name in contestants))
    text = ["## Benchmarks", "", f"Microseconds of a step by the clock on the wall: {benchmarks['what']}", ""]
    text += [
        "| workload | " + " | ".join(f"{name} | ratio" for name in names) + " | |",
        "|---" + "|--:" * (2 * len(names)) + "|---|",
    ]
    for workload, contestants in summary.items():
        cells = [workload]
        for name in names:
            entry = contestants.get(name, {"skipped": ""})
            if "skipped" in entry:
                cells += [" ".join(("skipped: " + entry["skipped"]).split())[:80] if entry["skipped"] else "", ""]
                continue
            cells.append(f"{entry['median']:.0f} ({entry['low']:.0f} to {entry['high']:.0f})")
            cells.append("" if entry["ratio"] is None else f"{entry['ratio']:.2f}")
        text.append("| " + " | ".join([*cells, WORKLOADS[workload].what]) + " |")
    return [*text, ""]


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return ", ".join(map(_short, value)) if isinstance(value, list) else str(value)


def write(folder: Path, about: Mapping[str, Any], tests: Sequence[Entry], benchmarks: Mapping[str, Any]) -> None:
    """Write report.md and report.json, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    everything = {"about": dict(about), "counts": counts(tests), "tests": list(tests), "benchmarks": dict(benchmarks)}
    data = without_places(json.dumps(everything, indent=1)) + "\n"
    for name, content in (("report.md", markdown(about, tests, benchmarks)), ("report.json", data)):
        temporary = folder / f".{name}.tmp"
        temporary.write_text(content)
        temporary.replace(folder / name)
