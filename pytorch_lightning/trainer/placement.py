"""Where a run takes place: on which devices, in which processes, and who starts them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from pytorch_lightning.callbacks.callback import Callback
from pytorch_lightning.callbacks.watchdog import Watchdog
from pytorch_lightning.errors import MisconfigurationException, Notices, Problem, attempt
from pytorch_lightning.launchers.environment import (
    Environment,
    another_failed,
    join,
    leaving_together,
    read_environment,
)
from pytorch_lightning.options.config import Config
from pytorch_lightning.printing import tell
from pytorch_lightning.processes import ALONE, Processes, Share, share_of
from pytorch_lightning.strategies import Strategy, build_strategy, strategy_of
from pytorch_lightning.strategies.devices import choose_devices


def nb_to_start(config: Config) -> int:
    """How many processes a Trainer has to start for this run: 0 where it runs in this one.

    Raises ``MisconfigurationException`` for several machines that nobody started processes on.
    """
    if read_environment(os.environ) is not None:
        return 0
    if config.nb_gpu_nodes > 1:
        raise MisconfigurationException(
            f"nb_gpu_nodes={config.nb_gpu_nodes}, and a script can only start processes on its own machine. Start it on"
            f" each: torchrun --nnodes={config.nb_gpu_nodes} --nproc-per-node=N --rdzv-backend=c10d"
            " --rdzv-endpoint=FIRST_HOST:29500 script.py, or srun --nodes=... --ntasks-per-node=N python script.py."
        )
    devices, _ = _devices(config, [])
    nb = config.nb_processes if devices[0].type == "cpu" else len(devices)
    return nb if nb > 1 and strategy_of(backend_of(config, devices)).several_processes else 0


@contextmanager
def watched(processes: Processes, config: Config) -> Iterator[tuple[Callback, ...]]:
    """A scope in which this process is watched for hanging, by the callbacks that it gives, if others wait for it."""
    if processes.nb == 1:
        yield ()
        return
    watchdog = Watchdog(processes.rank, 60 * config.process_timeout_minutes, another_failed)
    with leaving_together(), watchdog:
        yield (watchdog,)


def choose_strategy(config: Config, notices: Notices, problems: list[Problem]) -> Strategy:
    """The strategy of this run, attached to this process and its device; meets the other processes.

    GPUs that aren't there become one of the ``problems`` that are raised together later.
    """
    environment = read_environment(os.environ)
    devices, line = _devices(config, problems)
    if line:
        notices.say("no-gpu", line)
    backend = backend_of(config, devices)
    processes, device = ALONE, devices[0]
    if environment is not None and environment.nb > 1:
        _check_environment(config, environment, devices)
        backend = "ddp" if config.distributed_backend is None else backend
        device = devices[environment.local_rank % len(devices)]
        shows = config.progress_bar or config.print_weights_summary
        if shows and environment.rank == 0 and environment.meeting_file is None:
            tell(f"meeting the other processes, {environment.nb} in all")  # a sign of life: that may take a while
        processes = join(environment, _carrier(device), config.process_timeout_minutes)
        if device.type != "cpu":
            torch.accelerator.set_device_index(device.index or 0)
        notices.quiet = not processes.is_first
    elif config.distributed_backend is None and strategy_of(backend).several_devices:
        notices.say("dp", f"{len(devices)} GPUs in one process, as 'dp'; distributed_backend='ddp' is faster")
    strategy = build_strategy(backend)
    strategy.attach(device, processes, devices)
    return strategy


def _devices(config: Config, problems: list[Problem]) -> tuple[list[torch.device], str | None]:
    return attempt(problems, lambda: choose_devices(config.gpus)) or ([torch.device("cpu")], None)


def backend_of(config: Config, devices: list[torch.device]) -> Any:
    """What ``distributed_backend`` means here: without one, several GPUs are 'dp' and several processes 'ddp'."""
    if config.distributed_backend is not None:
        return config.distributed_backend
    if len(devices) > 1:
        return "dp"
    return "ddp" if config.nb_processes > 1 else None


def _check_environment(config: Config, environment: Environment, devices: list[torch.device]) -> None:
    started = f"{environment.launcher} started {environment.nb_local} processes on this machine"
    if config.nb_processes not in (1, environment.nb_local):
        raise MisconfigurationException(f"{started}, and nb_processes={config.nb_processes}. Leave nb_processes out.")
    strategy = strategy_of(config.distributed_backend)
    if strategy.several_devices:
        raise MisconfigurationException(
            f"{started}, and distributed_backend={strategy.name!r} is one process. Use 'ddp'."
        )
    if devices[0].type != "cpu" and environment.nb_local > len(devices):
        raise MisconfigurationException(
            f"{started}, and gpus={config.gpus!r} names {len(devices)} GPUs. Start one process per GPU."
        )


def _carrier(device: torch.device) -> str:
    if device.type == "cpu":
        return "gloo"
    return "nccl" if device.type == "cuda" else str(torch.distributed.get_default_backend_for_device(device))


def plan_share(config: Config, saved: dict[str, Any] | None, processes: Processes) -> Share:
    """Which virtual ranks this process runs: of as many as the run began with.

    Raises ``MisconfigurationException`` where they can't be dealt out evenly.
    """
    before = None if saved is None else saved["parts"]["data"].get("virtual_ranks", 1)
    if config.data_is_sharded:
        return _own_share(config, before, processes)
    nb_virtual = before or config.virtual_ranks or processes.nb
    if config.virtual_ranks not in (None, nb_virtual):
        raise MisconfigurationException(
            f"virtual_ranks={config.virtual_ranks}, and the run that is resumed has {nb_virtual}. Leave it out."
        )
    if nb_virtual % processes.nb:
        allowed = " or ".join(str(n) for n in range(1, nb_virtual + 1) if nb_virtual % n == 0)
        raise MisconfigurationException(
            f"{processes.nb} processes can't share {nb_virtual} virtual ranks evenly. Start {allowed} processes"
            + (", or pass another virtual_ranks." if before is None else ", as this run began with so many.")
        )
    return replace(share_of(nb_virtual, processes), whole=config.uneven_batches == "drop")


def _own_share(config: Config, before: int | None, processes: Processes) -> Share:
    """Each process's loader is its own share, so there are as many virtual ranks as processes."""
    nb = processes.nb
    if before not in (None, nb):
        raise MisconfigurationException(
            f"with data_is_sharded=True each process has its own share of the data, so the run, which began on {before}"
            f" processes, can't be resumed on {nb}. Start {before} processes."
        )
    if config.virtual_ranks not in (None, nb):
        raise MisconfigurationException(
            f"virtual_ranks={config.virtual_ranks}, and with data_is_sharded=True there are as many as processes, {nb}."
            " Leave virtual_ranks out."
        )
    return Share(nb, range(processes.rank, processes.rank + 1), own=True, whole=config.uneven_batches == "drop")
