"""W&B and MLflow as loggers: the real ones, offline, in programs of their own. test_tracker_kills.py kills them."""

import csv
import importlib.util
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytorch_lightning import Trainer
from pytorch_lightning.errors import MisconfigurationException
from pytorch_lightning.loggers import CSVLogger, MLflowLogger, TrackedRow, Tracker, WandbLogger
from tests.faults.tracking import OFFLINE, by_hand, check_all, in_mlflow, in_wandb
from tests.recorder import QUIET, Recorder

pytestmark = pytest.mark.filterwarnings("ignore")  # what W&B and MLflow import warns
ROOT = str(Path(__file__).parent.parent.parent)


def needs(*names: str) -> None:
    for name in names:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f'{name} isn\'t installed: pip install -e ".[neighbours]"')


class Service:
    """A tracker that one can take down: it has runs by key, of rows by number."""

    runs: dict[str, list[TrackedRow]] = {}
    hparams: dict[str, Any] = {}
    is_down = False


class ServiceLogger(Tracker):
    kind = "service"

    def connect(self, key: str, unsure: Sequence[TrackedRow]) -> int | None:
        if Service.is_down:
            raise ConnectionError("down")
        Service.hparams.update(self.hparams)
        return len(Service.runs.setdefault(key, []))

    def send(self, rows: Sequence[TrackedRow]) -> None:
        for row in rows:
            if Service.is_down:
                raise ConnectionError("down")
            Service.runs[self.journal.key].append(row)

    def disconnect(self) -> None:
        pass


@pytest.fixture(autouse=True)
def service() -> Any:
    Service.runs, Service.hparams, Service.is_down = {}, {}, False
    return Service


def fit(logger: Any, folder: Path, nb_epochs: int = 2, **options: Any) -> Trainer:
    rows = {"add_log_row_interval": 2, "log_save_interval": 2}
    trainer = Trainer(logger, default_save_path=str(folder), max_nb_epochs=nb_epochs, **{**QUIET, **rows, **options})
    assert trainer.fit(Recorder()) == 1
    return trainer


def csv_rows(logger: CSVLogger) -> list[dict[str, float]]:
    assert logger.folder is not None
    with open(logger.folder / "metrics.csv", newline="") as file:
        return [{k: float(v) for k, v in row.items() if v and k != "created_at"} for row in csv.DictReader(file)]


def numbers(rows: Sequence[TrackedRow]) -> list[dict[str, float]]:
    return [{name: float(value) for name, value in row.metrics.items()} for row in rows]


# ------------------------------------------------------------------ any tracker
def test_the_rows_are_those_of_metrics_csv(tmp_path: Path) -> None:
    logger, csv_logger = ServiceLogger(tmp_path, "t"), CSVLogger(tmp_path, "c")
    fit([csv_logger, logger], tmp_path)
    (rows,) = Service.runs.values()
    assert numbers(rows) == csv_rows(csv_logger) != []
    assert [row.number for row in rows] == list(range(len(rows)))
    seconds = [round(1000 * row.seconds) for row in rows]
    assert all(a < b for a, b in itertools.pairwise(seconds))


def test_a_tracker_that_is_down_never_stops_training_and_gets_its_rows_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Service.is_down = True
    logger, csv_logger = ServiceLogger(tmp_path, "t"), CSVLogger(tmp_path, "c")
    began = time.monotonic()
    fit([csv_logger, logger], tmp_path)
    assert time.monotonic() - began < 5
    assert capsys.readouterr().err.count("logger-failed-ServiceLogger") == 1
    assert Service.runs == {}
    Service.is_down = False
    assert logger.send_kept() == 0
    (rows,) = Service.runs.values()
    assert numbers(rows) == csv_rows(csv_logger) != []


def test_one_that_goes_down_in_between_gets_each_row_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytorch_lightning.loggers.tracker.FIRST_WAIT", 0.05)

    class Flaky(ServiceLogger):
        def send(self, rows: Sequence[TrackedRow]) -> None:
            for i, row in enumerate(rows):
                if row.number == len(Service.runs[self.journal.key]) and row.number % 3 == 2 and i:
                    raise ConnectionError("in the middle")
                super().send([row])

    logger, csv_logger = Flaky(tmp_path, "t"), CSVLogger(tmp_path, "c")
    fit([csv_logger, logger], tmp_path)
    while logger.send_kept():
        pass
    (rows,) = Service.runs.values()
    assert numbers(rows) == csv_rows(csv_logger)


