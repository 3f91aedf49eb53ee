"""Processes that a Trainer in a plain script or in a notebook starts itself, on this machine."""

import ast
import atexit
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch

from pytorch_lightning.errors import MisconfigurationException, Notices, ProcessError
from pytorch_lightning.launchers import signals
from pytorch_lightning.launchers.environment import MEETING_FILE, leave
from pytorch_lightning.launchers.failures import error_of, read_failure, write_failure
from pytorch_lightning.launchers.job import write_job
from pytorch_lightning.launchers.rendezvous import stay_on_this_machine

GUARD = 'if __name__ == "__main__":'
GRACE = 3.0
"""Seconds that the other processes have to end by themselves once one has failed."""
ONE_FOR_EVER = 0
ONE_THREAD = (
    "torch.set_num_threads({nb}) has no effect: these processes are copies of a notebook, or of code that isn't in a"
    " file, and a copy that uses several threads may stop for ever. Each process has one thread. A script that is"
    " started from a file may have more."
)


def run_in_processes(entry: Callable[[str], Any], job: dict[str, Any], nb: int) -> Any:
    """What ``entry(path of the pickled job)`` returns in the first of ``nb`` new processes.

    They see the environment that torchrun would give them. Raises what the process raised that failed first, once the
    others have ended, and ``KeyboardInterrupt`` at the second Ctrl-C; the first is theirs to deal with. Raises
    ``MisconfigurationException`` where a script can't be started a second time.
    """
    method = start_method()
    if method == "spawn":
        check_guard(sys._getframe(1))
    with tempfile.TemporaryDirectory(prefix="processes_") as folder:
        job_path = os.path.join(folder, "job")
        try:
            write_job(job, job_path)
        except (pickle.PicklingError, AttributeError, TypeError, RuntimeError) as error:
            raise MisconfigurationException(
                f"the model or a callback can't be sent to another process: {error}. Keep functions and classes at the"
                " top level of a file (no lambda), and open files and connections in on_fit_start; or start the"
                " script with torchrun, which sends nothing."
            ) from error
        context: Any = multiprocessing.get_context(method)
        nb_threads = ONE_FOR_EVER if method == "fork" else max(1, (os.cpu_count() or 1) // nb)
        settings = (entry, job_path, folder, nb, stay_on_this_machine(dict(os.environ)), list(sys.argv), nb_threads)
        processes = [context.Process(target=_run_child, args=(rank, *settings)) for rank in range(nb)]
        _supervise(processes, Path(folder))
        result = os.path.join(folder, "result")
        # pickled, as the job is: in a folder that no other user can enter, by a process that runs this program's code
        return torch.load(result, weights_only=False, map_location="cpu")


def start_method() -> str:
    """How new processes get at what this one has defined: 'spawn' where they can import the script, 'fork' where
    there is none: in a notebook, or where the code came by ``python -c`` or a pipe."""
    main = sys.modules["__main__"]
    if os.path.isfile(getattr(main, "__file__", None) or "") or getattr(main, "__spec__", None) is not None:
        return "spawn"
    if torch.accelerator.is_available() or "fork" not in multiprocessing.get_all_start_methods():
        raise MisconfigurationException(
            "several processes can't be started from a notebook, or from code that isn't in a file, on a machine with"
            " an accelerator: what was defined there can't be sent to them. Put the model in a file and run it as a"
            " script, or with torchrun."
        )
    return "fork"


def _run_child(
    local_rank: int,
    entry: Any,
    job: str,
    folder: str,
    nb: int,
    interfaces: dict[str, str],
    argv: list[str],
    nb_threads: int,
) -> None:
    """The whole life of a new process."""
    try:
        os.setpgid(0, 0)  # so that a signal to the group reaches it through its parent alone, once
        signals.begin_child()
        threading.Thread(target=_end_with_parent, daemon=True).start()
        if nb_threads == ONE_FOR_EVER:
            keep_one_thread(Notices() if local_rank == 0 else None)
        else:
            torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", str(nb_threads))))
        sys.argv = argv
        os.environ.update(
            RANK=str(local_rank),
            WORLD_SIZE=str(nb),
            LOCAL_RANK=str(local_rank),
            LOCAL_WORLD_SIZE=str(nb),
            GROUP_RANK="0",
            TORCHELASTIC_RESTART_COUNT="0",
            **{MEETING_FILE: os.path.join(folder, "rendezvous")},
            **interfaces,
        )
        result = entry(job)
        if local_rank == 0:
            torch.save(result, os.path.join(folder, "result"))
        leave()
        Path(folder, f"done_{local_rank}").touch()
        atexit.register(_end_at_once)
    except BaseException as error:  # whatever it is, the parent raises it
        sys.stdout.flush()
        write_failure(error, Path(folder, f"failure_{local_rank}"))
        sys.stderr.flush()
        os._exit(1)  # at once: a clean end could wait for the others


def _end_at_once() -> None:
    """Of what a process does at its end, all that anybody asked for, and then nothing more: for a second or longer the
    interpreter would take torch apart, and whoever called ``fit`` waits for that."""
    atexit.unregister(_end_at_once)
    try:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(0)


def keep_one_thread(notices: Notices | None) -> None:
    """One thread for torch, in a process that is a copy: those of its parent weren't copied, and to use them would
    wait for ever. What asks for more is told so once."""
    set_to = torch.set_num_threads

    def keep(nthreads: int) -> None:
        set_to(1)
        if nthreads > 1 and notices is not None:
            notices.say("one-thread", ONE_THREAD.format(nb=nthreads))

    torch.set_num_threads = keep
    set_to(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os.killpg(0, signal.SIGKILL)  # with the workers of loaders


def _supervise(processes: Sequence[Any], folder: Path) -> None:
    """Start ``processes`` and come back when all have ended well. Raises the error of the first that doesn't."""
    killed: set[int] = set()

    def has_failed() -> bool:
        each = enumerate(processes)
        return any(p.exitcode is not None and not _is_done(folder, rank, p.exitcode) for rank, p in each)

    def kill_all() -> None:
        for rank, process in enumerate(processes):
            if process.pid is not None and process.exitcode is None:
                killed.add(rank)
                _signal(process, signal.SIGKILL)

    try:
        with _passing_on_interrupts(processes, kill_all) as received:
            for process in processes:
                process.start()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.ALL)
            deadline = None
            while running := [p.sentinel for p in processes if p.exitcode is None]:
                # after ``running``: who isn't in it any more is waited for no longer, so what it did must be known
                if deadline is None and has_failed():
                    deadline = time.monotonic() + GRACE
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                if left == 0.0:
                    kill_all()
                connection.wait(running, 1.0 if left == 0.0 else left)
        if received.count(signal.SIGINT) > 1:
            raise KeyboardInterrupt
        if has_failed():
            _raise_first([p.exitcode for p in processes], folder, killed)
    finally:
        kill_all()
        for process in processes:
            if process.pid is not None:
                process.join()


def _raise_first(exit_codes: Sequence[int], folder: Path, killed: set[int]) -> NoReturn:
    """Raise what the process said that began it all; the others only lost it."""
    nb = len(exit_codes)
    paths = {rank: folder / f"failure_{rank}" for rank in range(nb)}
    told = {rank: read_failure(path) for rank, path in paths.items() if path.exists()}
    ended = [rank for rank in range(nb) if rank not in killed and not _is_done(folder, rank, exit_codes[rank])]
    silent = [rank for rank in ended if rank not in told]
    if silent and all(failure.is_consequence for failure in told.values()):
        code = exit_codes[silent[0]]
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"left with exit code {code}"
        hint = " The machine may have run out of memory." if code == -signal.SIGKILL else ""
        raise ProcessError(f"process {silent[0]} of {nb} {how}.{hint}")
    rank, failure = min(told.items(), key=lambda item: item[1][:2])
    raise error_of(failure, rank, nb)


def _is_done(folder: Path, rank: int, exit_code: int) -> bool:
    """Whether a process that has ended came to its end; its exit code alone doesn't say so."""
    return exit_code == 0 and (folder / f"done_{rank}").exists()


@contextmanager
def _passing_on_interrupts(processes: Sequence[Any], end_all: Callable[[], None]) -> Iterator[list[int]]:
    """A scope in which signals go to every process, and the second Ctrl-C ends them all. Gives the list of those
    received. Processes that are started in it don't get one before they are ready."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def pass_on(number: int, frame: Any) -> None:
        received.append(number)
        if received.count(signal.SIGINT) > 1:
            end_all()
            return
        for process in processes:
            if process.pid is not None and process.exitcode is None:
                os.kill(process.pid, number)

    before = {number: signal.signal(number, pass_on) for number in signals.ALL}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals.ALL)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.ALL)


def _signal(process: Any, number: int) -> None:
    """Send a signal to a process and to all that it started."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:  # it hasn't come so far as to have a group
        process.kill()


def check_guard(frame: FrameType | None) -> None:
    """Raises ``MisconfigurationException`` where a file on the stack is being run or imported without a ``__main__``
    guard.

    Each new process imports the script first, and what the model's class needs; without the guard it would start the
    fit again.
    """
    while frame is not None:
        path, line = frame.f_code.co_filename, frame.f_lineno
        if frame.f_code.co_name == "<module>" and os.path.isfile(path):
            is_main = frame.f_globals.get("__name__") == "__main__"
            if not (is_main and is_guarded(Path(path).read_text(), line)):
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
