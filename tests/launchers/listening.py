"""At which addresses processes take connections, as Linux lists them."""

import contextlib
import ipaddress
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.launchers.signalled import ROOT, session_of

LISTENS = "0A"
"""The state of such a socket in the tables of TCP."""
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def listening(pids: Iterable[int]) -> set[Address]:
    """The addresses at which ``pids`` take connections by TCP, or packets by UDP."""
    found: set[Address] = set()
    for pid in pids:
        with contextlib.suppress(FileNotFoundError):  # it has ended meanwhile
            own = set()
            for path in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    own.add(os.readlink(path))
            for table in ("tcp", "tcp6", "udp", "udp6"):
                for row in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                    _, local, _, state, *_, inode = row.split()[:10]
                    if f"socket:[{inode}]" in own and (state == LISTENS or table.startswith("udp")):
                        found.add(_address(local.partition(":")[0]))
    return found


def _address(text: str) -> Address:
    """The address that the kernel shows as ``text``: words of 32 bits in the machine's own order.

    >>> _address("0100007F")
    IPv4Address('127.0.0.1')
    """
    return ipaddress.ip_address(b"".join(struct.pack("=I", int(text[i : i + 8], 16)) for i in range(0, len(text), 8)))


WAITING = """
import os, sys, time
from pathlib import Path
from tests.launchers.nets import Net, trainer

class Waiting(Net):
    def on_fit_start(self):
        file = os.environ.get("PYTORCH_LIGHTNING_RENDEZVOUS")
        mode = oct(os.stat(os.path.dirname(file)).st_mode & 0o777) if file else ""
        Path(f"meets_{os.environ['RANK']}").write_text(mode)
    def training_step(self, data_batch, batch_nb):
        Path(f"waits_{os.environ['RANK']}").write_text(str(os.getpid()))
        while not Path("seen").exists():
            time.sleep(0.01)
        return super().training_step(data_batch, batch_nb)

def main(backend="ddp", nb="2"):
    os.umask(0)
    run = trainer("logs", distributed_backend=backend, nb_processes=int(nb), save_every_nb_batches=1)
    assert run.fit(Waiting()) == 1

if __name__ == "__main__":
    main(*sys.argv[1:])
"""
"""A fit that waits in its first steps until it was looked at."""


def look_at_waiting(folder: Path, nb: int, pids: Callable[[], Iterable[int]], seconds: float = 180) -> set[Address]:
    """Where ``pids()`` listen once ``nb`` processes that run the program wait in ``folder``; then these go on."""
    deadline = time.monotonic() + seconds
    while len([path for path in folder.glob("waits_*") if path.read_text()]) < nb:
        assert time.monotonic() < deadline, "it didn't come to its first step"
        time.sleep(0.02)
    found = listening(pids())
    (folder / "seen").touch()
    return found


def look_at(program: "subprocess.Popen[Any]", folder: Path, nb: int, seconds: float = 180) -> set[Address]:
    """Where the ``nb`` processes of ``program``, a session of its own, listen in their first step; then it runs to
    its end."""
    try:
        found = look_at_waiting(folder, nb, lambda: session_of(program.pid), seconds)
        assert program.wait(seconds) == 0
    finally:
        for pid in session_of(program.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
    return found


def start(folder: Path, *words: str, **variables: str) -> "subprocess.Popen[bytes]":
    """Start the program, in a session of its own; ``-`` gives it on stdin, as code without a file."""
    (folder / "waiting.py").write_text(WAITING)
    command = [sys.executable, *(words if words[:1] == ("-",) else ("waiting.py", *words))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
    with (folder / "waiting.py").open() as code:
        return subprocess.Popen(command, stdin=code, env=environment, cwd=folder, start_new_session=True)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
