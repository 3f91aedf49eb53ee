"""``run.json`` in a run's folder: when its fits began and ended, in which process, and how.

It is written when a fit begins and when it ends. A process that is killed writes nothing: whether it still runs is
seen by its number, the time at which it began, the machine, and the start of that.
"""

import json
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.version import __version__

NAME = "run.json"
FORK = "fork"
"""The entry of a run that is a fork: its parent, the batch at which it left it, and what was edited there."""
MOST_BYTES = 2**23
"""Of a file that is read: one of 10,000 starts is smaller."""


def this_process() -> dict[str, Any]:
    """What tells this process from all others."""
    pid = os.getpid()
    return {"pid": pid, "born": _born(pid), "host": platform.node(), "boot": _text("/proc/sys/kernel/random/boot_id")}


def versions() -> dict[str, Any]:
    """What a start runs with: the versions, the platform, and the git commit of the program."""
    import torch

    return {
        "pytorch_lightning": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "commit": _commit(),
    }


def _commit() -> str | None:
    """The git commit of the program, or of the folder that it runs in, read from git's files; None without one."""
    program = getattr(sys.modules.get("__main__"), "__file__", None)
    start = Path(program).absolute() if program else Path.cwd() / "-"
    git = next((folder / ".git" for folder in start.parents if (folder / ".git").exists()), None)
    if git is None:
        return None
    if git.is_file():  # a worktree or a submodule
        git = git.parent / _text(git).removeprefix("gitdir: ")
    head, common = _text(git / "HEAD"), git / _text(git / "commondir")
    name = head.removeprefix("ref: ")
    packed = (line.split(" ") for line in _text(common / "packed-refs").splitlines() if line.endswith(f" {name}"))
    return (head if name == head else _text(common / name) or next(packed, [""])[0]) or None


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text().strip()
    except (OSError, ValueError):  # another system than Linux, or another's file
        return ""


def _born(pid: int) -> str:
    """When a process began, in ticks after the machine's start; empty where that isn't told, or it is dead."""
    words = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return "" if len(words) < 20 or words[0] in "ZX" else words[19]


def is_running(start: Mapping[str, Any]) -> bool | None:
    """Whether the process of ``start`` still runs; None where it isn't one of this machine."""
    here = this_process()
    if start.get("host") != here["host"]:
        return None
    pid = start.get("pid")
    if start.get("boot") != here["boot"] or type(pid) is not int or pid <= 0:
        return False
    if start.get("born"):
        return bool(_born(pid) == start["born"])
    try:
        os.kill(pid, 0)  # only asks
        return True
    except OSError as error:
        return isinstance(error, PermissionError)


def write(folder: Path, values: Mapping[str, Any]) -> None:
    """Write the record of the run in ``folder``, by a rename."""
    from pytorch_lightning.loggers.metrics_file import replace_file

    replace_file(folder / NAME, json.dumps({"library": "", **values} | {"library": __version__}, indent=1) + "\n")


def read(folder: Path) -> dict[str, Any]:
    """The record of the run in ``folder``; empty without one, or where it isn't one."""
    try:
        path = folder / NAME
        is_whole = path.is_file() and path.stat().st_size <= MOST_BYTES
        found = json.loads(path.read_text(encoding="utf-8")) if is_whole else None
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def starts_in(folder: Path) -> list[dict[str, Any]]:
    """The fits of the run in ``folder``, in order."""
    return starts_of(read(folder))


def starts_of(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The fits of a run with this record, in order."""
    starts = found.get("starts")
    return [start for start in starts if isinstance(start, dict)] if isinstance(starts, list) else []


def parent_of(folder: Path, found: Mapping[str, Any]) -> Path | None:
    """The folder of the run that the one in ``folder``, with this record, is a fork of; None where it isn't one."""
    parent = fork_in(found).get("parent")
    return Path(os.path.normpath(folder / parent)) if isinstance(parent, str) else None


def fork_in(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says of a fork; empty where the run isn't one."""
    fork = found.get(FORK)
    return fork if isinstance(fork, dict) else {}


def fork_line(folder: Path, found: Mapping[str, Any]) -> str | None:
    """A fork in one line: of which run, from which batch on, and what was edited."""
    parent, fork = parent_of(folder, found), fork_in(found)
    if parent is None:
        return None
    edits, skipped = fork.get("set"), fork.get("skip_batches")
    words = [f"{name}={value}" for name, value in edits.items()] if isinstance(edits, dict) else []
    words += [f"without {text}" for text in skipped] if isinstance(skipped, list) else []
    return f"{parent} at batch {fork.get('batch')}" + (f": {', '.join(words)}" if words else "")
