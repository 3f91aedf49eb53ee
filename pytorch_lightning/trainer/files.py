"""Where a run's files lie."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from pytorch_lightning.checkpoints.checkpoint import plain_hparams
from pytorch_lightning.errors import MisconfigurationException, Notices, describe
from pytorch_lightning.loggers import CSVLogger, Logger, TestTubeLogger
from pytorch_lightning.loggers.logger import LoggerGroup
from pytorch_lightning.loggers.test_tube_logger import is_experiment
from pytorch_lightning.processes import Processes
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.trainer.config import Config
from pytorch_lightning.trainer.run import FitRun


def open_loggers(
    config: Config, module: LightningModule, run: FitRun, notices: Notices, processes: Processes
) -> LoggerGroup:
    """The loggers of a run, which learn its hyperparameters. Sets ``run.version`` and, for a trial, ``run.scratch``.
    Only the first process has any.

    ``experiment`` may be a test-tube Experiment, a Logger, a list of them, None (a folder under
    ``default_save_path``), or False (nothing). A trial (``fast_dev_run``) writes to a temporary folder only.
    """
    if config.fast_dev_run:
        made = tempfile.mkdtemp(prefix="fast_dev_run_") if processes.is_first else None
        run.scratch = Path(processes.from_first(made))
    if not processes.is_first:
        return LoggerGroup([], notices)
    chosen: list[Logger] = []
    given = config.experiment
    if given is not False:
        if run.scratch is not None:
            chosen = [CSVLogger(run.scratch, type(module).__name__)]
        elif given is None:
            chosen = _default_logger(config, module, notices)
        else:
            each = given if isinstance(given, (list, tuple)) else [given]
            chosen = [_as_logger(value, notices) for value in each]
    run.version = chosen[0].version if chosen else None
    group = LoggerGroup(chosen, notices)
    group.log_hyperparams(plain_hparams(module.hparams))
    group.save()
    return group


def reopen_loggers(config: Config, module: LightningModule, run: FitRun, notices: Notices) -> LoggerGroup:
    """The loggers of a run that other processes logged to."""
    given = config.experiment
    if given is False or run.version is None or config.fast_dev_run:
        return LoggerGroup([], notices)
    if given is None:
        return LoggerGroup([CSVLogger(config.default_save_path, type(module).__name__, run.version)], notices)
    each = given if isinstance(given, (list, tuple)) else [given]
    return LoggerGroup([_as_logger(value, notices) for value in each], notices)


def _default_logger(config: Config, module: LightningModule, notices: Notices) -> list[Logger]:
    try:
        return [CSVLogger(config.default_save_path, type(module).__name__)]
    except OSError as error:
        if config.default_save_path_given:
            raise MisconfigurationException(
                f"default_save_path={config.default_save_path!r} can't be written: {error.strerror}."
                " Choose another folder."
            ) from error
        notices.say(
            "no-files", f"{config.default_save_path} can't be written ({error.strerror}): no files are kept of this run"
        )
        return []


def _as_logger(value: object, notices: Notices) -> Logger:
    if isinstance(value, Logger):
        return value
    if is_experiment(value):
        return TestTubeLogger(value, notices)
    raise MisconfigurationException(
        "experiment must be a test-tube Experiment, a Logger, a list of them, None or False;"
        f" received {describe(value)}."
    )


def experiment_of(config: Config) -> object:
    """The user's test-tube Experiment; None where there is none, or none is to be written to."""
    each: Sequence[object] = config.experiment if isinstance(config.experiment, (list, tuple)) else [config.experiment]
    return next((value for value in each if is_experiment(value)), None) if not config.fast_dev_run else None
