"""Shortest scripts in processes of their own."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import workloads as w
from benchmarks.contestants import lean
from benchmarks.programs import tell

LEAST = 22
"""Steps in which CK sees two saves."""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


def under_torchrun(*words: str) -> str:
    """The last word of what two processes of a script print."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*TORCHRUN, *words], check=True, capture_output=True, env=environment, text=True)
    return done.stdout.split()[-1]


def DDP2(nb: int, name: str = "DDP2") -> dict[str, float]:
    """Microseconds a step, from a tenth of the batches to the end of training."""
    return {"value": float(under_torchrun(str(Path(w.__file__).with_name("ddp_lean.py")), name, str(nb)))}


def DDPS(nb: int) -> dict[str, float]:
    return DDP2(nb, "DDPS")


def BIG(nb: int, name: str = "lean") -> dict[str, float]:
    """Seconds to the fifth step, and MB, for a twentieth of ``nb`` and for a thousandth: ``nb`` is too many."""
    found = {}
    for prefix, part in (("million_", 1000), ("", 20)):
        with tempfile.TemporaryDirectory() as folder:
            told = tell("big", name, max(nb // part, 20_000), folder)
        found |= {prefix + ("value" if not prefix and key == "seconds" else key): told[key] for key in told}
    return found


def CK(nb: int) -> dict[str, float]:
    """Milliseconds that the loop stands still for a durable save, and the memory that it takes."""
    stalled = lean.stalled(max(nb, LEAST))
    with tempfile.TemporaryDirectory() as folder:
        return {**stalled, **tell("save_memory", "lean", folder)}


def RESTORE(nb: int, name: str = "lean") -> dict[str, float]:
    """Seconds of a restore alone, and with the first step, which reads what was only mapped; private memory."""
    with tempfile.TemporaryDirectory() as folder:
        new, resumed = (tell("restore", name, folder, how) for how in ("new", "resumed"))
    value = resumed["first"] - new["first"]
    return {"value": value, "with_step": resumed["second"] - new["first"], "memory": resumed["memory"]}


def FSDP2R(nb: int) -> dict[str, float]:
    """Bytes that a resume reads, for each of a process's own shards."""
    with tempfile.TemporaryDirectory() as folder:
        new, resumed = (tell("shards", "lean", folder, how, torchrun=True) for how in ("new", "resumed"))
    return {"value": (resumed["read"] - new["read"]) / new["own"]}


def COLL(nb: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        return tell("collectives", "lean", folder, torchrun=True)


def START2(nb: int) -> dict[str, float]:
    """Seconds from the start of torchrun to the end of the first step."""
    return until_written(TORCHRUN, "lean")


def until_written(start: list[str], name: str) -> dict[str, Any]:
    """Seconds from the start of a script until it has written the time into its file."""
    script = str(Path(w.__file__).parent / "programs" / "two_start.py")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "time")
        begun = time.perf_counter()
        command = [*start, script, name, str(path)]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        return {"value": float(path.read_text()) - begun}
