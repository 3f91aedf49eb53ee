"""One contestant in a process of its own: reads ``workload small full`` lines, answers each with a line of JSON."""

import contextlib
import gc
import importlib
import json
import os
import resource
import sys
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, cast

from benchmarks.workloads import DEVICE, ON_DEVICE, wait

CONTESTANTS_ON_DEVICE = ("lean", "naive", "ours", "lightning")


def cpu_seconds() -> float:
    """The processor's time of this process and of those that it has started and that have ended."""
    others = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + others.ru_utime + others.ru_stime


def measure(function: Callable[[int], Any], small: int, full: int) -> dict[str, Any]:
    """Wall and CPU microseconds a step: in the whole run, and in the steady state."""

    def run(nb: int) -> tuple[float, float, Any]:
        gc.collect()
        wait()
        wall, cpu = time.perf_counter(), cpu_seconds()
        result = function(nb)
        wait()
        return time.perf_counter() - wall, cpu_seconds() - cpu, result

    if not small or small == full:
        wall, cpu, result = run(full)
        return {**(result or {}), "whole_wall": wall, "whole_cpu": cpu}
    run(max(2, small // 10))  # imports, caches
    few_wall, few_cpu, _ = run(small)
    wall, cpu, _ = run(full)
    scale = 1e6 / (full - small)
    return {
        "wall": (wall - few_wall) * scale,
        "cpu": (cpu - few_cpu) * scale,
        "whole_wall": wall * 1e6 / full,
        "whole_cpu": cpu * 1e6 / full,
    }


MORE = ("fits", "processes")
"""Other files of a contestant: ``lean_fits.py``. They are imported when one of their workloads is run."""


def function_of(contestant: str, workload: str) -> Callable[[int], Any] | None:
    """What runs a workload; None where this contestant doesn't."""
    for name in (contestant, *(f"{contestant}_{more}" for more in MORE)):
        if find_spec(f"benchmarks.contestants.{name}") is not None:
            module = importlib.import_module(f"benchmarks.contestants.{name}")
            if hasattr(module, workload):
                return cast("Callable[[int], Any]", getattr(module, workload))
    return None


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    # what contestants print isn't shown; it's written somewhere all the same
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    warnings.simplefilter("ignore")
    with contextlib.suppress(BrokenPipeError):
        for line in sys.stdin:
            name, small, full = line.split()
            try:
                there = DEVICE.type == "cpu" or (name in ON_DEVICE and sys.argv[1] in CONTESTANTS_ON_DEVICE)
                function = function_of(sys.argv[1], name) if there else None
                answer = {"skipped": ""} if function is None else measure(function, int(small), int(full))
            except Exception as error:
                answer = {"skipped": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
