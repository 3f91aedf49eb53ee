"""``import pytorch_lightning`` runs nothing but its own modules: no connection, no process, nothing is changed."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning

PACKAGE = Path(pytorch_lightning.__file__).parent

WATCHER = '''
import json
import os
import random
import signal
import sys
import threading
import warnings
from pathlib import Path

import numpy
import torch

FORBIDDEN = (
    "socket.", "subprocess.", "urllib.", "http.", "ftplib.", "smtplib.", "webbrowser.", "pty.", "os.system", "os.exec",
    "os.spawn", "os.posix_spawn", "os.fork", "os.startfile", "os.putenv", "os.unsetenv", "os.remove", "os.rename",
    "os.mkdir", "os.rmdir", "os.chmod", "os.chdir", "shutil.", "tempfile.",
)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
watching, seen = False, []


def forbid(event, arguments):
    """Raise where python is about to do what an import may not; and keep it, for one who catches that."""
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES
    if watching and (event.startswith(FORBIDDEN) or writes):
        seen.append(event)
        raise PermissionError(f"{event} {arguments}")


def state():
    """What an import could change, or leave running; also beneath python's own calls."""
    found = {
        "environment": dict(os.environ), "folder": os.getcwd(), "path": sys.path[:], "finders": sys.meta_path[:],
        "excepthook": sys.excepthook, "warnings": warnings.filters[:], "threads": threading.enumerate(),
        "signals": [signal.getsignal(number) for number in signal.valid_signals()],
        "python": random.getstate(), "numpy": str(numpy.random.get_state()), "torch": torch.get_rng_state().tolist(),
        "dtype": torch.get_default_dtype(), "nb_threads": torch.get_num_threads(),
    }
    tasks = Path("/proc/self/task")
    if tasks.exists():
        found["native threads"] = sorted(path.name for path in tasks.iterdir())
        found["children"] = [path.read_text() for path in sorted(tasks.glob("*/children"))]
        links = [os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        found["sockets"] = sorted(link for link in links if link.startswith("socket:"))
    return found


sys.addaudithook(forbid)
first, *programs = json.load(sys.stdin)
exec(first)
for program in programs:
    before, loaded, error = state(), set(sys.modules), None
    seen.clear()
    watching = True
    try:
        exec(program, {})
    except PermissionError as raised:
        error = str(raised)
    watching = False
    changed = [name for name, value in state().items() if value != before[name]]
    own = sys.stdlib_module_names | {"pytorch_lightning", "torch"}
    others = sorted({name.partition(".")[0] for name in set(sys.modules) - loaded} - own)
    print(json.dumps({"seen": seen, "error": error, "changed": changed, "others": others}))
'''
"""Runs programs, one after the other, with all forbidden that an import may not do. Says of each what it tried, what it
changed, and what it loaded that is neither python's nor torch's nor this package's."""

HARMLESS = {"seen": [], "error": None, "changed": [], "others": []}


def watch(*programs: str, folder: Path, first: str = "") -> list[dict[str, Any]]:
    """What ``programs`` did, after ``first``, which may do anything."""
    command = [sys.executable, "-B", "-c", WATCHER]
    done = subprocess.run(command, input=json.dumps([first, *programs]), capture_output=True, text=True, cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def torch_imports(path: Path) -> list[str]:
    """The imports of torch, and of the converter's libcst, at the top of a file."""
    found = [node for node in ast.parse(path.read_text()).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    return [line for line in map(ast.unparse, found) if line.split()[1].split(".")[0] in ("torch", "libcst")]


def test_the_import_connects_to_nothing_starts_nothing_and_changes_nothing(tmp_path: Path) -> None:
    program = f"from pytorch_lightning import {', '.join(pytorch_lightning.__all__)}"
    assert watch(program, folder=tmp_path) == [HARMLESS]
    assert not list(tmp_path.iterdir())


def test_no_module_of_the_package_does(tmp_path: Path) -> None:
    """And none loads test-tube, torchvision or tensorboard before it is used."""
    files = sorted(path for path in PACKAGE.rglob("*.py") if PACKAGE / "templates" not in path.parents)
    names = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in files]
    assert len(names) > 50
    torch = {line for path in files for line in torch_imports(path)}  # what these do is torch's
    programs = [f"import {name.removesuffix('.__init__')}" for name in names]
    done = watch(*programs, folder=tmp_path, first="\n".join(sorted(torch)))
    assert {name: what for name, what in zip(names, done, strict=True) if what != HARMLESS} == {}
    assert not list(tmp_path.iterdir())


def test_the_watch_sees_what_it_forbids(tmp_path: Path) -> None:
    seen = {
        "import socket; socket.socket()": "socket.__new__",
        "import socket; socket.getaddrinfo('localhost', 80)": "socket.getaddrinfo",
        "import subprocess; subprocess.run(['true'])": "subprocess.Popen",
        "import os; os.system('true')": "os.system",
        "import os; os.fork()": "os.fork",
        "open('written', 'w')": "open",
        "try:\n    open('written', 'w')\nexcept OSError:\n    pass": "open",
        "import os; os.environ['NAME'] = 'x'": "os.putenv",
    }
    changed = {
        "import random; random.random()": "python",
        "import torch; torch.rand(1)": "torch",
        "import warnings; warnings.simplefilter('ignore')": "warnings",
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)": "signals",
        "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()": "threads",
    }
    if Path("/proc/self/task").exists():
        changed |= {"import ctypes; ctypes.CDLL(None).socket(1, 1, 0)": "sockets"}  # unseen by python
    done = watch(*seen, *changed, "import pluggy", folder=tmp_path)
    assert [what["seen"] for what in done[: len(seen)]] == [[event] for event in seen.values()]
    for what, name in zip(done[len(seen) : -1], changed.values(), strict=True):
        assert name in what["changed"]
    assert done[-1]["others"] == ["pluggy"]
    assert not list(tmp_path.iterdir())
