"""Programs that need a process of their own, for the memory, the files or the processes that are theirs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def tell(program: str, *words: Any, torchrun: bool = False) -> dict[str, Any]:
    """What ``python -m benchmarks.programs.PROGRAM`` prints at the end: a line of JSON. ``torchrun`` starts two."""
    start = [sys.executable]
    if torchrun:
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [*start, "-m", f"benchmarks.programs.{program}", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise RuntimeError(f"{program} {words}: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found
