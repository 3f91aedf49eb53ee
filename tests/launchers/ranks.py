"""The processes of a script, as torchrun would start them, without waiting for torch to be imported by each."""

import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.faults import warm

ROOT = Path(__file__).parents[2]
SECONDS = 200.0
GRACE = 10.0
"""Seconds that the other processes have to end by themselves once one has failed, as torchrun's are sent SIGTERM."""


def in_ranks(folder: Path, code: str, nb: int = 2, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` as a script in ``nb`` processes with torchrun's environment. 0 where all ended well. All that they
    said is in ``stderr``, and who was killed by which signal."""
    (folder / "program.py").write_text(code)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    said = [folder / f".said_{rank}" for rank in range(nb)]
    running = []
    for rank, output in enumerate(said):
        its = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(nb), "LOCAL_WORLD_SIZE": str(nb)}
        both = {"GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RESTART_COUNT": "0"}
        running.append(warm.started(_run, str(folder), {**its, **both, **variables}, output=output))
    deadline = time.monotonic() + SECONDS
    try:
        while any(process.exitcode is None for process in running):
            if any(process.exitcode for process in running):
                deadline = min(deadline, time.monotonic() + GRACE)
            assert time.monotonic() < deadline + GRACE, "still running: " + "".join(map(Path.read_text, said))
            if time.monotonic() > deadline:
                _each(running, signal.SIGTERM)
            running[0].join(0.02) if running[0].exitcode is None else time.sleep(0.02)
    finally:
        _each(running, signal.SIGKILL)
    codes = [process.exitcode for process in running]
    ends = "".join(f"\nended by {signal.Signals(-code).name}" for code in codes if code < 0)
    return subprocess.CompletedProcess(["program.py"], int(any(codes)), "", "".join(map(Path.read_text, said)) + ends)


def _each(running: list[Any], number: int) -> None:
    for process in running:
        if process.exitcode is None and process.pid is not None:
            os.kill(process.pid, number)


def _run(folder: str, variables: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.update(variables)
    sys.path[:0] = [*variables.get("PYTHONPATH", "").split(os.pathsep), folder, str(ROOT)]
    sys.argv = ["program.py"]
    runpy.run_path("program.py", run_name="__main__")
