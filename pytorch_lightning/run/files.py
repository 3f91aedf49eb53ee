"""Where a run's files lie."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.checkpoints.folders import is_remote, open_folder
from pytorch_lightning.checkpoints.run_store import folder_problem, newest_run
from pytorch_lightning.checkpoints.store import remove_leftovers, sync_names
from pytorch_lightning.errors import MisconfigurationException, Notices, Problem, raise_together
from pytorch_lightning.loggers import CSVLogger, Logger, TestTubeLogger
from pytorch_lightning.loggers.csv_logger import make_folder
from pytorch_lightning.loggers.experiment_traps import remove_own_folder, stand_aside, turn_on_again
from pytorch_lightning.loggers.logger import MEDIA, LoggerGroup
from pytorch_lightning.loggers.test_tube_logger import is_experiment
from pytorch_lightning.options.config import Config
from pytorch_lightning.processes import Processes
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.run.run import FitRun


def open_loggers(
    config: Config,
    module: LightningModule,
    run: FitRun,
    hparams: dict[str, Any],
    processes: Processes,
    version: int | None,
    step: int,
    state: dict[str, Any] | None,
) -> LoggerGroup:
    """The loggers of a run, which learn its ``hparams``. Sets ``run.version`` and, for a trial, ``run.scratch``.
    Only the first process has any. ``version`` is that of the run that is resumed, after ``step`` batches, and
    ``state`` what its save holds of them.

    ``experiment`` may be a test-tube Experiment, a Logger, a list of them, None (a folder under
    ``default_save_path``), or False (nothing). A trial (``fast_dev_run``) writes to a temporary folder only.
    """
    notices = run.notices
    if config.fast_dev_run:
        made = tempfile.mkdtemp(prefix="fast_dev_run_") if processes.is_first else None
        run.scratch = Path(processes.from_first(made))
    if not processes.is_first:
        for value, version in zip(_experiments(config), processes.from_first(None), strict=False):
            remove_own_folder(value)
            value.version = version
        return LoggerGroup([], notices)
    for value in _experiments(config) if processes.nb > 1 else ():
        turn_on_again(value)
    chosen: list[Logger] = []
    given = config.experiment
    if given is not False:
        if run.scratch is not None:
            chosen = [CSVLogger(run.scratch, type(module).__name__)]
        elif given is None:
            chosen = _default_logger(config, module, notices, version)
        else:
            each = given if isinstance(given, (list, tuple)) else [given]
            chosen = [TestTubeLogger(value, notices) if is_experiment(value) else value for value in each]
    for logger in chosen:
        if hasattr(logger, "notices"):
            logger.notices = notices
    group = LoggerGroup(chosen, notices)
    for value in _experiments(config):
        vars(value).update({name: partial(group.log_media, name, run.progress) for name in MEDIA})
    if given not in (None, False) and run.scratch is None and version is not None:
        group.resume(version, step, state or {})
    run.version = chosen[0].version if chosen else None
    run.folder = next((logger.folder for logger in chosen if logger.folder is not None), None)
    if state is not None:  # first: one that keeps its rows elsewhere learns by it which run of its own this is
        group.load_state_dict(state)
    group.log_hyperparams(hparams)
    group.save()
    processes.from_first([value.version for value in _experiments(config)])
    return group


def remove_unused(config: Config, run: FitRun) -> None:
    """Remove the folder of a run that ended before its first batch, if it holds nothing but tags."""
    for value in _experiments(config):
        stand_aside(value)
        remove_own_folder(value)
    folder = run.folder if config.experiment is None else None
    if folder is not None and {path.name for path in folder.rglob("*")} <= {
        "meta_tags.csv",
        "options.yaml",
        "run.json",
    }:
        shutil.rmtree(folder)


def leave_to_the_first(config: Config) -> None:
    """In another process than the first: a script's own Experiments are made here too, and must write nothing."""
    for value in _experiments(config):
        stand_aside(value)


def home_of(config: Config, module: LightningModule) -> tuple[str, str]:
    """Under which folder and name the runs of ``module`` lie: ``{folder}/{name}/version_{n}``.

    A run that logs nothing keeps its saves where it would log by default.
    """
    each = config.experiment if isinstance(config.experiment, (list, tuple)) else [config.experiment]
    for value in each:
        experiment = value.experiment if isinstance(value, TestTubeLogger) else value
        if getattr(experiment, "save_dir", None) is not None and not getattr(experiment, "debug", False):
            return str(experiment.save_dir), str(experiment.name)
    return config.default_save_path, type(module).__name__


def folder_for_saves(
    config: Config, module: LightningModule, run: FitRun, resumed_folder: str | None, wanted: bool
) -> str | None:
    """The folder of the rolling saves; None where none are to be kept. ``wanted``: the user asked for them."""
    if run.scratch is not None:
        return None
    if resumed_folder is None and is_remote(config.default_save_path):
        parent = "/".join(home_of(config, module))
        taken = [int(name[8:]) for name in open_folder(parent).names() if name[:8] == "version_" and name[8:].isdigit()]
        return f"{parent}/version_{max(taken, default=-1) + 1}/checkpoints"
    folder = resumed_folder or (None if run.folder is None else str(run.folder))
    if folder is None and wanted:
        home = home_of(config, module)
        folder = os.path.join(*home, f"version_{make_folder(Path(*home))}")
    return None if folder is None else f"{folder}/checkpoints"


