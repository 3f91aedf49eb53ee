"""Run on one GPU what was written for one, and write a report: report.md and report.json.

Tests first, then the benchmarks. When the time is over it stops, and the report says what was not run. Exit code 0:
everything that was run passed; 1: something failed; 2: there is no GPU; 3: the time was over too early.
"""

import argparse
import datetime
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.__main__ import about as about_machine
from benchmarks.gpu import report
from benchmarks.gpu.checking import ROOT, Check
from benchmarks.gpu.timing import Measuring, summary_of

MINUTES = 8.0
FOR_BENCHMARKS = 0.35
"""So much of the time is kept for the benchmarks."""
SHOWN_EVERY = 10
"""Tests, between two lines that say how far it is."""
FOR_THE_END = 10.0
"""Seconds that are kept for ending what runs, and for the report."""

LOOK = """
import json, torch
found = {"torch": str(torch.__version__), "nb": torch.cuda.device_count()}
found["cuda"] = torch.version.cuda or torch.version.hip
if torch.cuda.is_available():
    device = torch.cuda.get_device_properties(0)
    found |= {"name": device.name, "gigabytes": round(device.total_memory / 2**30, 1)}
    found["capability"] = f"{device.major}.{device.minor}"
print(json.dumps(found))
"""

TITLE = "Run on a GPU"
TRIAL = "A trial without a GPU: nothing here was run on one"


