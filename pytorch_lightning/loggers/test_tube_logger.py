"""Rows to a user's test-tube Experiment, at a flat cost."""

from pathlib import Path
from typing import Any

from pytorch_lightning.errors import Notices
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.loggers.metrics_file import lines, read_columns, write_tags

# test-tube takes a scalar under a key with one of these in it for an image and fails in every later save()
IMAGE_MARKS = {"png_": "png-", "jpeg": "jp-eg", "jpg": "jp-g"}


class TestTubeLogger(Logger):
    """Logs through a test-tube ``Experiment`` that stays the user's: its own ``log`` and ``save`` may be mixed in.

    ``Experiment.save()`` writes the whole of metrics.csv each time. Here the rows that aren't in the file yet are
    appended to it, in the same layout; only a new column, or the end of a fit, makes it write everything.
    """

    __test__ = False  # not a test class, whatever its name begins with

    def __init__(self, experiment: Any, notices: Notices | None = None) -> None:
        self.experiment = experiment
        self._notices = notices or Notices()
        self._folder = folder_of(experiment)
        self._nb_in_file = 0
        self._columns: list[str] = []
        self._mark: tuple[int, int] | None = None

    @property
    def folder(self) -> Path | None:
        return self._folder

    @property
    def version(self) -> int | str | None:
        return self.experiment.version  # type: ignore[no-any-return]

    def log_hyperparams(self, hparams: dict[str, Any]) -> None:
        if self._folder is None:
            return
        missing = {key: value for key, value in hparams.items() if key not in self.experiment.tags}
        if missing:
            self.experiment.tag(missing)
        self._save_all()

    def log_metrics(self, metrics: dict[str, float | int], step: int) -> None:
        if self._folder is None:
            return
        row = {self._safe(key): float(value) if isinstance(value, float) else value for key, value in metrics.items()}
        row.pop("created_at", None)
        self.experiment.log(row, global_step=step)

    def save(self) -> None:
        if self._folder is None:
            return
        rows = self.experiment.metrics
        path = self._folder / "metrics.csv"
        if self._mark != _mark_of(path):  # the user's own save(), or autosave, wrote it
            self._columns = read_columns(path)
            self._nb_in_file = self._count_rows(path)
        waiting = rows[self._nb_in_file :]
        columns = set(self._columns)
        if not waiting:
            return
        if self._nb_in_file and all(columns.issuperset(row) for row in waiting) and _plain(waiting):
            with open(path, "a") as file:
                file.write(lines(waiting, self._columns))
            self._nb_in_file = len(rows)
            self._mark = _mark_of(path)
            self.experiment.flush()
        else:
            self._save_all()

    def close(self) -> None:
        self._save_all()

    def _save_all(self) -> None:
        """The experiment's own save, in its own folder even where another Experiment was made since."""
        if self._folder is None:
            return
        with own_root(self.experiment):
            self.experiment.save()
        if self.experiment.debug:
            self._notices.say(
                "experiment-silent",
                f"the test-tube experiment {self.experiment.name!r} can't write its folder {self._folder}"
                " and logs nothing any more",
            )
            self._folder = None
            return
        # pandas makes floats of whole numbers that share a column with floats
        write_tags(self._folder / "meta_tags.csv", self.experiment.tags)
        path = self._folder / "metrics.csv"
        self._columns, self._nb_in_file = read_columns(path), len(self.experiment.metrics)
        self._mark = _mark_of(path)

    def _count_rows(self, path: Path) -> int:
        import csv

        try:
            with open(path, newline="") as file:
                return max(0, sum(1 for row in csv.reader(file) if row) - 1)
        except FileNotFoundError:
            return 0

    def _safe(self, key: str) -> str:
        safe = "created_at_" if key == "created_at" else key
        for mark, instead in IMAGE_MARKS.items():
            safe = safe.replace(mark, instead)
        if safe != key:
            self._notices.say(
                "renamed-metric", f"{key!r} is logged as {safe!r}: test-tube has its own meaning for that name"
            )
        return safe


def folder_of(experiment: Any) -> Path | None:
    """The folder of an Experiment; None where it writes nothing.

    Its own paths follow whichever Experiment was made last, so this is computed from its ``save_dir``.
    """
    if experiment.debug:
        return None
    if experiment.save_dir is None:
        return Path(experiment.get_data_path(experiment.name, experiment.version))
    return Path(experiment.save_dir, experiment.name, f"version_{experiment.version}")


def _plain(rows: list[dict[str, Any]]) -> bool:
    return all(isinstance(value, (int, float, str, type(None))) for row in rows for value in row.values())


def _mark_of(path: Path) -> tuple[int, int] | None:
    """What changes when somebody writes the file anew."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size


class own_root:
    """A scope in which test-tube's module-wide folder is that of one experiment."""

    def __init__(self, experiment: Any) -> None:
        self._root = experiment.save_dir

    def __enter__(self) -> None:
        import sys

        module: Any = sys.modules["test_tube.log"]
        self._module, self._before = module, module._ROOT
        if self._root is not None:
            self._module._ROOT = self._root

    def __exit__(self, *_: object) -> None:
        self._module._ROOT = self._before


def is_experiment(value: Any) -> bool:
    """Whether ``value`` is a test-tube Experiment; told without importing test-tube."""
    return any(base.__module__ == "test_tube.log" and base.__name__ == "Experiment" for base in type(value).__mro__)
