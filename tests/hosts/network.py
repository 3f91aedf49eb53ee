"""Several hosts on one machine: network namespaces, each with an address, a name and a file of hosts of its own."""

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

ETC = Path("/etc/netns")


def refusal() -> str | None:
    """Why there can't be such hosts here; None where there can."""
    if os.geteuid():
        return "only root may make network namespaces"
    if shutil.which("ip") is None:
        return "there is no 'ip' program (Debian: iproute2)"
    done = ip("netns", "add", trial := f"try{os.getpid()}", check=False)
    if done.returncode:
        return f"network namespaces can't be made: {done.stderr.strip()}"
    ip("netns", "delete", trial)
    return None


def ip(*arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=check, timeout=30)


class Hosts:
    """``nb`` hosts joined by a bridge, as a context. Their names begin alike, with this process's number."""

    def __init__(self, nb: int) -> None:
        self.prefix = f"h{os.getpid()}"
        self.names = [f"{self.prefix}-{i}" for i in range(nb)]
        self._bridge = f"{self.prefix}-switch"

    def __enter__(self) -> Self:
        try:
            ip("netns", "add", self._bridge)
            ip("-n", self._bridge, "link", "add", "bridge0", "type", "bridge")
            ip("-n", self._bridge, "link", "set", "bridge0", "up")
            table = "127.0.0.1 localhost\n" + "".join(f"10.83.0.{i} {n}\n" for i, n in enumerate(self.names, 1))
            for i, name in enumerate(self.names):
                port = f"port{i}"
                ip("netns", "add", name)
                ip("link", "add", port, "netns", self._bridge, "type", "veth", "peer", "eth0", "netns", name)
                ip("-n", self._bridge, "link", "set", port, "master", "bridge0", "up")
                ip("-n", name, "address", "add", f"10.83.0.{i + 1}/24", "dev", "eth0")
                for device in ("lo", "eth0"):
                    ip("-n", name, "link", "set", device, "up")
                folder = ETC / name
                folder.mkdir(parents=True)
                (folder / "hosts").write_text(table)  # 'ip netns exec' puts it in the place of /etc/hosts
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in (*self.names, self._bridge):
            ip("netns", "delete", name, check=False)
            shutil.rmtree(ETC / name, ignore_errors=True)

    def kill(self, i: int) -> None:
        """Kill every process on host ``i``."""
        while pids := ip("netns", "pids", self.names[i]).stdout.split():
            for pid in map(int, pids):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def start(self, i: int, command: Sequence[str], **options: Any) -> "subprocess.Popen[str]":
        """Start a program on host ``i``."""
        rename = f'hostname {self.names[i]} && exec "$@"'
        inside = ["ip", "netns", "exec", self.names[i], "unshare", "--uts", "sh", "-c", rename, "sh", *command]
        return subprocess.Popen(inside, text=True, start_new_session=True, **options)