def test_a_resumed_run_is_the_same_run_whatever_was_sent_after_the_save(tmp_path: Path) -> None:
    options = {"save_every_nb_batches": 3, "resume": "auto"}

    class Cut(Recorder):
        def on_batch_end(self) -> None:
            if self.global_step == 7:
                time.sleep(0.3)  # what was logged is sent
                raise KeyError("cut")

    csv_logger = CSVLogger(tmp_path, "c")
    given: Any = [csv_logger, ServiceLogger(tmp_path, "t")]
    with pytest.raises(KeyError):
        Trainer(given, default_save_path=str(tmp_path), max_nb_epochs=3, add_log_row_interval=1, log_save_interval=1,
                crash_bundle=False, **{**QUIET, **options}).fit(Cut())  # fmt: skip
    nb_before = sum(map(len, Service.runs.values()))
    assert nb_before
    csv_logger = CSVLogger(tmp_path, "c")
    given = [csv_logger, ServiceLogger(tmp_path, "t")]
    fit(given, tmp_path, 3, add_log_row_interval=1, log_save_interval=1, **options)
    (rows,) = Service.runs.values()
    assert numbers(rows) == csv_rows(csv_logger)
    assert len(rows) > nb_before


class Drifting(Recorder):
    """Logs the number of its start, which no resume brings back."""

    start, cut = 1.0, 0
    trained: list[int] = []
    """The batches of this start."""

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        self.trained.append(self.global_step)
        return {**super().training_step(data_batch, batch_nb), "prog": {"start": self.start}}

    def on_batch_end(self) -> None:
        if self.global_step == self.cut:
            deadline = time.monotonic() + 30
            while sum(map(len, Service.runs.values())) < self.cut and time.monotonic() < deadline:
                time.sleep(0.01)
            raise KeyError("cut")


@pytest.mark.parametrize("drift", [1.0, 0.0])
def test_a_tracker_keeps_the_first_numbers_where_a_resume_gives_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, drift: float
) -> None:
    options: dict[str, Any] = {"save_every_nb_batches": 3, "resume": "auto", "log_save_interval": 1}
    options |= {"add_log_row_interval": 1, "crash_bundle": False}

    def start(number: float, cut: int) -> CSVLogger:
        for name, value in {"start": number, "cut": cut, "trained": []}.items():
            monkeypatch.setattr(Drifting, name, value)
        csv_logger = CSVLogger(tmp_path, "c")
        loggers: Any = [csv_logger, ServiceLogger(tmp_path, "t")]
        trainer = Trainer(loggers, default_save_path=str(tmp_path), max_nb_epochs=3, **{**QUIET, **options})
        trainer.fit(Drifting())
        return csv_logger

    with pytest.raises(KeyError):
        start(1.0, cut=7)
    (rows,) = Service.runs.values()
    before = {row.step: row.metrics["start"] for row in rows if "start" in row.metrics}
    assert capsys.readouterr().err.count("tracker-differs") == 0
    csv_logger = start(1.0 + drift, cut=-1)
    again = {step for step in Drifting.trained if step in before}
    assert again
    wanted = {step: 1.0 if step in before else 1.0 + drift for step in range(12)}
    assert [(row.step, row.metrics["start"]) for row in rows if "start" in row.metrics] == list(wanted.items())
    # the file is cut back, and has what was trained
    wanted.update(dict.fromkeys(again, 1.0 + drift))
    assert {row["global_step"]: row["start"] for row in csv_rows(csv_logger) if "start" in row} == wanted
    assert capsys.readouterr().err.count("[tracker-differs-ServiceLogger]") == (1 if drift else 0)


class Server:
    """Stands in for wandb, online: it keeps each run's rows, and the last value of each column."""

    rows: dict[str, list[dict[str, Any]]] = {}
    Settings = dict

    @classmethod
    def init(cls, **options: Any) -> Any:
        rows = cls.rows.setdefault(options["id"], [])
        assert options["mode"] == "online"
        assert options["resume"] == "allow"
        return SimpleNamespace(
            config=SimpleNamespace(update=lambda values, allow_val_change: None),
            summary={name: value for row in rows for name, value in row.items()},
            define_metric=lambda *given, **named: None,
            log=rows.append,
            finish=lambda: None,
        )