def reopen_loggers(config: Config, module: LightningModule, run: FitRun, notices: Notices) -> LoggerGroup:
    """The loggers of a run that other processes logged to."""
    given = config.experiment
    if given is False or run.version is None or config.fast_dev_run:
        return LoggerGroup([], notices)
    if given is None:
        return LoggerGroup([CSVLogger(_local(config.default_save_path), type(module).__name__, run.version)], notices)
    each = given if isinstance(given, (list, tuple)) else [given]
    return LoggerGroup([TestTubeLogger(v, notices) if is_experiment(v) else v for v in each], notices)


def _local(path: str) -> str:
    """Where rows go: saves may lie on other machines, rows are kept here."""
    return "./lightning_logs" if is_remote(path) else path


def folder_of_newest(config: Config, module: LightningModule) -> str:
    """The folder of the saves of the newest run of ``module`` that has any, or of where they would be."""
    run = newest_run(*home_of(config, module))
    return f"{config.default_save_path if run is None else run.folder}/checkpoints"


def _default_logger(config: Config, module: LightningModule, notices: Notices, version: int | None) -> list[Logger]:
    try:
        return [CSVLogger(_local(config.default_save_path), type(module).__name__, version)]
    except OSError as error:
        if config.default_save_path_given:
            raise MisconfigurationException(
                f"default_save_path={config.default_save_path!r} can't be written: {error.strerror}."
                " Choose another folder."
            ) from error
        notices.say(
            "no-files", f"{config.default_save_path} isn't writable ({error.strerror}), so this run writes no files"
        )
        return []


def experiment_of(config: Config) -> Any:
    """The user's test-tube Experiment; None without one, or in a process that doesn't write to it."""
    return next(iter(_experiments(config)), None) if not config.fast_dev_run else None


def _experiments(config: Config) -> list[Any]:
    each: Sequence[Any] = config.experiment if isinstance(config.experiment, (list, tuple)) else [config.experiment]
    bare = [value.experiment if isinstance(value, TestTubeLogger) else value for value in each]
    return [value for value in bare if is_experiment(value)]


def keepers_of(config: Config) -> list[ModelCheckpoint]:
    """The callbacks that write checkpoints."""
    return [c for c in (config.checkpoint_callback, *config.callbacks) if isinstance(c, ModelCheckpoint)]


def agree_on_folders(config: Config, processes: Processes) -> None:
    """A script may name a folder after the version of its Experiment, which is another one in each process."""
    keepers = keepers_of(config)
    for keeper, path in zip(keepers, processes.from_first([k.filepath for k in keepers]), strict=False):
        keeper.filepath = path


def folder_problems(config: Config) -> list[Problem]:
    """Folders that the user named and that can't be written, and files that two callbacks would write."""
    if config.fast_dev_run:
        return []
    keepers = keepers_of(config)
    named = [(f"filepath of {type(keeper).__name__}", keeper.filepath) for keeper in keepers]
    if config.default_save_path_given and config.experiment is None:
        named.append(("default_save_path", config.default_save_path))
    problems = [
        Problem(f"{name} can't be written", f"{path!r}: {reason}", "Choose another folder")
        for name, path in named
        if not is_remote(path) and (reason := why_not_writable(Path(path))) is not None
    ]
    if is_remote(config.default_save_path) and (remote := folder_problem(config.default_save_path)) is not None:
        problems.append(remote)
    files = [
        (os.path.abspath(keeper.filepath), name)
        for keeper in keepers
        for name in (keeper.filename or f"{keeper.prefix}_ckpt", *([keeper.last_name] if keeper.save_last else ()))
    ]
    problems += [
        Problem("two ModelCheckpoints would write the same files", f"the folder {folder!r} twice", "Give each a prefix")
        for folder, prefix in dict.fromkeys(files)
        if files.count((folder, prefix)) > 1
    ]
    return problems


def make_folders(config: Config) -> None:
    """Make the folders of checkpoints, and remove what runs that were killed left in them half written;
    ``MisconfigurationException`` where a folder can't be made after all."""
    for keeper in () if config.fast_dev_run else keepers_of(config):
        try:
            Path(keeper.filepath).mkdir(parents=True, exist_ok=True)
            sync_names(Path(keeper.filepath))
        except OSError as error:
            raise_together(
                [Problem(f"{keeper.filepath!r} can't be made", f"{error.strerror}", "Choose another folder")]
            )
        remove_leftovers(keeper.filepath, keeper.names)


def why_not_writable(folder: Path) -> str | None:
    """Why ``folder`` couldn't be made or written into; None where it could. Makes nothing."""
    folder = folder.absolute()
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not there.is_dir():
        return f"{there} isn't a folder"
    return None if os.access(there, os.W_OK | os.X_OK) else f"no permission to write in {there}"
