"""Programs that a test may kill, without waiting for torch to be imported each time."""

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

_context = multiprocessing.get_context("forkserver")
# a child is forked from a process that imported this and nothing of ours; the second is what torch.optim imports late
_context.set_forkserver_preload(["torch", "torch._dynamo", "torchvision.transforms", "test_tube"])


class Ended(NamedTuple):
    code: int | None
    """0, 1 after an exception, or minus the signal."""
    said: str
    """What it wrote on stdout and stderr."""


def started(target: Callable[..., None], *args: Any, output: Path, fault: str = "", **kwargs: Any) -> Any:
    """A process that runs ``target``, which must import what it uses of the package by itself, under ``FAULT``."""
    process = _context.Process(target=_run, args=(target, args, kwargs, str(output), fault))
    process.start()
    return process


def run(target: Callable[..., None], *args: Any, output: Path, fault: str = "", **kwargs: Any) -> Ended:
    """The same, to its end."""
    process = started(target, *args, output=output, fault=fault, **kwargs)
    process.join(120)
    assert process.exitcode is not None, f"still running: {output.read_text()}"
    return Ended(process.exitcode, output.read_text())


def _run(target: Callable[..., None], args: Any, kwargs: Any, output: str, fault: str) -> None:
    handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for stream in (1, 2):
        os.dup2(handle, stream)
    # what preloading may have bound to other descriptors
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", 1, closefd=False) for stream in (1, 2))
    with contextlib.suppress(KeyError):
        del os.environ["FAULT"]
    if fault:
        os.environ["FAULT"] = fault
    multiprocessing.set_start_method("fork", force=True)  # for loader workers, as in a program of a user's
    assert not any(name.startswith("pytorch_lightning") for name in sys.modules)
    import torch

    torch.set_num_threads(1)
    target(*args, **kwargs)
