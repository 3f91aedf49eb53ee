"""Rows to MLflow."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from pytorch_lightning.loggers.tracker import TrackedRow, Tracker, code_version

OWN_TAG = "pytorch_lightning.run"
PLACES = ("epoch", "batch_nb", "global_step")
"""Where a row stands, which isn't measured."""
LONGEST_PARAM, MOST_METRICS, MOST_PARAMS = 6000, 1000, 100
"""What MLflow takes: characters of a value, and how many at once."""


class MLflowLogger(Tracker):
    """Sends rows to a run of MLflow: one run, whatever happens to the processes that train.

    ``tracking_uri`` says where: ``sqlite:///mlflow.db``, or the address of a server; None is MLflow's own default.
    ``experiment`` is the name of the experiment there, by default ``name``. ``run_id`` is the run's while it is open.
    Its rows are kept in ``{save_dir}/{name}/version_{n}``; ``version=None`` takes the next free number. Raises
    ``TypeError`` without a ``save_dir``, and ``MisconfigurationException`` without the extra ``[mlflow]``.

    >>> from pytorch_lightning import Trainer
    >>> def train(model):
    ...     logger = MLflowLogger("logs", name="digits", tracking_uri="sqlite:///mlflow.db")
    ...     Trainer(experiment=logger).fit(model)
    """

    takes, takes_files = ("tracking_uri", "experiment", "tags"), True
    kind, needs, open_only = "mlflow", ("mlflow", "mlflow"), ("_client", "run_id", "_there")
    _client: Any = None
    run_id: str | None = None
    _there: frozenset[tuple[str, int, int]] = frozenset()
    """Of the rows of which it wasn't known: the points that had arrived."""

    def prepare(self) -> None:
        from mlflow import MlflowClient

        if self._client is None:
            self._client = MlflowClient(tracking_uri=self.options.get("tracking_uri"))

    def connect(self, key: str, unsure: Sequence[TrackedRow]) -> int | None:
        self.prepare()
        client, name = self._client, self.options.get("experiment") or self.name
        found = client.get_experiment_by_name(name)
        experiment = client.create_experiment(name) if found is None else found.experiment_id
        runs = client.search_runs([experiment], f"tags.`{OWN_TAG}` = '{key}'", max_results=1)
        if runs:
            self.run_id = runs[0].info.run_id
            client.update_run(self.run_id, status="RUNNING")
        else:
            commit = code_version()
            tags = {OWN_TAG: key} | ({"mlflow.source.git.commit": commit} if commit else {})
            tags |= self.options.get("tags") or {}
            run_name = f"{self.name}/version_{self._version}"
            self.run_id = client.create_run(experiment, tags=tags, run_name=run_name).info.run_id
        self._send_hparams(runs[0].data.params if runs else {})
        names = {_name(name) for row in unsure for name in row.metrics if name not in PLACES}
        points = ((name, point) for name in names for point in client.get_metric_history(self.run_id, name))
        self._there = frozenset((name, point.timestamp, point.step) for name, point in points)
        return None

    def _send_hparams(self, there: dict[str, str]) -> None:
        from mlflow.entities import Param

        values = {_name(str(name)): str(value)[:LONGEST_PARAM] for name, value in self.hparams.items()}
        changed = [name for name, value in values.items() if there.get(name, value) != value]
        if changed:
            text = f"MLflow keeps the first values of hyperparameters; these are others now: {', '.join(changed)}"
            self.later.say("mlflow-keeps-params", text)
        params = [Param(name, value) for name, value in values.items() if name not in there]
        for i in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(self.run_id, params=params[i : i + MOST_PARAMS])

    def send(self, rows: Sequence[TrackedRow]) -> None:
        for row in rows:
            if row.file is not None:  # sent again it replaces itself
                self._client.log_artifact(self.run_id, row.file["path"], "media")
        points = list(self._points(rows))
        for i in range(0, len(points), MOST_METRICS):
            self._client.log_batch(self.run_id, metrics=points[i : i + MOST_METRICS])

    def _points(self, rows: Sequence[TrackedRow]) -> Iterator[Any]:
        from mlflow.entities import Metric

        for row in rows:
            for metric, value in row.metrics.items():
                name, at = _name(metric), round(row.seconds * 1000)
                if name != metric:
                    text = f"MLflow doesn't take the name of the metric {metric!r}; there it is {name!r}"
                    self.later.say(f"renamed-{metric}", text)
                if metric not in PLACES and (name, at, row.step) not in self._there:
                    yield Metric(name, float(value), at, row.step)

    def disconnect(self) -> None:
        self._client.set_terminated(self.run_id, "FINISHED")
        self._client = self.run_id = None


def _name(name: str) -> str:
    """A name that MLflow takes: other characters become their codes.

    >>> _name("val/loss"), _name("a@1"), _name("a/../b")
    ('val/loss', 'a_40_1', 'a_2f_.._2f_b')
    """
    path = name.split("/")
    refused = r"[^\w\-. :/]" if all(part not in ("", ".", "..") for part in path) else r"[^\w\-. :]"
    return re.sub(refused, lambda found: f"_{ord(found[0]):x}_", name)[:250]
