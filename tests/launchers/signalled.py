"""Fits that are sent a signal, in processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.faults import warm
from tests.launchers.started import train

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests/launchers/program.py"
SECONDS = 180


def run(folder: Path, **options: Any) -> warm.Ended:
    folder.mkdir(exist_ok=True)
    return warm.run(train, output=folder / "said", folder=str(folder), **options)


def run_script(
    folder: Path, *, launcher: list[str] | None = None, program: str = str(PROGRAM), **options: Any
) -> warm.Ended:
    """The same as a script of its own, whose session must be empty afterwards."""
    folder.mkdir(exist_ok=True)
    words = [*(launcher or [sys.executable]), program]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            [*words, json.dumps({"folder": str(folder), **options})],
            stdout=said,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    try:
        code = process.wait(SECONDS)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert ends(process.pid), f"orphans are left: {session_of(process.pid)}"
    return warm.Ended(code, (folder / "said").read_text())


def ends(session: int, seconds: float = 20) -> bool:
    """Whether no process of ``session`` is left after ``seconds``; python's own resource tracker takes a moment."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not session_of(session):
            return True
        time.sleep(0.02)
    return False


def session_of(pid: int) -> list[int]:
    """The processes that belong to what was started as ``pid`` in a session of its own."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == pid and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def result_of(folder: Path) -> Any:
    return json.loads((folder / "result.json").read_text())


def saves_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("lightning_logs/*/*/checkpoints/*.ckpt"))
