"""Which run is resumed, and from which of its saves."""

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pytorch_lightning.checkpoints.checkpoint import restore_module, upgrade
from pytorch_lightning.checkpoints.folders import is_remote, open_folder
from pytorch_lightning.checkpoints.run_store import FoundRun, RunStore, find_runs
from pytorch_lightning.checkpoints.sharded import read_any
from pytorch_lightning.checkpoints.snapshot import changed_tensors
from pytorch_lightning.errors import CheckpointError, Notices
from pytorch_lightning.launchers.slurm import is_batch_job
from pytorch_lightning.options.config import Config
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.run import files
from pytorch_lightning.strategies import Strategy


class ResumedSave(NamedTuple):
    """The save that a fit resumes from."""

    checkpoint: dict[str, Any]
    path: str
    folder: str | None = None
    """The folder of its run, where the fit is that run; None where another run's file was named."""
    version: int | None = None
    store: RunStore | None = None
    """That run's saves, locked; in the first process."""


def job_of(environment: Mapping[str, str]) -> str | None:
    """The name of the cluster's job, or of torchrun's run, that this process belongs to.

    >>> job_of({"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train"}), job_of({})
    ('slurm 7', None)
    """
    if is_batch_job(environment):
        return f"slurm {environment['SLURM_JOB_ID']}"
    run = environment.get("TORCHELASTIC_RUN_ID")
    # without --rdzv-id it is 'none'; what starts the processes again is still the same
    return None if run is None else f"torchrun {_agent() if run == 'none' else run}"


def _agent() -> str:
    """Names the process that started this one, among all that ever run on this machine."""
    parent = os.getppid()
    with contextlib.suppress(OSError):
        began = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[19]
        return f"{socket.gethostname()} {parent} {began}"
    return f"{socket.gethostname()} {parent}"


def was_restarted(environment: Mapping[str, str]) -> bool:
    """Whether a cluster or torchrun says that this is a further start of the same job.

    >>> was_restarted({"SLURM_RESTART_COUNT": "2"}), was_restarted({"TORCHELASTIC_RESTART_COUNT": "0"})
    (True, False)
    """
    names = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")
    return any(environment.get(name, "0") not in ("", "0") for name in names)


def find_save_to_resume(
    config: Config, module: LightningModule, strategy: Strategy, notices: Notices
) -> ResumedSave | None:
    """The save to resume from; None for a new run. The first process looks, and tells the others.

    ``resume='auto'`` takes the newest run of the same name that has saves. A job that was restarted does so by
    itself, but only with a run of its own. Raises ``CheckpointError`` for files that can't be trusted.
    """
    processes = strategy.processes
    job = job_of(os.environ)
    # a machine that was lost and came back starts for the first time
    restarted = config.resume is None and any(processes.gather(job is not None and was_restarted(os.environ)))
    if config.resume not in (None, "auto"):
        path = str(config.resume)
        return ResumedSave(upgrade(read_any(path), path), path)
    if config.fast_dev_run:
        return None
    if config.resume is None and not restarted:
        if processes.is_first:
            _hint(config, module, notices)
        return None
    found = _open_newest(config, module, notices, job if restarted else None) if processes.is_first else None
    place = processes.from_first(None if found is None else (found.path, found.folder, found.version))
    if found is not None or place is None:
        return found
    path, folder, version = place
    parent, name = path.rsplit("/", 1)
    return ResumedSave(upgrade(open_folder(parent).read(name), path), path, folder, version)


def _runs(config: Config, module: LightningModule) -> Iterator[FoundRun]:
    return find_runs(*files.home_of(config, module))


def _open_newest(config: Config, module: LightningModule, notices: Notices, job: str | None) -> ResumedSave | None:
    for run in _runs(config, module):
        if not run.has_saves or (job is not None and (run.position is None or run.position.job != job)):
            continue
        store = RunStore(f"{run.folder}/checkpoints", notices=notices, job=job_of(os.environ)).open()
        try:
            saved = store.newest()
        except BaseException:
            store.close()
            raise
        if saved is None:
            store.close()
            return None
        path = f"{run.folder}/checkpoints/{saved.name}"
        _name_own(config, module, run, notices)
        version = None if is_remote(run.folder) else run.version  # rows of a remote run lie on some other machine
        return ResumedSave(saved.checkpoint, path, run.folder, version, store)
    return None


def _name_own(config: Config, module: LightningModule, resumed: FoundRun, notices: Notices) -> None:
    """A notice where the Experiment has the version of an unfinished run, and a newer one is resumed."""
    version = getattr(files.experiment_of(config), "version", None)
    if not isinstance(version, int) or version >= resumed.version:
        return
    own = next((run for run in _runs(config, module) if run.version <= version), None)
    if own is not None and own.version == version and own.position is not None and not own.position.finished:
        notices.say(
            "own-run-unfinished",
            f"{resumed.folder} is resumed, as the newest run; {own.folder}, of the Experiment's own version, holds an"
            " unfinished one too: pass the path of its newest checkpoint as resume to resume that",
        )


def _hint(config: Config, module: LightningModule, notices: Notices) -> None:
    run = next((run for run in _runs(config, module) if run.has_saves), None)
    if run is not None and run.position is not None and not run.position.finished:
        notices.say(
            "unfinished-run",
            f"{run.folder} holds an unfinished run (epoch {run.position.epoch}, global_step {run.position.step});"
            " resume='auto' resumes it",
        )


def restore_checked(module: LightningModule, resumed: ResumedSave) -> None:
    """Restore ``module`` through its own hooks. Raises ``CheckpointError`` where they don't bring back all of it."""
    restore_module(module, resumed.checkpoint, resumed.path)
    checksums = resumed.checkpoint["parts"].get("checksums")
    changed = [] if checksums is None else changed_tensors(checksums, module.state_dict())
    if changed:
        shown = ", ".join(changed[:5]) + (", ..." if len(changed) > 5 else "")
        raise CheckpointError(
            f"load_model_specific of {type(module).__name__} didn't restore {shown} as saved in {resumed.path}."
            " Save and load them in get_save_dict and load_model_specific, with the model and the precision that"
            " wrote the file"
        )
