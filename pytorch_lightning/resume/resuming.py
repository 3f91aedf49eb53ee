"""Which run is resumed, and from which of its saves."""

import contextlib
import copy
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pytorch_lightning.checkpoints.checkpoint import restore_module, upgrade
from pytorch_lightning.checkpoints.folders import is_remote, open_folder
from pytorch_lightning.checkpoints.run_store import FoundRun, RunStore, find_runs, saves_in
from pytorch_lightning.checkpoints.sharded import is_sharded, read_any, read_sharded
from pytorch_lightning.checkpoints.snapshot import changed_tensors
from pytorch_lightning.errors import CheckpointError, LightningError, Notices, Problem, attempt
from pytorch_lightning.launchers.slurm import is_batch_job
from pytorch_lightning.options.config import Config
from pytorch_lightning.processes import Processes
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.run import files
from pytorch_lightning.run.hooks import is_overridden
from pytorch_lightning.strategies import Strategy


@dataclass
class ResumedSave:
    """The save that a fit resumes from."""

    checkpoint: dict[str, Any]
    path: str
    folder: str | None = None
    """The folder of its run, where the fit is that run; None where another run's file was named."""
    version: int | None = None
    store: RunStore | None = None
    """That run's saves, locked; in the first process."""

    in_parts: bool = False
    """Whether each process has read its own part of sharded tensors: it goes into a module that is sharded already."""

    def forget_state(self) -> None:
        """Everything has its state: give back the memory of the file."""
        run = self.checkpoint["parts"].get("run", {})
        self.checkpoint = {"global_step": self.checkpoint["global_step"], "parts": {"run": run}}


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


def has_id(environment: Mapping[str, str]) -> bool:
    """Whether a further start of this job will have the same name, and another job another one.

    For a run on one machine torchrun makes up a UUID, and another one at the next start.

    >>> has_id({"TORCHELASTIC_RUN_ID": "search-7"}), has_id({"TORCHELASTIC_RUN_ID": "none"})
    (True, False)
    >>> made_up = {"TORCHELASTIC_RUN_ID": "1c51eea6-9928-4408-8256-49cddcf36aa9"}
    >>> has_id(made_up), has_id({**made_up, "GROUP_WORLD_SIZE": "2"})
    (False, True)
    """
    run = environment.get("TORCHELASTIC_RUN_ID", "none")
    alone = environment.get("GROUP_WORLD_SIZE", "1") == "1"
    made_up = alone and re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", run)
    return is_batch_job(environment) or not (run == "none" or made_up)


def resuming_option(environment: Mapping[str, str], saves: str | None) -> str:
    """The option with which the next start of the run with these ``saves`` resumes it: another job has another id."""
    return f"resume={str(saves).removesuffix('/checkpoints')!r}" if is_batch_job(environment) else "resume='auto'"


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

    ``resume='auto'`` takes the newest run of the same name that has saves; in a job with an id, of that job. A job
    that was restarted does so by itself, but only with a run of its own. The folder of a run is resumed as it is.
    Raises ``CheckpointError`` for files that can't be trusted.
    """
    processes = strategy.processes
    job = job_of(os.environ)
    # a machine that was lost and came back starts for the first time
    restarted = config.resume is None and any(processes.gather(job is not None and was_restarted(os.environ)))
    named = None if config.resume in (None, "auto") else str(config.resume)
    parts = Parts(strategy) if strategy.reads_shards and not _restores_itself(module) else None
    if named is not None and not saves_in(open_folder(f"{named}/checkpoints").names()):
        in_parts = parts is not None and processes.any(is_sharded(named))
        saved = parts.read(named) if parts and in_parts else read_any(named, maps_weights=True)
        return ResumedSave(upgrade(saved, named), named, in_parts=in_parts)
    if config.fast_dev_run:
        return None
    if config.resume is None and not restarted:
        if processes.is_first:
            _hint(config, module, notices)
        return None
    own = job if restarted or (named is None and has_id(os.environ)) else None
    if processes.is_first:
        found = _found_by_first(processes, parts, partial(_open_newest, config, module, notices, own, named, parts))
        if found is not None:
            found.in_parts = parts is not None and found.path in parts.read_last
        return found
    last = parts.follow() if parts is not None else {}
    place, problem = processes.from_first(None)
    if problem:
        raise CheckpointError(problem)
    if place is None:
        return None
    path, folder, version = place
    parent, name = path.rsplit("/", 1)
    checkpoint = last[path] if path in last else open_folder(parent).read(name)
    return ResumedSave(upgrade(checkpoint, path), path, folder, version, in_parts=path in last)


def _found_by_first(
    processes: Processes, parts: "Parts | None", find: Callable[[], ResumedSave | None]
) -> ResumedSave | None:
    """What ``find`` finds; the others are told the place of it, or why there is none."""
    found, problem = None, None
    try:
        found = find()
    except LightningError as error:
        problem = error
    if parts is not None:
        parts.end()
    place = None if found is None else (found.path, found.folder, found.version)
    processes.from_first((place, "" if problem is None else str(problem)))
    if problem is not None:
        raise problem
    return found


def _restores_itself(module: LightningModule) -> bool:
    """Whether hooks of the user's see the checkpoint, and so all of its tensors."""
    return is_overridden(module, "load_model_specific") or is_overridden(module, "on_load_checkpoint")


