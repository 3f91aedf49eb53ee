"""Where the processes of a run meet: a store of small values that all of them reach."""

import ipaddress
import os
import socket
import subprocess
import time
import uuid
from datetime import timedelta
from typing import Any

from torch import distributed

from pytorch_lightning.errors import MisconfigurationException

dist: Any = distributed  # torch's stubs don't name all that this exports

INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""The variables that say at which network interface a backend listens."""


def stay_on_this_machine(variables: dict[str, str]) -> dict[str, str]:
    """What to add to the environment ``variables`` so that backends listen at the loopback interface: nothing where
    the user has chosen another one.

    Raises ``MisconfigurationException`` if no such interface exists.

    >>> stay_on_this_machine({"GLOO_SOCKET_IFNAME": "eth0", "NCCL_SOCKET_IFNAME": "eth0"})
    {}
    """
    wanted = [name for name in INTERFACES if not variables.get(name)]
    there = {name for _, name in socket.if_nameindex()}
    loopback = next((name for name in ("lo", "lo0") if name in there), None)
    if wanted and loopback is None:
        raise MisconfigurationException(
            f"there is no loopback interface here; received {sorted(there)}. Name the interface by which the processes"
            f" of this machine reach each other: export {wanted[0]}=..."
        )
    return {name: str(loopback) for name in wanted}


def meet(rank: int, nb: int, file: str | None, timeout: timedelta) -> Any:
    """The store of this run's ``nb`` processes, as seen by ``rank``; waits until all are there.

    ``file``, in a folder that nobody else can enter, needs no socket. Without it the store is at ``MASTER_ADDR`` and
    ``MASTER_PORT``, which another program (torchrun's agent) or rank 0 serves.
    """
    if file is not None:
        store = dist.FileStore(file, nb)
    elif rank == 0 and _is_loopback(os.environ["MASTER_ADDR"]) and not _agent_serves():
        store = _serve_here(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), nb, timeout)
    else:
        store, _, _ = next(dist.rendezvous("env://", timeout=timeout))
    store.set_timeout(timeout)
    return _new_corner(store, rank, nb, timeout)


def place_of(file: str | None) -> str:
    """Where the processes meet, for a message."""
    if file is not None:
        return f"{file} (TMPDIR names another folder)"
    return f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"


def name_the_first_host(nb_nodes: int) -> None:
    """srun names no meeting place: the first host of the step, and a port that follows from the job's number."""
    if nb_nodes == 1:
        first = "127.0.0.1"
    else:
        nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ["SLURM_NODELIST"]
        command = ["scontrol", "show", "hostnames", nodes]
        first = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    job, step = int(os.environ["SLURM_JOB_ID"]), int(os.environ["SLURM_STEP_ID"])
    os.environ.setdefault("MASTER_ADDR", first)
    os.environ.setdefault("MASTER_PORT", str(12000 + (job * 31 + step) % 20000))


def _agent_serves() -> bool:
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True)


def _is_loopback(host: str) -> bool:
    """Whether only processes of this machine can reach ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _serve_here(host: str, port: int, nb: int, timeout: timedelta) -> Any:
    """A store that listens at the loopback address ``host`` alone: torch's listens at every interface, whatever
    address it is given (torch 2.14)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family)
    return dist.TCPStore(host, port, nb, is_master=True, timeout=timeout, master_listen_fd=listener.detach())


def _new_corner(store: Any, rank: int, nb: int, timeout: timedelta) -> Any:
    """A part of ``store`` that only the processes know that are there now.

    torchrun keeps its store when it restarts processes, and with it the addresses of those that are gone (torch
    2.14): without this, some would try to reach them.
    """
    mine = uuid.uuid4().hex
    if rank:
        store.set(f"hello/{rank}", mine)
        welcome = store.get(f"welcome/{rank}/{mine}").decode()  # waits for it
        store.set(f"here/{rank}/{welcome}", "")
        return dist.PrefixStore(welcome, store)
    absent, deadline = set(range(1, nb)), time.monotonic() + timeout.total_seconds()
    while absent:
        for other in sorted(absent):
            if store.check([f"hello/{other}"]):  # an older one may be answered too, but not be here
                store.set(f"welcome/{other}/{store.get(f'hello/{other}').decode()}", mine)
            if store.check([f"here/{other}/{mine}"]):
                absent.discard(other)
        if absent and time.monotonic() > deadline:
            raise RuntimeError(f"processes {sorted(absent)} didn't come within {timeout}")
        time.sleep(0.01)
    return dist.PrefixStore(mine, store)
