"""Instructions a step, or an epoch, counted by callgrind: they don't depend on how busy the machine is.

``python -m benchmarks.instructions CONTESTANT WORKLOAD`` is what runs under it.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.worker import function_of

ROOT = Path(__file__).parent.parent
STEPS, EPOCHS = (300, 400), (10, 40)
"""A few batches and more of them. A list of fewer than 256 is looked through before a fit, which isn't of a step."""
WORKLOADS = {"W1": STEPS, "W1list": STEPS, "EPOCHS": EPOCHS}


def per_step(name: str, workload: str, python: str) -> dict[str, Any]:
    """Instructions of a step, or an epoch, of a contestant: what more of them take, by how many more they are."""
    if shutil.which("valgrind") is None or shutil.which("callgrind_control") is None:
        return {"skipped": "valgrind isn't installed"}
    with tempfile.TemporaryDirectory() as folder:
        # nothing is counted, and little time lost, until the contestant is about to run
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/out", python]
        done = subprocess.run(
            [*command, "-m", "benchmarks.instructions", name, workload],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": "0", "KERAS_BACKEND": "torch"},
        )
        if done.returncode:
            return {"skipped": "\n".join(done.stderr.strip().splitlines()[-1:])}
        of_few, of_more = (total(Path(folder, f"out.{number}")) for number in (1, 2))
    few, more = WORKLOADS[workload]
    return {"instructions": (of_more - of_few) / (more - few)}


def total(dump: Path) -> int:
    """The instructions that a dump of callgrind holds."""
    found = re.search(r"^totals: (\d+)", dump.read_text(), re.MULTILINE)
    assert found is not None, dump
    return int(found[1])


def control(*options: str) -> None:
    """Tell callgrind, under which this process runs, to zero, begin, end or write its count."""
    subprocess.run(["callgrind_control", *options, str(os.getpid())], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    run: Any = function_of(sys.argv[1], sys.argv[2])
    run(WORKLOADS[sys.argv[2]][0])  # what is loaded and chosen once
    for nb in WORKLOADS[sys.argv[2]]:
        control("-z")
        control("-i", "on")
        run(nb)
        control("-i", "off")
        control("-d")