def test_online_the_server_knows_which_rows_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written to the folder of what was sent: as after a crash of the machine."""
    monkeypatch.setitem(sys.modules, "wandb", Server)
    monkeypatch.setattr(WandbLogger, "needs", ("", ""))
    Server.rows = {}
    options: dict[str, Any] = {"save_every_nb_batches": 3, "resume": "auto", "log_save_interval": 1}
    options |= {"add_log_row_interval": 1, "crash_bundle": False}

    class Cut(Recorder):
        def on_batch_end(self) -> None:
            if self.global_step == 7:
                time.sleep(0.3)
                raise KeyError("cut")

    def loggers() -> list[Any]:
        return [CSVLogger(tmp_path, "c"), WandbLogger(tmp_path, "w", mode="online")]

    with pytest.raises(KeyError):
        Trainer(loggers(), default_save_path=str(tmp_path), max_nb_epochs=3, **{**QUIET, **options}).fit(Cut())
    (about,) = tmp_path.glob("w/version_0/wandb_run.json")
    about.write_text(json.dumps({**json.loads(about.read_text()), "sent": 2}))
    again = loggers()
    fit(again, tmp_path, 3, **options)
    (rows,) = Server.rows.values()
    assert [row["_row"] for row in rows] == list(range(len(rows)))
    expected = [row["tng_loss"] for row in csv_rows(again[0]) if "tng_loss" in row]
    assert [row["tng_loss"] for row in rows if "tng_loss" in row] == expected


def test_rows_of_validations_after_the_fit_go_to_the_same_run(tmp_path: Path) -> None:
    logger, csv_logger = ServiceLogger(tmp_path, "t"), CSVLogger(tmp_path, "c")
    trainer = fit([csv_logger, logger], tmp_path)
    trainer.validate()
    (rows,) = Service.runs.values()
    assert numbers(rows) == csv_rows(csv_logger)


def test_nothing_is_made_before_the_run_begins(tmp_path: Path) -> None:
    logger = ServiceLogger(tmp_path / "there", "t")
    assert not (tmp_path / "there").exists()
    fit(logger, tmp_path)
    assert [path.name for path in (tmp_path / "there" / "t").iterdir()] == ["version_0"]


def test_the_package_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MisconfigurationException, match=r"needs wandb.*\[wandb\]"):
        WandbLogger("logs")
    with pytest.raises(MisconfigurationException, match=r"needs mlflow.*\[mlflow\]"):
        MLflowLogger("logs")


def test_arguments_of_lightning_are_named() -> None:
    needs("wandb", "mlflow")
    with pytest.raises(MisconfigurationException, match=r"mode='offline'"):
        WandbLogger("logs", offline=True)
    with pytest.raises(MisconfigurationException, match="experiment"):
        MLflowLogger("logs", experiment_name="a")


# ------------------------------------------------------------------ the real ones


def run(program: str, folder: Path, code: int = 0, **environment: str) -> str:
    (folder / "train.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "train.py"], capture_output=True, text=True, cwd=folder, timeout=200,
        env={**os.environ, **OFFLINE, "PYTHONPATH": ROOT, **environment},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


@pytest.mark.neighbours
def test_all_four_have_the_points_of_a_loop_by_hand(tmp_path: Path) -> None:
    needs("wandb", "mlflow", "sqlalchemy")
    run(f"from tests.faults.tracking import train\ntrain({str(tmp_path)!r}, 2)", tmp_path)
    check_all(tmp_path, 2)


PROGRAM = """
import sys
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.loggers import MLflowLogger, WandbLogger


class Model(LightningModule):
    def __init__(self, hparams=None):
        super().__init__(hparams)
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, data_batch, batch_nb):
        loss = self.layer(data_batch).pow(2).mean()
        return {"loss": loss, "prog": {"half": loss / 2, "a@1": loss / 3, "not a number": float("nan")}}

    def validation_step(self, data_batch, batch_nb):
        return self.layer(data_batch).pow(2).mean()

    def validation_end(self, outputs):
        return {"val/loss": torch.stack(outputs).mean()}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    @property
    def tng_dataloader(self):
        return [torch.ones(8, 4)] * 20

    @property
    def val_dataloader(self):
        return [torch.ones(8, 4)] * 2


