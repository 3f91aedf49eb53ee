"""The run that a fork leaves: its options, the save that the fork begins with, and why it can't be forked."""

import argparse
import ast
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytorch_lightning.checkpoints.checkpoint import upgrade
from pytorch_lightning.checkpoints.folders import is_remote, open_folder
from pytorch_lightning.checkpoints.run_store import saves_in, step_of
from pytorch_lightning.checkpoints.sharded import is_sharded, read_any
from pytorch_lightning.errors import CheckpointError, MisconfigurationException
from pytorch_lightning.options.config import OBJECT_OPTIONS
from pytorch_lightning.options.option_files import NAME, read_values
from pytorch_lightning.resume.settings import COMPARED
from pytorch_lightning.run import record
from pytorch_lightning.trainer.replaying import save_before
from pytorch_lightning.trainer.trainer import Trainer, option_defaults

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
    nb_processes: int
    """Those that its options name."""
    only_at_saves: bool
    """Whether one process can't repeat its sums, so that nothing may be trained again."""

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
        raise MisconfigurationException(f"{run} was trained by several processes that saved shards. {ALONE}")
    saved = upgrade(read_any(path), path)
    known = [name for name in option_defaults() if name not in OBJECT_OPTIONS and name != "resume"]
    options = {**option_defaults(), **read_values(parser, f"{folder}/{NAME}", known)}
    refuse(saved, options, run)
    options |= options_then(saved, options)
    if step_of(os.path.basename(path)) != batch:
        refuse_changed(saved, options, folder, batch)
    only_at_saves = why_rounded(saved, options, folder) is not None
    if only_at_saves and step_of(os.path.basename(path)) != batch:
        raise MisconfigurationException(f"{why_rounded(saved, options, folder)}. {at_a_save(folder)}")
    nb = options["nb_processes"]
    # a fork is made in one process; and a chain of saves has no place for one that was edited
    options |= {"nb_processes": 1, "certificate": False}
    options["distributed_backend"] = None if nb > 1 else options["distributed_backend"]
    return Parent(folder, options, path, saved, nb, only_at_saves)


ALONE = "A fork is made in one process, on the CPU or on one GPU, and isn't exact for such a run."
INSTEAD = "Train with Trainer(resume=...) from a save of it instead"


def refuse(saved: dict[str, Any], options: dict[str, Any], run: str) -> None:
    """Raises where the run can't be repeated from its folder alone."""
    if "parts" not in saved:
        raise CheckpointError(f"the saves of {run} hold weights only.")
    ranks = saved["parts"]["data"].get("virtual_ranks", 1)
    gpus = options["gpus"]
    nb_gpus = len(gpus) if isinstance(gpus, list) else len(str(gpus).split(",")) if isinstance(gpus, str) else gpus or 0
    if isinstance(gpus, (str, list)) and str(gpus) in ("all", "-1", "[-1]"):
        nb_gpus = 2
    if nb_gpus > 1 or (ranks > 1 and options["distributed_backend"] in ("fsdp", "dp")):
        raise MisconfigurationException(f"{run} was trained on several devices. {ALONE} {INSTEAD}.")
    if ranks > 1 and options["data_is_sharded"]:
        raise MisconfigurationException(
            f"{run} was trained with data_is_sharded=True, so each process had data of its own, and one has not all of"
            f" them. {INSTEAD}, on {ranks} processes."
        )
    unknown = [n for n in kinds_in(saved["parts"]["callbacks"], " ") if n not in (*LEFT_OUT, *WITHOUT_STATE)]
    if unknown:
        raise MisconfigurationException(
            f"{run} had callbacks that may change what is trained, and a folder holds no objects: {', '.join(unknown)}."
            f" {INSTEAD}."
        )


def options_then(saved: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """The options that numbers depend on, as they were at the save, where a later start of the run had others."""
    config = Trainer(**{**options, "experiment": False, "nb_processes": 1, "distributed_backend": None}).config
    then = options_of(saved)
    changed = {name: then[name] for name in COMPARED if name in then and then[name] != repr(getattr(config, name))}
    return {name: ast.literal_eval(text) for name, text in changed.items()}


def options_of(saved: dict[str, Any]) -> dict[str, str]:
    """Those of the start that wrote ``saved``; but for the edits of a fork, which it has from there on."""
    parts = saved["parts"]
    return {k: v for k, v in parts["settings"]["options"].items() if k not in parts.get("fork", {}).get("options", ())}


def refuse_changed(saved: dict[str, Any], options: dict[str, Any], folder: Path, batch: int) -> None:
    """Raises where the run was resumed with other options between this save and the next one that is kept."""
    names = reversed(saves_in(open_folder(f"{folder}/checkpoints").names()))
    later = next((name for name in names if step_of(name) > saved["global_step"]), None)
    if later is None:
        return
    path = f"{folder}/checkpoints/{later}"
    then, now = options_of(saved), options_of(upgrade(read_any(path), path))
    changed = [
        f"{name} {then[name]} -> {now[name]}" for name in COMPARED if then.get(name) != now.get(name, then.get(name))
    ]
    if changed:
        raise MisconfigurationException(
            f"{folder} was resumed with other options ({', '.join(changed)}) between its saves at"
            f" {saved['global_step']} and {step_of(later)}, and it isn't known where, so batch {batch} can't be reached"
            f" exactly. Pass {saved['global_step']}, or a batch from {step_of(later)} on."
        )


def why_rounded(saved: dict[str, Any], options: dict[str, Any], folder: Path) -> str | None:
    """Why one process sums gradients otherwise than the run did; None where it gives the same bits."""
    ranks = saved["parts"]["data"].get("virtual_ranks", 1)
    # two terms have one sum, and a run that one process trains is repeated as it was
    if ranks <= 2 or options["exact_elastic"]:
        return None
    noted = [start.get("processes", 1) for start in record.starts_in(folder)]
    # only several processes are watched for hanging; a run that began with them has no option of its virtual ranks
    several = max([options["nb_processes"], *noted]) > 1 or options["virtual_ranks"] != ranks
    if not several and "Watchdog" not in kinds_in(saved["parts"]["callbacks"], " "):
        return None
    return f"{folder} was trained on {ranks} virtual ranks by several processes, and one sums their gradients otherwise"


def at_a_save(folder: Path) -> str:
    """What to do where nothing may be trained again."""
    steps = sorted(map(step_of, saves_in(open_folder(f"{folder}/checkpoints").names())))
    return (
        f"Pass a batch that has a save and follows no validation and no end of an epoch: one of"
        f" {', '.join(map(str, steps))}. Runs with exact_elastic=True have no such limit."
    )


def kinds_in(states: dict[str, Any], end: str) -> list[str]:
    """The names of the classes whose states these are."""
    return list(dict.fromkeys(name.split(end)[0] for name in states if name != "versions"))
