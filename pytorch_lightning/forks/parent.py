"""The run that a fork leaves: its options, the save that the fork begins with, and why it can't be forked."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytorch_lightning.checkpoints.checkpoint import upgrade
from pytorch_lightning.checkpoints.folders import is_remote
from pytorch_lightning.checkpoints.sharded import is_sharded, read_any
from pytorch_lightning.errors import CheckpointError, MisconfigurationException
from pytorch_lightning.options.config import OBJECT_OPTIONS
from pytorch_lightning.options.option_files import NAME, read_values
from pytorch_lightning.trainer.replaying import save_before
from pytorch_lightning.trainer.trainer import option_defaults

LEFT_OUT = ("EarlyStopping", "ModelCheckpoint", "Rewind")
"""Callbacks that a fork goes without: they change no weight before their end."""
WITHOUT_STATE = ("Callback", "ProgressBar", "Profiler", "Watchdog", "StopBefore")
"""Callbacks that only watch."""
LOGS = ("CSVLogger", "TestTubeLogger")
"""Loggers that write a metrics.csv of the one form."""


@dataclass(frozen=True)
class Parent:
    """A run, and its newest save at or before the batch."""

    folder: Path
    options: dict[str, Any]
    path: str
    saved: dict[str, Any]

    @property
    def left_out(self) -> list[str]:
        """The callbacks and loggers that the fork goes without."""
        callbacks = [name for name in kinds_in(self.saved["parts"]["callbacks"], " ") if name in LEFT_OUT]
        return callbacks + [name for name in kinds_in(self.saved["parts"]["loggers"], "_") if name not in LOGS]


def parent_at(run: str, batch: int, parser: argparse.ArgumentParser) -> Parent:
    """The run in the folder ``run``, as it was at ``batch`` or before. Raises a ``LightningError`` where a fork of it
    wouldn't be exact; ``parser.error`` for what isn't right with its options."""
    if is_remote(run) or not os.path.isfile(f"{run}/{NAME}"):
        raise MisconfigurationException(
            f"{run} isn't the folder of a run on this machine: it has no {NAME}. Pass a folder such as"
            " lightning_logs/Model/version_0."
        )
    if batch < 0:
        raise MisconfigurationException(f"there is no batch {batch}. Pass a global_step, from 0 on.")
    folder = Path(run).absolute()
    path = save_before(f"{folder}/checkpoints", batch)
    if is_sharded(path):
        raise MisconfigurationException(f"{run} was trained by several processes. {ALONE}")
    saved = upgrade(read_any(path), path)
    known = [name for name in option_defaults() if name not in OBJECT_OPTIONS and name != "resume"]
    options = {**option_defaults(), **read_values(parser, f"{folder}/{NAME}", known)}
    refuse(saved, options, run)
    # a chain of saves has no place for one that was edited
    return Parent(folder, {**options, "certificate": False}, path, saved)


ALONE = "A fork runs in one process, on the CPU or on one GPU, and isn't exact for such a run."


def refuse(saved: dict[str, Any], options: dict[str, Any], run: str) -> None:
    """Raises where the run can't be repeated from its folder alone."""
    if "parts" not in saved:
        raise CheckpointError(f"the saves of {run} hold weights only.")
    ranks = saved["parts"]["data"].get("virtual_ranks", 1)
    gpus = options["gpus"]
    nb_gpus = len(gpus) if isinstance(gpus, list) else len(str(gpus).split(",")) if isinstance(gpus, str) else gpus or 0
    if isinstance(gpus, (str, list)) and str(gpus) in ("all", "-1", "[-1]"):
        nb_gpus = 2
    several = nb_gpus > 1 or options["nb_processes"] > 1 or options["nb_gpu_nodes"] > 1 or options["data_is_sharded"]
    if several or ranks != (options["virtual_ranks"] or 1):
        raise MisconfigurationException(f"{run} was trained by several processes, or by torchrun. {ALONE}")
    unknown = [n for n in kinds_in(saved["parts"]["callbacks"], " ") if n not in (*LEFT_OUT, *WITHOUT_STATE)]
    if unknown:
        raise MisconfigurationException(
            f"{run} had callbacks that may change what is trained, and a folder holds no objects: {', '.join(unknown)}."
            " Train with Trainer(resume=...) from a save of it instead."
        )


def kinds_in(states: dict[str, Any], end: str) -> list[str]:
    """The names of the classes whose states these are."""
    return list(dict.fromkeys(name.split(end)[0] for name in states if name != "versions"))
