"""Runs the workloads: every contestant in a process of its own, one after the other in each round."""

import argparse
import contextlib
import datetime
import json
import os
import platform
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import instructions, peers, report
from benchmarks.workloads import ON_DEVICE, WORKLOADS

ROOT = Path(__file__).parent.parent
CONTESTANTS = ["lean", "direct", "naive", "ours", *peers.PEERS]

FIRST_STEP = """
import torch
{imports}
torch.set_num_threads(1)
from benchmarks.contestants import {name}
{name}.W1(1)
"""


class Worker:
    """A contestant's process, which computes on ``device``."""

    def __init__(self, name: str, python: str, device: str = "cpu") -> None:
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.worker", name],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "KERAS_BACKEND": "torch", "BENCHMARK_DEVICE": device},
        )

    def measure(self, workload: str, small: int, full: int, seconds: float | None = None) -> dict[str, Any]:
        """What it measures; it is ended where that takes longer than ``seconds``."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{workload} {small} {full}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return {"skipped": "its process ended"}
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            self._process.kill()
            return {"skipped": f"took more than {seconds:.0f} s"}
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"skipped": "its process ended"}

    def end(self) -> None:
        """End it at once."""
        self._process.kill()
        self.close()

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()


def measure_start(name: str, python: str) -> dict[str, Any]:
    """Seconds: to import torch or, once it is there, this library; and from a process's start to its end with one step
    of W1."""
    imports = {"lean": "torch", "ours": "pytorch_lightning"}.get(name)
    if imports is None:
        return {"skipped": ""}

    def run(code: str) -> str:
        return subprocess.run([python, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout

    def seconds(code: str) -> float:
        start = time.perf_counter()
        run(code)
        return time.perf_counter() - start

    own = (
        "torch" if name == "lean" else "pytorch_lightning; pytorch_lightning.Trainer, pytorch_lightning.LightningModule"
    )
    timed = f"import time; start = time.perf_counter(); import {own}; print(time.perf_counter() - start)"
    code = timed if name == "lean" else f"import torch; {timed}"
    return {
        # what else the machine does makes it longer, never shorter
        "import": min(float(run(code)) for _ in range(5)),
        "value": seconds(FIRST_STEP.format(name=name, imports=f"import {imports}")),
    }


def device_name(device: str) -> str:
    """What ``device`` is: 'cuda' is an NVIDIA H100, say."""
    import torch

    return str(torch.cuda.get_device_name()) if device.startswith("cuda") else device


def about(rounds: int, device: str = "cpu") -> dict[str, Any]:
    import torch

    model = next((line.split(":")[1].strip() for line in _cpu_lines() if line.startswith("model name")), "")
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{model or platform.processor()}, {os.cpu_count()} processors, {platform.system()}",
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}"
        + "".join(f", {name} {version}" for name, version in peers.versions().items()),
        **({} if device == "cpu" else {"device": device_name(device)}),
        "rounds": rounds,
        "load at the end": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def schedule(only: list[str], rounds: int) -> list[tuple[int, str]]:
    """Which workload is run when: (round, workload), slow ones in fewer rounds."""
    return [(n, workload) for n in range(rounds) for workload in only if n < WORKLOADS[workload].most_rounds]


def sizes_of(workload: str, shrink: int = 1) -> tuple[int, int]:
    """The numbers of batches: of few, and of all. ``shrink`` makes them that many times smaller."""
    spec = WORKLOADS[workload]
    small, full = (max(n // shrink, 2 if n else 0) for n in (spec.small, spec.full))
    if small and full <= small and spec.full != spec.small:
        full = 2 * small
    return small, full


def run(only: list[str], contestants: list[str], rounds: int, shrink: int, device: str = "cpu") -> report.Measured:
    workers = {n: Worker(n, python, device) for n in contestants if (python := peers.python_of(n)) is not None}
    measured: report.Measured = {workload: {name: [] for name in workers} for workload in only}
    try:
        for round_nb, workload in schedule(only, rounds):
            small, full = sizes_of(workload, shrink)
            # each round begins with another one, so that nobody always follows the same
            names = list(workers)
            for name in names[round_nb % len(names) :] + names[: round_nb % len(names)]:
                print(f"round {round_nb + 1}/{rounds}: {workload}, {name}", file=sys.stderr, flush=True)
                measured[workload][name].append(
                    measure_start(name, peers.python_of(name) or "")
                    if workload == "START"
                    else workers[name].measure(workload, small, full)
                )
    finally:
        for worker in workers.values():
            worker.close()
    return measured


def count_instructions(measured: report.Measured) -> None:
    """Add the instructions of a step to what the first round of lean and ours gave."""
    for workload in filter(instructions.WORKLOADS.__contains__, measured):
        for name in [n for n in ("lean", "ours") if measured[workload].get(n)]:
            print(f"instructions: {workload}, {name}", file=sys.stderr, flush=True)
            counted = instructions.per_step(name, workload, sys.executable)
            if "skipped" in counted:
                print(f"no instructions of {workload}, {name}: {counted['skipped']}", file=sys.stderr, flush=True)
            for one_round in measured[workload][name]:
                one_round.update(counted if "skipped" not in counted else {})


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", help="workloads, with commas between; all of them without it")
    parser.add_argument("--device", default="cpu", help="where to compute: cuda for a GPU, on which some can be run")
    parser.add_argument("--contestants", default=",".join(CONTESTANTS), help="with commas between")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a fiftieth of the batches: to see that it works")
    parser.add_argument(
        "--instructions", action="store_true", help=f"of {', '.join(instructions.WORKLOADS)}, by valgrind"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--setup-peers", nargs="*", metavar="NAME", help=f"environments of {', '.join(peers.PEERS)}")
    options = parser.parse_args(arguments)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # programs find what was compiled before, as they usually do
    if options.setup_peers is not None:
        peers.set_up(options.setup_peers or list(peers.PEERS))
        return
    there = list(WORKLOADS if options.device == "cpu" else ON_DEVICE)
    chosen, names = options.only.split(",") if options.only else there, options.contestants.split(",")
    unknown = [name for name in chosen if name not in WORKLOADS] + [n for n in names if n not in CONTESTANTS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}. There are {', '.join([*WORKLOADS, *CONTESTANTS])}.")
    measured = run(chosen, names, options.rounds, 50 if options.quick else 1, options.device)
    if options.instructions:
        count_instructions(measured)
    print(report.write(options.out, about(options.rounds, options.device), measured))


if __name__ == "__main__":
    main()