def look_at_gpu() -> dict[str, Any]:
    """What there is of a GPU, as another process sees it: this one takes none of its memory."""
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True)
    if done.returncode:
        return {"torch": "", "nb": 0, "problem": done.stderr.strip().splitlines()[-1:]}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def driver() -> str:
    """The version of the GPU's driver, where its own tool says it."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.split("\n")[0].strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def commit() -> str:
    """What was checked out, and whether it was changed since."""
    git = ["git", "-C", str(ROOT)]
    try:
        found = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""
    return found + (" and changes" if found and changed else "")


def describe(gpu: dict[str, Any], trial: bool) -> dict[str, Any]:
    """The head of the report."""
    machine = about_machine(0)
    about: dict[str, Any] = {"title": TRIAL if trial else TITLE, "date": datetime.date.today().isoformat()}
    if not trial:
        what = f"{gpu['name']}, {gpu['gigabytes']} GB, compute capability {gpu['capability']}"
        about["GPU"] = what + (f", and {gpu['nb'] - 1} more" if gpu["nb"] > 1 else "")
        about["driver"] = f"{driver() or 'unknown'}, CUDA {gpu['cuda']}"
    about["machine"] = f"{machine['machine']}, {platform.machine()}"
    about["versions"] = machine["versions"]
    about["commit"] = commit() or "unknown"
    return about


def paths(gpu: dict[str, Any], trial: bool) -> list[str]:
    """Where the tests are."""
    several = ["tests/strategies/test_data_parallel.py", "tests/examples/test_multi_process_templates.py"]
    return ["tests/gpu", *(several if gpu["nb"] > 1 and not trial else [])]


class Run:
    """All of it, with a report that is up to date whenever it ends."""

    def __init__(self, options: argparse.Namespace, gpu: dict[str, Any], began: float, scratch: Path) -> None:
        self._options, self._gpu, self._began = options, gpu, began
        self._trial: bool = options.dry_run
        self._about = describe(gpu, self._trial)
        self._written, self._nb_failed = 0.0, 0
        end = began + 60 * options.minutes - FOR_THE_END
        for_tests = end if options.only == "tests" else began + (end - began) * (1 - FOR_BENCHMARKS)
        variables = {"GPU_CHECK": "dry-run"} if self._trial else {"GPU_CHECK": ""}
        self.check = Check(
            options.tests or paths(gpu, self._trial),
            for_tests,
            scratch,
            variables=variables,
            patience=10.0 if self._trial else 1.0,
            on_change=self._show,
        )
        device = "standin" if self._trial else "cuda"
        self.measuring = Measuring(end, device, on_change=self.write_at_times, trial=self._trial)
        self.complete = False

    def run(self) -> None:
        """Tests, then benchmarks."""
        if self._options.only != "benchmarks":
            self.check.run()
        if self._options.only != "tests":
            print("benchmarks", file=sys.stderr, flush=True)
            self.measuring.run()
        self.complete = True

    def _show(self) -> None:
        numbers = report.counts(self.check.entries)
        if numbers["failed"] > self._nb_failed or not numbers["not run"] % SHOWN_EVERY:
            shown = ", ".join(f"{nb} {outcome}" for outcome, nb in numbers.items())
            print(f"{time.time() - self._began:4.0f} s: {shown}", file=sys.stderr, flush=True)
        self._nb_failed = numbers["failed"]
        self.write_at_times()

    def write_at_times(self) -> None:
        """Write the report, unless that was done a moment ago."""
        if time.time() - self._written > 2:
            self.write()

    def write(self) -> None:
        """Write the report as far as things are known."""
        self._written = time.time()
        about = {**self._about, "took": f"{time.time() - self._began:.0f} s of {60 * self._options.minutes:.0f}"}
        if self.check.problem:
            about["problem"] = " ".join(self.check.problem.split())[-500:]
        if not self.complete:
            about["incomplete"] = "it was ended before it was through"
        summary = summary_of(self.measuring.measured)
        rounds = f"medians of {self.measuring.nb_rounds} complete rounds"
        what = f"{rounds}, the lowest and the highest; a ratio is to the lean loop."
        measured = {"what": what, "summary": summary, "rounds": self.measuring.measured}
        report.write(self._options.out, about, self.check.entries, measured)

    @property
    def code(self) -> int:
        """The exit code."""
        numbers = report.counts(self.check.entries)
        entries = [entry for each in summary_of(self.measuring.measured).values() for entry in each.values()]
        wanted = self._options.only != "tests"
        if numbers["failed"] or self.check.problem or any(entry.get("skipped") for entry in entries):
            return 1
        none = self._options.only != "benchmarks" and not self.check.entries
        short = none or numbers["not run"] or (wanted and self.measuring.nb_rounds < self.measuring.wanted)
        return 3 if short or not self.complete else 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/gpu_check", description=__doc__.split("\n\n")[0])
    parser.add_argument("--dry-run", action="store_true", help="a trial without a GPU: all of it, on what stands in")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="when to stop, from the start of the script")
    parser.add_argument("--out", type=Path, help="the report's folder: benchmarks/results/gpu, or a temporary one")
    parser.add_argument("--only", choices=["tests", "benchmarks"], help="leave the other out")
    parser.add_argument("tests", nargs="*", help="some of the tests, as pytest names them")
    options = parser.parse_args(arguments)
    if options.out is None:
        here = Path(tempfile.mkdtemp(prefix="gpu_check_")) if options.dry_run else ROOT / "benchmarks/results/gpu"
        options.out = here
    return options


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    began = float(os.environ.get("GPU_CHECK_BEGAN") or time.time())
    options = parse(arguments)
    gpu = look_at_gpu()
    if not options.dry_run and "name" not in gpu:
        why = " ".join(gpu.get("problem", [])) or f"torch {gpu['torch']} sees none"
        print(f"there is no GPU here ({why}): nothing was run. For a trial on the CPU: scripts/gpu_check --dry-run")
        return 2

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    with tempfile.TemporaryDirectory(prefix="gpu_check_") as scratch:
        run = Run(options, gpu, began, Path(scratch))
        try:
            run.run()
        finally:
            run.write()
    numbers = report.counts(run.check.entries)
    print(", ".join(f"{nb} {outcome}" for outcome, nb in numbers.items()))
    for entry in run.check.entries:
        if entry["outcome"] == "failed":
            print(f"failed: {entry['test']}")
    print(f"{options.out / 'report.md'}")
    return run.code


if __name__ == "__main__":
    sys.exit(main())
