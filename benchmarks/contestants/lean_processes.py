"""Shortest scripts in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks import workloads as w


def under_torchrun(*words: str) -> str:
    """The last word of what two processes of a script print."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*torchrun, *words], check=True, capture_output=True, env=environment, text=True)
    return done.stdout.split()[-1]


def DDP2(nb: int, name: str = "DDP2") -> dict[str, float]:
    """Microseconds a step, from a tenth of the batches to the end of training."""
    return {"value": float(under_torchrun(str(Path(w.__file__).with_name("ddp_lean.py")), name, str(nb)))}


def DDPS(nb: int) -> dict[str, float]:
    return DDP2(nb, "DDPS")