class Parts:
    """Reads folders of shards, of which every process takes its own part: the first one chooses, the others follow."""

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        self.read_last: dict[str, dict[str, Any]] = {}
        """What was read last, by its path."""

    def read(self, path: str) -> dict[str, Any]:
        """The save in the folder ``path``. All processes call it."""
        checkpoint = read_sharded(path, processes=self._strategy.processes, shard=self._strategy.shard_of)
        self.read_last = {path: checkpoint}
        return checkpoint

    def choose(self, folder: str, name: str) -> dict[str, Any]:
        """The same of a save of any kind; the first process calls it."""
        path = f"{folder}/{name}"
        if is_remote(folder) or not is_sharded(path):
            return open_folder(folder).read(name)
        self._strategy.processes.from_first(path)
        return self.read(path)

    def end(self) -> None:
        """The first process has chosen."""
        self._strategy.processes.from_first(None)

    def follow(self) -> dict[str, dict[str, Any]]:
        """Take part until the first process has chosen. Returns what was read last, by its path."""
        while (path := self._strategy.processes.from_first(None)) is not None:
            self.read_last = {}
            with contextlib.suppress(CheckpointError):  # the first process has the same, and says so
                self.read(path)
        return self.read_last


def _runs(config: Config, module: LightningModule) -> Iterator[FoundRun]:
    return find_runs(*files.home_of(config, module))


def _open_newest(
    config: Config,
    module: LightningModule,
    notices: Notices,
    job: str | None,
    named: str | None,
    parts: "Parts | None" = None,
) -> ResumedSave | None:
    """The newest run that has saves: of ``job``, or in the folder ``named``, where these are given."""
    for run in _runs(config, module):
        if not run.has_saves or (job is not None and (run.position is None or run.position.job != job)):
            continue
        if named is not None and os.path.abspath(run.folder) != os.path.abspath(named):
            continue
        store = RunStore(f"{run.folder}/checkpoints", config.saves_kept, notices, job_of(os.environ)).open()
        try:
            saved = store.newest(None if parts is None else partial(parts.choose, store.folder))
        except BaseException:
            store.close()
            raise
        if saved is None:
            store.close()
            return None
        path = f"{run.folder}/checkpoints/{saved.name}"
        if named is None:
            _name_own(config, module, run, notices)
        version = None if is_remote(run.folder) else run.version  # rows of a remote run lie on some other machine
        return ResumedSave(saved.checkpoint, path, run.folder, version, store)
    if named is not None:
        raise CheckpointError(
            f"{named} isn't a run of {'/'.join(files.home_of(config, module))}, where this program's runs are."
            " Pass default_save_path or the Experiment as that run had them, or the path of one of its checkpoints."
        )
    if job is not None:
        _hint(config, module, notices)
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
    if run is None or run.position is None or run.position.finished or _is_in_use(run.folder):
        return
    where = f"(epoch {run.position.epoch}, global_step {run.position.step})"
    if not has_id(os.environ) or run.position.job == job_of(os.environ):
        text = f"{run.folder} holds an unfinished run {where}; resume='auto' resumes it"
    else:
        whose = f"another job ({run.position.job})" if run.position.job else "no job"
        text = f"{run.folder} holds an unfinished run {where} of {whose}; resume={run.folder!r} resumes it in this job"
    notices.say("unfinished-run", text)


def _is_in_use(folder: str) -> bool:
    if is_remote(folder):
        return False
    try:
        RunStore(f"{folder}/checkpoints").open(patience=0).close()
    except LightningError:
        return True
    return False


def restore_checked(module: LightningModule, resumed: ResumedSave) -> None:
    """Restore ``module`` through its own hooks. Raises ``CheckpointError`` where they don't bring back all of it."""
    if _restores_itself(module) and "state_dict" in resumed.checkpoint:
        # it may keep these tensors, and the file may be written over by others
        resumed.checkpoint["state_dict"] = copy.deepcopy(resumed.checkpoint["state_dict"])
    restore_module(module, resumed.checkpoint, resumed.path)
    if resumed.in_parts:
        return  # by torch alone, which refuses other names and shapes
    checksums = resumed.checkpoint["parts"].get("checksums")
    changed = [] if checksums is None else changed_tensors(checksums, module.state_dict())
    if changed:
        shown = ", ".join(changed[:5]) + (", ..." if len(changed) > 5 else "")
        raise CheckpointError(
            f"load_model_specific of {type(module).__name__} didn't restore {shown} as saved in {resumed.path}."
            " Save and load them in get_save_dict and load_model_specific, with the model and the precision that"
            " wrote the file"
        )


def place_weights(
    module: LightningModule, resumed: ResumedSave | None, strategy: Strategy, problems: list[Problem]
) -> None:
    """Load the weights that are resumed, and shard them. Hooks load whole weights: they may put new parameters in the
    place of old ones, so optimizers are made later."""
    if resumed is not None and not resumed.in_parts:
        attempt(problems, lambda: restore_checked(module, resumed), keep_type=True)
    attempt(problems, lambda: strategy.shard(module))
    if resumed is not None and resumed.in_parts:
        attempt(problems, lambda: restore_checked(module, resumed), keep_type=True)
