"""Rows to a user's test-tube Experiment, at a flat cost."""

import contextlib
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytorch_lightning.errors import Notices
from pytorch_lightning.loggers.event_files import cut_events, event_sizes
from pytorch_lightning.loggers.experiment_traps import mend, read_rows, reopen, say_silent
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.loggers.metrics_file import append_text, lines, read_columns, replace_file, write_tags


class TestTubeLogger(Logger):
    """Logs through ``experiment``, a test-tube one that stays the user's: its own ``log`` and ``save`` may be mixed in.

    ``Experiment.save()`` writes the whole of metrics.csv each time. Here the rows that aren't in the file yet are
    appended to it, in the same layout; only a new column, or the end of a fit, makes it write everything. ``notices``
    prints what goes wrong, by default on stderr.

    >>> import tempfile
    >>> from test_tube import Experiment
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     logger = TestTubeLogger(Experiment(folder, name="digits"))  # what Trainer(experiment) makes of one
    ...     logger.log_metrics({"tng_loss": 0.5}, step=0)
    ...     logger.close()
    >>> logger.experiment.metrics[0]["tng_loss"]
    0.5
    """

    __test__ = False  # not a test class, whatever its name begins with

    def __init__(self, experiment: Any, notices: Notices | None = None) -> None:
        self.experiment = experiment
        self._notices = notices or Notices()
        self._folder = mend(experiment, self._notices)
        self._nb_in_file = 0
        self._columns: list[str] = []
        self._mark: tuple[int, int] | None = None

    @property
    def folder(self) -> Path | None:
        return self._folder

    @property
    def version(self) -> int | str | None:
        return self.experiment.version  # type: ignore[no-any-return]

    def resume(self, version: int, step: int) -> None:
        if self._folder is not None and version != self.experiment.version:
            self._folder = reopen(self.experiment, version, step)
            self._mark = None

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"rows": len(self.experiment.metrics)}
        if self._writes():
            with contextlib.suppress(Exception):  # its thread died: what is in the files is what there is
                self.experiment.flush()
            state["events"] = event_sizes(Path(self.experiment.log_dir))
        return state

    def count_rows(self) -> int:
        return len(self.experiment.metrics)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if not self._writes():
            return
        assert self._folder is not None
        self.experiment.metrics = read_rows(self._folder / "metrics.csv")[: state["rows"]]
        if "events" in state:
            self.experiment.close()
            cut_events(Path(self.experiment.log_dir), state["events"], state.get("since"))
            self.experiment.tag_markdown_saved = True
        # TensorBoard would hide the points of every axis that lie above that step, a user's own axes too
        self.experiment.purge_step = None
        if "events" in state:
            self.experiment._get_file_writer()
        self._save_all()

    def log_hyperparams(self, hparams: dict[str, Any]) -> None:
        if not self._writes():
            return
        missing = {key: value for key, value in hparams.items() if key not in self.experiment.tags}
        if missing:
            self.experiment.tag(missing)
        self._save_all()

    def log_metrics(self, metrics: dict[str, float | int], step: int) -> None:
        if self._writes():
            with self._new_events_after_failure():
                self.experiment.log(metrics, global_step=step)

    def log_file(self, kind: str, name: str, path: Path, step: int) -> bool:
        from pytorch_lightning.loggers.media import show

        return self._writes() and show(self.experiment, kind, name, path, step)

    def save(self) -> None:
        if not self._writes():
            return
        assert self._folder is not None
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
            append_text(path, lines(waiting, self._columns))
            self._nb_in_file = len(rows)
            self._mark = _mark_of(path)
            with self._new_events_after_failure():
                self.experiment.flush()
        else:
            self._save_all()

    def close(self) -> None:
        self._save_all()

    def _save_all(self) -> None:
        """The experiment's own save."""
        if self._writes():
            with self._new_events_after_failure():
                self.experiment.save()
        if not self._writes():
            return
        assert self._folder is not None
        # pandas makes floats of whole numbers that share a column with floats
        write_tags(self._folder / "meta_tags.csv", self.experiment.tags)
        path = self._folder / "metrics.csv"
        columns = dict.fromkeys(key for row in self.experiment.metrics for key in row)
        if not self.experiment.metrics:
            path.unlink(missing_ok=True)  # without a column it is one that pandas can't read
        elif any("\r" in column for column in columns):  # which pandas doesn't quote
            replace_file(path, lines([dict(zip(columns, columns, strict=True)), *self.experiment.metrics], [*columns]))
        self._columns, self._nb_in_file = read_columns(path), len(self.experiment.metrics)
        self._mark = _mark_of(path)

    @contextlib.contextmanager
    def _new_events_after_failure(self) -> Iterator[None]:
        """A scope after whose failure the next row begins a new event file, since TensorBoard's thread is dead."""
        try:
            yield
        except Exception:
            self.experiment.all_writers = self.experiment.file_writer = None
            raise

    def _writes(self) -> bool:
        if self._folder is not None and self.experiment.debug:  # it turned itself off since
            say_silent(self.experiment, self._notices)
            self._folder = None
        return self._folder is not None

    def _count_rows(self, path: Path) -> int:
        try:
            with open(path, newline="") as file:
                return max(0, sum(1 for row in csv.reader(file) if row) - 1)
        except FileNotFoundError:
            return 0


def _plain(rows: list[dict[str, Any]]) -> bool:
    return all(isinstance(value, (int, float, str, type(None))) for row in rows for value in row.values())


def _mark_of(path: Path) -> tuple[int, int] | None:
    """A value that changes when the file is rewritten."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size


def is_experiment(value: Any) -> bool:
    """Whether ``value`` is a test-tube Experiment; told without importing test-tube."""
    return any(base.__module__ == "test_tube.log" and base.__name__ == "Experiment" for base in type(value).__mro__)
