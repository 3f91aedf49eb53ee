"""Rows reach the disk, once, at a flat cost, whatever the user's own experiment does between them."""

import csv
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pytorch_lightning.errors import Notices
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, TestTubeLogger
from pytorch_lightning.loggers.metrics_file import MetricsFile
from tests.recorder import Recorder, quiet_trainer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from test_tube import Experiment

MakeExperiment = Callable[..., Any]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeExperiment]:
    made = []

    def build(name: str = "exp", folder: str = "tt", **options: Any) -> Any:
        made.append(Experiment(name=name, save_dir=str(tmp_path / folder), **options))
        return made[-1]

    yield build
    for experiment in made:
        if not experiment.debug:
            experiment.close()


def rows_in(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def fit(tmp_path: Path, experiment: Any, model: Any = None, **options: Any) -> Any:
    trainer = quiet_trainer(tmp_path, experiment=experiment, add_log_row_interval=1, **options)
    trainer.fit(model or Recorder())
    return trainer


def test_a_fit_logs_through_the_users_experiment(tmp_path: Path, make: MakeExperiment) -> None:
    experiment = make()
    experiment.tag({"lr": 0.1})
    model = Recorder()
    model.hparams = {"lr": 0.5, "layers": 2}
    trainer = fit(tmp_path, experiment, model)
    folder = tmp_path / "tt/exp/version_0"
    rows = rows_in(folder / "metrics.csv")
    assert [r["batch_nb"] for r in rows] == ["0", "1", "2", "3", "3"]
    assert rows[-1]["val_loss"] == "1.0"
    assert all(r["created_at"] for r in rows)
    # a tag that the user has set isn't overwritten
    assert {r["key"]: r["value"] for r in rows_in(folder / "meta_tags.csv")} == {"lr": "0.1", "layers": "2"}
    assert list((folder / "tf").iterdir())
    assert trainer.experiment is experiment
    assert model.experiment is experiment
    assert not (tmp_path / "logs").exists()


def test_the_users_own_rows_are_neither_lost_nor_doubled(tmp_path: Path, make: MakeExperiment) -> None:
    class Mixed(Recorder):
        def on_batch_end(self) -> None:
            self.experiment.log({"mine": float(self.global_step)})
            if self.global_step % 3 == 0:
                self.experiment.save()

    experiment = make()
    fit(tmp_path, experiment, Mixed(nb_batches=20), log_save_interval=4)
    rows = rows_in(tmp_path / "tt/exp/version_0/metrics.csv")
    assert [float(r["mine"]) for r in rows if r["mine"]] == list(range(20))
    assert [float(r["global_step"]) for r in rows if r["tng_loss"]] == list(range(20))
    assert len(rows) == 41


@pytest.mark.parametrize("autosave", [True, False])
def test_the_file_is_whole_at_each_save_interval(tmp_path: Path, make: MakeExperiment, autosave: bool) -> None:
    experiment = make(autosave=autosave)
    path = tmp_path / "tt/exp/version_0/metrics.csv"
    counts: list[int] = []

    class Looking(Recorder):
        def on_batch_end(self) -> None:
            counts.append(len(rows_in(path)) if path.exists() else 0)

    fit(tmp_path, experiment, Looking(nb_batches=9), log_save_interval=3)
    assert counts == (list(range(1, 10)) if autosave else [0, 0, 3, 3, 3, 6, 6, 6, 9])


def test_saving_costs_the_same_late_as_early(make: MakeExperiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in rows that go through the file, which doesn't drift as seconds do."""
    experiment = make()
    whole = []
    monkeypatch.setattr(type(experiment), "save", _counting(type(experiment).save, whole))
    logger = TestTubeLogger(experiment)
    for step in range(300):
        logger.log_metrics({"loss": float(step)}, step)
        logger.save()
    assert len(whole) == 1, "the whole file is written for the header only"
    assert [float(r["loss"]) for r in rows_in(logger.folder / "metrics.csv")] == list(range(300))  # type: ignore[operator]


def _counting(save: Any, calls: list[int]) -> Any:
    def counted(self: Any) -> None:
        calls.append(1)
        save(self)

    return counted


def test_a_new_column_keeps_the_old_rows(make: MakeExperiment) -> None:
    logger = TestTubeLogger(make())
    for row in ({"a": 1.0}, {"a": 2.0}, {"a": 3.0, "b": 4.0}, {"b": 5.0}):
        logger.log_metrics(row, 0)
        logger.save()
    rows = rows_in(logger.folder / "metrics.csv")  # type: ignore[operator]
    assert [(r["a"], r["b"]) for r in rows] == [("1.0", ""), ("2.0", ""), ("3.0", "4.0"), ("", "5.0")]


def test_a_second_experiment_does_not_redirect_the_first(tmp_path: Path, make: MakeExperiment) -> None:
    first = make("first", "one")
    second: list[Any] = []

    class Making(Recorder):
        def on_epoch_start(self) -> None:
            second.append(make("second", "two"))

    fit(tmp_path, first, Making())
    assert len(rows_in(tmp_path / "one/first/version_0/metrics.csv")) == 5
    second[0].log({"x": 1.0})
    second[0].save()
    assert len(rows_in(tmp_path / "two/second/version_0/metrics.csv")) == 1


def test_a_debug_experiment_logs_nothing_and_breaks_nothing(tmp_path: Path, make: MakeExperiment) -> None:
    experiment = make(debug=True)
    assert fit(tmp_path, experiment).global_step == 4
    assert not (tmp_path / "tt").exists()


def test_names_with_a_meaning_of_test_tubes_are_renamed(
    make: MakeExperiment, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = TestTubeLogger(make())
    logger.log_metrics({"png_loss": 1.0, "jpg_x": 2.0, "created_at": 3.0}, 0)
    logger.save()
    logger.close()
    row = rows_in(logger.folder / "metrics.csv")[0]  # type: ignore[operator]
    assert (row["png-loss"], row["jp-g_x"], row["created_at_"]) == ("1.0", "2.0", "3.0")
    assert "is logged as" in capsys.readouterr().err


def test_an_experiment_name_with_a_slash_is_a_folder_of_folders(tmp_path: Path, make: MakeExperiment) -> None:
    fit(tmp_path, make("group/run"))
    assert len(rows_in(tmp_path / "tt/group/run/version_0/metrics.csv")) == 5


def test_a_model_with_an_experiment_can_be_copied_and_pickled(tmp_path: Path, make: MakeExperiment) -> None:
    import copy
    import pickle

    copies = []

    class Copying(Recorder):
        def on_epoch_end(self) -> None:
            copies.append(copy.deepcopy(self))

    model = Copying()
    fit(tmp_path, make(), model)
    plain = Recorder()
    fit(tmp_path, make(), plain)
    copies.append(pickle.loads(pickle.dumps(plain)))
    assert torch.equal(copies[0].weight, model.weight)
    assert torch.equal(copies[1].weight, plain.weight)
    assert copies[0].trainer is None


def test_several_loggers_get_every_row(tmp_path: Path, make: MakeExperiment) -> None:
    fit(tmp_path, [make(), CSVLogger(tmp_path / "csv", "run")])
    ours = rows_in(tmp_path / "csv/run/version_0/metrics.csv")
    theirs = rows_in(tmp_path / "tt/exp/version_0/metrics.csv")
    assert [r["tng_loss"] for r in ours] == [r["tng_loss"] for r in theirs]
    assert len(ours) == 5


class Failing(Logger):
    """Takes no row until its third call."""

    folder = None
    version = None

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self.nb_calls = 0

    def log_hyperparams(self, hparams: dict[str, Any]) -> None:
        raise OSError("no space left")

    def log_metrics(self, metrics: dict[str, Any], step: int) -> None:
        self.nb_calls += 1
        if self.nb_calls < 3:
            raise OSError("no space left")
        self.rows.append(step)

    def save(self) -> None:
        pass

    def close(self) -> None:
        pass


def test_a_logger_that_fails_is_reported_once_and_loses_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = Failing()
    fit(tmp_path, logger)
    assert logger.rows == [0, 1, 2, 3, 3]
    assert capsys.readouterr().err.count("Failing failed; training continues") == 1


def test_two_csv_loggers_never_share_a_folder(tmp_path: Path) -> None:
    assert [CSVLogger(tmp_path, "run").version for _ in range(3)] == [0, 1, 2]


def test_a_metrics_file_resumes_where_it_ended(tmp_path: Path) -> None:
    MetricsFile(tmp_path / "m.csv").append([{"a": 0.1, "b": None}, {"a": float("nan"), "b": "x,y"}])
    MetricsFile(tmp_path / "m.csv").append([{"a": 1, "c": 2}])
    assert (tmp_path / "m.csv").read_text() == 'a,b,c\n0.1,,\n,"x,y",\n1,,2\n'


def test_a_column_that_another_process_added_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    ours, other = MetricsFile(path), MetricsFile(path)
    ours.append([{"a": 1, "b": 2}])
    ours.append([{"a": 3, "b": 4}])
    other.append([{"b": 5, "c": 6}])
    ours.append([{"a": 7, "b": 8}])
    assert path.read_text() == "a,b,c\n1,2,\n3,4,\n,5,6\n7,8,\n"


def test_pandas_reads_both_files(tmp_path: Path, make: MakeExperiment) -> None:
    import pandas

    fit(tmp_path, [make(), CSVLogger(tmp_path / "csv", "run")])
    for path in ("csv/run", "tt/exp"):
        frame = pandas.read_csv(tmp_path / path / "version_0/metrics.csv")
        assert frame["tng_loss"].notna().sum() == 4
        assert frame["val_loss"].iloc[-1] == 1.0


def test_what_is_no_experiment_is_refused(tmp_path: Path) -> None:
    from pytorch_lightning.errors import MisconfigurationException

    with pytest.raises(MisconfigurationException, match="must be a test-tube Experiment"):
        fit(tmp_path, "my experiment")


def test_an_experiment_that_turns_itself_off_is_reported(
    make: MakeExperiment, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = make()
    logger = TestTubeLogger(experiment, Notices())
    experiment.debug = True
    logger.save()
    logger.close()
    assert "logs nothing any more" in capsys.readouterr().err


def test_tensorboard_gets_the_rows_as_scalars(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model = Recorder(lr=0.0)
    model.hparams = {"layers": 2}
    fit(tmp_path, TensorBoardLogger(tmp_path / "tb", "run"), model)
    folder = tmp_path / "tb/run/version_0"
    assert rows_in(folder / "meta_tags.csv") == [{"key": "layers", "value": "2"}]
    events = EventAccumulator(str(folder / "tf"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("tng_loss")] == [(i, 9.0) for i in range(4)]
    assert [(e.step, e.value) for e in events.Scalars("val_loss")] == [(3, 1.0)]
    assert "batch_nb" not in events.Tags()["scalars"]
    assert "hparams/text_summary" in events.Tags()["tensors"]


def test_images_of_a_module_without_an_experiment_reach_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    class Drawing(Recorder):
        def on_epoch_end(self) -> None:
            self.experiment.add_image("weights", torch.rand(3, 4, 4), self.current_epoch)
            self.experiment.add_nothing("of this name")

    logger = TensorBoardLogger(tmp_path / "logs")
    fit(tmp_path, logger, Drawing(), max_nb_epochs=2)
    events = EventAccumulator(str(logger.folder / "tf"))
    events.Reload()
    assert [event.step for event in events.Images("weights")] == [0, 1]
    fit(tmp_path, None, Drawing(), max_nb_epochs=1)  # without TensorBoard nothing happens


def test_the_users_experiment_stays_fully_usable(tmp_path: Path, make: MakeExperiment) -> None:
    class Using(Recorder):
        def on_epoch_end(self) -> None:
            self.experiment.tag({"noted": 1})
            self.experiment.add_scalars("both", {"a": 1.0, "b": 2.0}, 0)
            self.experiment.add_image("picture", torch.zeros(1, 4, 4), 0)
            self.experiment.add_embedding(torch.eye(3), global_step=0)
            self.experiment.log({"mine": 5.0})
            self.experiment.save()

    fit(tmp_path, make(), Using(), max_nb_epochs=2)
    folder = tmp_path / "tt/exp/version_0"
    rows = rows_in(folder / "metrics.csv")
    assert len(rows) == 12
    assert [r["mine"] for r in rows if r["mine"]] == ["5.0", "5.0"]
    assert {"key": "noted", "value": "1"} in rows_in(folder / "meta_tags.csv")
    assert (folder / "tf/both_a").is_dir()


def test_ten_thousand_rows_are_written_as_fast_at_the_end_as_at_the_start(make: MakeExperiment) -> None:
    import time

    short, long = TestTubeLogger(make("short")), TestTubeLogger(make("long"))
    nb_rows = {short: 0, long: 0}

    def write(logger: TestTubeLogger, nb: int) -> tuple[float, int]:
        """Write ``nb`` rows: the seconds of this thread, and the bytes that the process wrote."""
        first, began, bytes_before = nb_rows[logger], time.thread_time(), nb_bytes_written()
        for step in range(first, first + nb):
            logger.log_metrics({"loss": step * 0.5, "lr": 0.1}, step)
            if step % 10 == 9:
                logger.save()
        nb_rows[logger] += nb
        return time.thread_time() - began, nb_bytes_written() - bytes_before

    write(short, 500)  # the header, the first imports
    write(long, 8000)
    # in turns, and the least of four: what else a busy machine does makes both slow, and nothing makes one fast
    turns = [(write(short, 500), write(long, 500)) for _ in range(4)]
    assert min(late for _, (late, _) in turns) < 1.5 * min(early for (early, _), _ in turns)
    assert sum(late for _, (_, late) in turns) < 1.2 * sum(early for (_, early), _ in turns)
    assert [len(rows_in(logger.folder / "metrics.csv")) for logger in (short, long)] == [2500, 10_000]  # type: ignore


def nb_bytes_written() -> int:
    """Those of this process, so far, to whatever file."""
    (found,) = re.findall(r"^wchar: (\d+)$", Path("/proc/self/io").read_text(), re.MULTILINE)
    return int(found)
