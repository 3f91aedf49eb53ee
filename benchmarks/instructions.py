"""Instructions a step, counted by callgrind: they don't depend on how busy the machine is.

``python -m benchmarks.instructions CONTESTANT WORKLOAD BATCHES`` is what runs under it.
"""

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
FEW, MANY = 20, 120
WORKLOADS = ("W1", "W1list")


def per_step(name: str, workload: str, python: str) -> dict[str, Any]:
    """Instructions of one step of a contestant: what 120 batches take more than 20, divided by 100."""
    if shutil.which("valgrind") is None:
        return {"skipped": "valgrind isn't installed"}
    counts = []
    for nb in (FEW, MANY):
        command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", python]
        done = subprocess.run(
            [*command, "-m", "benchmarks.instructions", name, workload, str(nb)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": "0", "KERAS_BACKEND": "torch"},
        )
        found = re.search(r"Collected : (\d+)", done.stderr)
        if done.returncode or found is None:
            return {"skipped": "\n".join(done.stderr.strip().splitlines()[-1:])}
        counts.append(int(found[1]))
    return {"instructions": (counts[1] - counts[0]) / (MANY - FEW)}


if __name__ == "__main__":
    contestant = importlib.import_module(f"benchmarks.contestants.{sys.argv[1]}")
    getattr(contestant, sys.argv[2])(int(sys.argv[3]))
