"""A user's test-tube Experiment on its way to another process: it can't be pickled."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pytorch_lightning.errors import Notices
from pytorch_lightning.loggers.experiment_traps import mend, read_rows, reopen
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.loggers.test_tube_logger import is_experiment


class SentExperiment(NamedTuple):
    """What an Experiment is made of."""

    options: dict[str, Any]
    metrics: list[dict[str, Any]]
    tags: dict[str, Any]


OPTIONS = ("name", "debug", "version", "save_dir", "autosave", "description", "create_git_tag")


def packed(experiment: Any) -> Any:
    """``experiment`` (anything that ``Trainer(experiment=...)`` takes) in a form that can be pickled."""
    if isinstance(experiment, (list, tuple)):
        return [packed(each) for each in experiment]
    if not is_experiment(experiment):
        return experiment
    if mend(experiment, Notices()) is not None:
        experiment.save()  # it is opened again from its files
    options = {name: getattr(experiment, name) for name in OPTIONS}
    return SentExperiment(options, list(experiment.metrics), dict(experiment.tags))


def unpacked(sent: Any, *, is_first: bool) -> Any:
    """The Experiment again, in the first process; in the others one that writes nothing and knows its name."""
    if isinstance(sent, SentExperiment):
        from test_tube import Experiment

        experiment = Experiment(**{**sent.options, "debug": sent.options["debug"] or not is_first})
        experiment.metrics, experiment.tags = sent.metrics, sent.tags
        return experiment
    if isinstance(sent, list):
        each = [unpacked(each, is_first=is_first) for each in sent]
        return [logger for logger in each if logger is not False] or False
    return sent if is_first else False


def refresh(experiment: Any, version: Any = None, step: int = 0, others: Mapping[str, Any] | None = None) -> None:
    """Bring an Experiment that another process has logged to up to date: its next save writes all that it holds.

    ``version`` is that of the run that was resumed after ``step`` batches, if one was; ``others`` those of the loggers
    that have another one.
    """
    for i, each in enumerate(experiment if isinstance(experiment, (list, tuple)) else [experiment]):
        folder = mend(each, Notices()) if is_experiment(each) else None
        kind = "TestTubeLogger" if is_experiment(each) else type(each).__name__
        own = (others or {}).get(f"{kind}_{i}", version)
        if isinstance(each, Logger) and own is not None and each.version not in (None, own):
            each.resume(own, step)
        if folder is not None and own not in (None, each.version):
            folder = reopen(each, own, step)
        path = None if folder is None else Path(folder, "metrics.csv")
        if path is not None and path.exists():
            each.metrics = read_rows(path)
