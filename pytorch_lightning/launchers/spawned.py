"""Processes that a Trainer in a plain script or in a notebook starts itself, on this machine."""

import ast
import os
import pickle
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import distributed, multiprocessing

from pytorch_lightning.errors import LightningError, MisconfigurationException, ProcessError
from pytorch_lightning.launchers import signals
from pytorch_lightning.launchers.environment import leave

# torch's stubs don't name all that these export
dist: Any = distributed
mp: Any = multiprocessing

GUARD = 'if __name__ == "__main__":'


def run_in_processes(
    entry: Callable[[str], Any], job: dict[str, Any], nb: int, started: list[Any] | None = None
) -> Any:
    """What ``entry(path of the pickled job)`` returns in the first of ``nb`` new processes.

    ``started`` is filled with them: they expect signals, which wait while they begin, and KeyboardInterrupt here kills
    them. They see the environment that torchrun would give them. Raises the error of the process that failed first,
    once the others have ended. Raises ``MisconfigurationException`` where a script can't be started a second time.
    """
    notebook = "ipykernel" in sys.modules and not hasattr(sys.modules["__main__"], "__file__")
    if notebook and torch.accelerator.is_available():
        raise MisconfigurationException(
            "several processes can't be started from a notebook that uses an accelerator: what the notebook defines"
            " can't be sent to them. Put the model in a file and run it as a script, or with torchrun."
        )
    if not notebook:
        check_guard(sys._getframe(1))
    with tempfile.TemporaryDirectory(prefix="processes_") as folder:
        job_path = os.path.join(folder, "job")
        try:
            torch.save(job, job_path)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise MisconfigurationException(
                f"the model or a callback can't be sent to another process: {error}. Keep functions at the top level"
                " of a file (no lambda), and open files and connections in on_fit_start; or start the script with"
                " torchrun, which sends nothing."
            ) from error
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        settings = (entry, job_path, folder, nb, store.port, list(sys.argv), started is not None)
        # a notebook's classes exist in its own process only, so that is copied
        method = "fork" if notebook else "spawn"
        with signals.held(() if started is None else signals.ALL):
            context = mp.start_processes(_run_child, settings, nprocs=nb, join=False, start_method=method)
            assert context is not None
            if started is not None:
                started.extend(context.processes)
        _wait_for(context, folder, kills=started is not None)
        return torch.load(os.path.join(folder, "result"), weights_only=False)  # written by our own process


def _run_child(
    local_rank: int, entry: Any, job: str, folder: str, nb: int, port: int, argv: list[str], expects_signals: bool
) -> None:
    if expects_signals:
        signals.begin_child()
    threads = os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // nb)))
    torch.set_num_threads(int(threads))
    sys.argv = argv
    os.environ.update(
        RANK=str(local_rank),
        WORLD_SIZE=str(nb),
        LOCAL_RANK=str(local_rank),
        LOCAL_WORLD_SIZE=str(nb),
        GROUP_RANK="0",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        # the parent holds the store, so that no port has to be guessed
        TORCHELASTIC_USE_AGENT_STORE="True",
        TORCHELASTIC_RESTART_COUNT="0",
    )
    try:
        result = entry(job)
    except LightningError as error:
        Path(folder, f"error_{local_rank}").write_bytes(pickle.dumps((type(error), str(error))))
        raise
    if local_rank == 0:
        torch.save(result, os.path.join(folder, "result"))
    leave()


def _wait_for(context: Any, folder: str, kills: bool) -> None:
    try:
        while True:
            try:
                if context.join(timeout=5, grace_period=5):
                    return
            except KeyboardInterrupt:
                if kills:
                    for process in context.processes:
                        process.kill()
                    raise
                continue  # the processes got it too: they end by themselves
    except (mp.ProcessRaisedException, mp.ProcessExitedException) as error:
        told = [Path(path) for path in context.error_files if path and os.path.exists(path)]
        first = min(told, key=lambda path: path.stat().st_mtime, default=None)
        if first is None:
            raise ProcessError(f"{error} It left no traceback: was it killed, for want of memory perhaps?") from None
        rank = [str(path) for path in context.error_files].index(str(first))
        own = Path(folder, f"error_{rank}")
        if own.exists():
            kind, text = pickle.loads(own.read_bytes())
            raise kind(text) from None
        trace = pickle.loads(first.read_bytes())
        raise ProcessError(f"process {rank} raised an exception:\n\n{trace}") from None


def check_guard(frame: FrameType | None) -> None:
    """Raises ``MisconfigurationException`` where the script's own code on the stack isn't under a ``__main__`` guard.

    Each new process imports the script first; without the guard it would start the fit again.
    """
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == "__main__":
            path, line = frame.f_code.co_filename, frame.f_lineno
            if os.path.isfile(path) and not is_guarded(Path(path).read_text(), line):
                raise MisconfigurationException(
                    f"{path}, line {line}, starts several processes, and each of them imports this file first: it"
                    f" would start them again. Put the lines that run under a guard:\n\n{GUARD}\n    main()\n\n"
                    "or start the script with torchrun."
                )
        frame = frame.f_back


def is_guarded(source: str, line: int) -> bool:
    """Whether ``line`` (from 1) of ``source`` lies under ``if __name__ == "__main__":``.

    >>> is_guarded('main()', 1), is_guarded('if __name__ == "__main__":\\n    main()', 2)
    (False, True)
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test) and "__main__" in ast.unparse(node.test):
            end = node.body[-1].end_lineno or node.body[-1].lineno
            if node.body[0].lineno <= line <= end:
                return True
    return False
