"""Processes started from outside: by torchrun, by srun, or as a plain script."""

import atexit
import datetime
import gc
import importlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TextIO, cast

from torch import distributed

from pytorch_lightning.errors import MisconfigurationException, ProcessError, noting
from pytorch_lightning.launchers.signals import Stopped
from pytorch_lightning.processes import Processes, before_leaving

dist: Any = distributed  # torch's stubs don't name all that this exports

MEETING_FILE = "PYTORCH_LIGHTNING_RENDEZVOUS"
"""The variable that names a file in the place of ``MASTER_ADDR`` and ``MASTER_PORT``."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What the environment says of this process."""

    launcher: str
    rank: int
    nb: int
    local_rank: int
    nb_local: int
    node_rank: int
    nb_nodes: int = 1
    meeting_file: str | None = None
    """The file by which the processes meet; without it they do at ``MASTER_ADDR`` and ``MASTER_PORT``."""


def read_environment(variables: Mapping[str, str]) -> Environment | None:
    """The place of this process among those that were started together; None where it was started alone.

    >>> read_environment({}) is None
    True
    """
    file = variables.get(MEETING_FILE)
    if {"RANK", "WORLD_SIZE"} <= set(variables) and (file or {"MASTER_ADDR", "MASTER_PORT"} <= set(variables)):
        rank, nb = int(variables["RANK"]), int(variables["WORLD_SIZE"])
        nb_local = int(variables.get("LOCAL_WORLD_SIZE", nb))
        return Environment(
            launcher="another Trainer" if file else "torchrun",
            rank=rank,
            nb=nb,
            local_rank=int(variables.get("LOCAL_RANK", rank % nb_local)),
            nb_local=nb_local,
            node_rank=int(variables.get("GROUP_RANK", rank // nb_local)),
            nb_nodes=nb // nb_local,
            meeting_file=file,
        )
    if "SLURM_STEP_ID" in variables and int(variables.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        nb = int(variables["SLURM_STEP_NUM_TASKS"])
        nb_nodes = int(variables.get("SLURM_STEP_NUM_NODES", "1"))
        return Environment(
            launcher="srun",
            rank=int(variables["SLURM_PROCID"]),
            nb=nb,
            local_rank=int(variables["SLURM_LOCALID"]),
            nb_local=nb // nb_nodes,
            node_rank=int(variables["SLURM_NODEID"]),
            nb_nodes=nb_nodes,
        )
    return None


def join(environment: Environment, backend: str, timeout_minutes: float) -> Processes:
    """Meet the other processes. May be called again. Every wait ends after ``timeout_minutes``."""
    from pytorch_lightning.launchers import rendezvous

    timeout = datetime.timedelta(minutes=timeout_minutes)
    if not dist.is_initialized():
        if environment.launcher == "srun":
            rendezvous.name_the_first_host(environment.nb_nodes)
            os.environ.update(RANK=str(environment.rank), WORLD_SIZE=str(environment.nb))
        try:
            # its functions keep the default group that there is when they are defined, to the end and with its threads
            importlib.import_module("torch.distributed.nn.functional")
            rank, nb = environment.rank, environment.nb
            excepthook, store = sys.excepthook, rendezvous.meet(rank, nb, environment.meeting_file, timeout)
            own = dist.PrefixStore("default_pg", store)
            dist.init_process_group(backend, store=own, rank=rank, world_size=nb, timeout=timeout)
            sys.excepthook = excepthook  # torch's would put the rank in front a second time
        except (dist.DistNetworkError, dist.DistStoreError, RuntimeError, OSError) as error:
            raise MisconfigurationException(
                f"process {environment.rank} of {environment.nb} can't meet the others at"
                f" {rendezvous.place_of(environment.meeting_file)}: {error}. Check that every process reaches this"
                " place, and that all processes were started"
            ) from error
        if rank == 0:
            store.set("secret", os.urandom(32).hex())
        _shared.update(store=store, secret=store.get("secret"))
        if backend == "gloo":
            _check_peers(None)
        if environment.rank and not isinstance(sys.stdout, Prefixed):
            prefix = f"[rank {environment.rank}] "
            sys.stdout = cast("TextIO", Prefixed(sys.stdout, prefix))
            sys.stderr = cast("TextIO", Prefixed(sys.stderr, prefix))
        atexit.register(leave)
    group = None
    if dist.get_backend() != "gloo":
        group = _shared.get("objects")
        if group is None:
            group = _shared["objects"] = dist.new_group(backend="gloo", timeout=timeout)
            _check_peers(group)
    return Processes(
        rank=dist.get_rank(),
        nb=dist.get_world_size(),
        local_rank=environment.local_rank,
        node_rank=environment.node_rank,
        group=group,
        backend=str(dist.get_backend()),
        timeout=timeout,
        secret=_shared.get("secret"),
    )


_shared: dict[str, Any] = {}
"""What this process has of the others: the ``store`` where they met, the ``secret`` that they know by it, the
group for ``objects``, and whether it has ``left`` them where they didn't."""
_FAILED = "pytorch_lightning/failed"


def _check_peers(group: Any) -> None:
    """Raise ``ProcessError`` unless everybody in ``group``, which is a new one, came by the store."""
    if "secret" not in _shared:  # a user's own code made the processes meet
        return
    from pytorch_lightning.messages.transport import prove

    try:
        prove(group, _shared["secret"])
    except ProcessError:
        dist.destroy_process_group()  # or a later fit would use it
        raise


@contextmanager
def leaving_together() -> Iterator[None]:
    """A scope that processes leave together. One whose program ends in it won't wait for the others."""
    _shared["left"] = False
    try:
        yield
    except SystemExit as end:
        _shared["left"] = not isinstance(end, Stopped)
        raise


def leave() -> None:
    """Part from the other processes: whoever still works isn't cut off by one that is done."""
    if not dist.is_initialized():
        return
    failed = getattr(sys, "last_value", None) is not None or sys.exc_info()[0] is not None
    if failed or _shared.get("left"):
        with suppress(dist.DistError, RuntimeError):  # the process that held the store may be gone already
            _shared["store"].set(_FAILED, str(dist.get_rank()))
    else:
        with noting("at its end a process waits for the others, and one of them didn't come there"):
            dist.barrier(group=_shared.get("objects"))
    for let_go in before_leaving:
        let_go()
    _shared.clear()
    dist.destroy_process_group()
    gc.collect()


def another_failed() -> bool:
    """Whether another process has said that it failed, or the one where all met is gone."""
    store = _shared.get("store")
    try:
        return store is not None and bool(store.check([_FAILED]))
    except (dist.DistError, RuntimeError):
        return True


def is_loss_of_another(error: BaseException) -> bool:
    """Whether ``error`` says that another process is gone or doesn't answer."""
    if not isinstance(error, (RuntimeError, ConnectionError)):
        return False
    says_so = re.search("gloo|NCCL|onnection (closed|reset)|pair closure", str(error)) is not None
    return says_so or isinstance(error, dist.DistError)


class Prefixed:
    """A text stream whose every line begins with the process's rank. Each line is written as a whole, so that those
    of several processes don't mix; what has no end yet waits for ``flush``."""

    def __init__(self, stream: Any, prefix: str) -> None:
        self._stream, self._prefix, self._waiting, self._at_start = stream, prefix, "", True

    def write(self, text: str) -> int:
        """Take ``text``, and write the lines that are complete: those of a bar end with a carriage return."""
        *complete, self._waiting = re.split("(?<=[\\n\\r])", self._waiting + text)
        if complete:
            self._stream.write("".join(map(self._begin, complete)))
            self._stream.flush()
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Take each of ``lines``."""
        self.write("".join(lines))

    def flush(self) -> None:
        """Write the unfinished last line too."""
        waiting, self._waiting = self._waiting, ""
        if waiting:
            self._stream.write(self._begin(waiting))
        self._stream.flush()

    def _begin(self, line: str) -> str:
        prefix = self._prefix if self._at_start and line not in "\n\r" else ""
        self._at_start = line[-1:] in ("\n", "\r")
        return prefix + line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