def fit(loggers, nb_epochs=1, hparams=None, **options):
    trainer = Trainer(loggers, max_nb_epochs=nb_epochs, progress_bar=False, print_weights_summary=False,
                      default_save_path=".", **options)
    trainer.fit(Model(hparams or {"lr": 0.1, "name": "a b"}))
    return trainer
"""


@pytest.mark.neighbours
def test_one_run_through_other_numbers_of_processes_and_hyperparameters(tmp_path: Path) -> None:
    """The first process alone opens anything, and the code's version is recorded."""
    needs("wandb", "mlflow", "sqlalchemy")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "a"]):
        subprocess.run([*git, *words], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    program = f"""{PROGRAM}
if __name__ == "__main__":
    for nb in (1, 2, 3):
        loggers = [WandbLogger("logs", "w"), MLflowLogger("logs", "m", tracking_uri="sqlite:///mlflow.db")]
        trainer = fit(loggers, nb, {{"lr": 0.1, "nb": nb}}, nb_processes=1 + nb % 2, virtual_ranks=2, resume="auto")
    trainer.validate()
"""
    said = run(program, tmp_path)
    assert "logger-failed" not in said, said
    assert sorted(path.name for path in (tmp_path / "logs").glob("*/*")) == ["version_0", "version_0"]
    ids, rows, hparams = in_wandb(tmp_path / "logs")
    assert len(ids) == 1
    assert [row["_row"] for row in rows] == list(range(len(rows)))
    assert hparams["nb"] == 1  # a resumed run keeps its own
    wandb_steps = [row["global_step"] for row in rows if "val/loss" in row]
    assert wandb_steps == [9, 19, 29, 29]
    nb, points, about = in_mlflow(tmp_path, "m", ("val/loss", "half", "a_40_1", "epoch"))
    assert nb == 1
    assert [step for step, _ in points["val/loss"]] == wandb_steps
    assert points["half"] == [(row["global_step"], row["half"]) for row in rows if "half" in row]
    assert len(points["a_40_1"]) == len(points["half"])
    assert points["epoch"] == []
    assert about["nb"] == "1"
    assert "renamed-a@1" in said
    assert about["mlflow.source.git.commit"] == commit
    (path,) = (tmp_path / "logs").glob("w/version_0/wandb/offline-run-*/run-*.wandb")
    assert commit.encode() in path.read_bytes()


@pytest.mark.neighbours
def test_a_server_that_isnt_there_costs_no_row(tmp_path: Path) -> None:
    needs("wandb", "mlflow", "sqlalchemy")
    said = run(
        f"""{PROGRAM}
import json
import time
MLflowLogger.patience = 3.0
loggers = [MLflowLogger("logs", "m", tracking_uri="http://127.0.0.1:9"), WandbLogger("logs", "w", mode="online")]
fit(loggers)
later = MLflowLogger("logs", "m", version=0, tracking_uri="sqlite:///mlflow.db")
print(json.dumps(["left", later.send_kept()]))
fit(later, 1, {{"lr": 0.2, "name": "a b"}})
""",
        tmp_path,
        WANDB_MODE="online",
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
        WANDB_API_KEY="",
    )
    assert said.count("logger-failed-MLflowLogger") == 1
    assert said.count("logger-failed-WandbLogger") == 1
    assert json.dumps(["left", 0]) in said
    assert "MLflow keeps the first values of hyperparameters; these are others now: lr " in said, said
    nb, points, _ = in_mlflow(tmp_path, "m", ("half",))
    assert nb == 1
    assert [step for step, _ in points["half"]] == [0, 0, 10, 10]  # two fits with one version are one run
    assert len((tmp_path / "logs" / "w" / "version_0" / "wandb_rows.jsonl").read_text().splitlines()) == 3


@pytest.mark.neighbours
def test_weights_are_those_of_a_fit_without_trackers(tmp_path: Path) -> None:
    needs("wandb", "mlflow", "sqlalchemy")
    said = run(
        f"""{PROGRAM}
found = []
for loggers in (False, [WandbLogger("logs", "w"), MLflowLogger("logs", "m", tracking_uri="sqlite:///mlflow.db")]):
    torch.manual_seed(3)
    found.append(fit(loggers, 2, seed=3).module.layer.weight.tolist() + [torch.rand(3).tolist()])
print("equal", found[0] == found[1])
""",
        tmp_path,
    )
    assert "equal True" in said


@pytest.mark.neighbours
def test_mlflow_keeps_the_first_numbers_and_wandb_offline_has_those_of_the_resume(tmp_path: Path) -> None:
    """Of a program that gives other numbers at its second start. W&B begins its file anew."""
    needs("wandb", "mlflow", "sqlalchemy")
    program = f"""{PROGRAM}
import os
import signal
import time
from pytorch_lightning.loggers import CSVLogger
from tests.saves import every_save_written

start = float(os.environ["START"])
loggers = [CSVLogger("logs", "c"), WandbLogger("logs", "w"),
           MLflowLogger("logs", "m", tracking_uri="sqlite:///mlflow.db")]


class Drifting(Model):
    def training_step(self, data_batch, batch_nb):
        return {{**super().training_step(data_batch, batch_nb), "prog": {{"start": start}}}}

    def on_batch_end(self):
        if start == 1 and self.global_step == 13:
            while loggers[2].journal.nb_sent < loggers[2].journal.nb:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)


trainer = Trainer(loggers, max_nb_epochs=1, progress_bar=False, print_weights_summary=False, default_save_path=".",
                  resume="auto", save_every_nb_batches=4, add_log_row_interval=1, log_save_interval=1)
with every_save_written():
    trainer.fit(Drifting())
"""
    run(program, tmp_path, -signal.SIGKILL, START="1")
    _, points, _ = in_mlflow(tmp_path, "m", ("start",))
    nb_sent = len(points["start"])
    nb_saved = max(int(path.stem[5:]) for path in tmp_path.glob("logs/c/version_0/checkpoints/step-*.ckpt"))
    assert 0 < nb_saved < nb_sent
    said = run(program, tmp_path, START="2")
    _, points, _ = in_mlflow(tmp_path, "m", ("start",))
    assert points["start"] == [(step, 1.0 if step < nb_sent else 2.0) for step in range(20)]
    assert said.count("[tracker-differs-MLflowLogger]") == 1
    (path,) = tmp_path.glob("logs/c/version_0/metrics.csv")
    with path.open(newline="") as file:
        in_file = [(int(row["global_step"]), float(row["start"])) for row in csv.DictReader(file) if row["start"]]
    assert in_file == [(step, 1.0 if step < nb_saved else 2.0) for step in range(20)]
    _, rows, _ = in_wandb(tmp_path / "logs")
    assert [(row["global_step"], row["start"]) for row in rows if "start" in row] == in_file
    assert "tracker-differs-WandbLogger" not in said


def test_the_loop_by_hand_learns() -> None:
    losses, validations = by_hand(2)
    assert losses[-1][1] < losses[0][1]
    assert validations[-1][1] < validations[0][1]


@pytest.mark.neighbours
def test_figures_and_files_go_there_once(tmp_path: Path) -> None:
    needs("wandb", "mlflow", "sqlalchemy")
    said = run(
        f"""{PROGRAM}
from PIL import Image


class Figure:
    def savefig(self, file, format):
        Image.new("RGB", (6, 4)).save(file, format)


class Showing(Model):
    def on_epoch_end(self):
        self.experiment.log_figure("shown", Figure())
        self.experiment.log_text("said", "a < b")
        self.experiment.log_file("own", "train.py")


def start(nb_epochs):
    loggers = [WandbLogger("logs", "w"), MLflowLogger("logs", "m", tracking_uri="sqlite:///mlflow.db")]
    Trainer(loggers, max_nb_epochs=nb_epochs, progress_bar=False, print_weights_summary=False,
            default_save_path=".", resume="auto").fit(Showing())


start(1)
start(2)
""",
        tmp_path,
    )
    assert "logger-failed" not in said, said
    _, rows, _ = in_wandb(tmp_path / "logs")
    assert [row["_row"] for row in rows] == list(range(len(rows)))
    names = [name for row in rows for name in row if name.startswith(("shown", "said"))]
    assert sum(name.startswith("shown") and name.endswith("_type") for name in names) == 2, names
    (folder,) = (tmp_path / "logs").glob("w/version_0/wandb/offline-run-*")
    assert {path.name for path in folder.rglob("own_*.py")} == {"own_20.py", "own_40.py"}
    found = sorted(path.name for path in tmp_path.glob("mlruns/**/media/*"))
    assert found == sorted(f"{name}_{step}{end}" for name, end in (("shown", ".png"), ("said", ".txt"), ("own", ".py"))
                           for step in (20, 40))  # fmt: skip
