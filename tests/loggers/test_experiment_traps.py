"""What test-tube does badly is hidden from a model that uses ``self.experiment``, and from us."""

import argparse
import resource
import signal
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch

from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger, TestTubeLogger
from tests.loggers.test_loggers import MakeExperiment, fit, make, rows_in  # noqa: F401
from tests.recorder import Recorder, quiet_trainer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from test_tube import HyperOptArgumentParser


@pytest.mark.parametrize("autosave", [True, False])
def test_a_models_own_saves_stay_in_its_folder_after_another_experiment_was_made(
    tmp_path: Path,
    make: MakeExperiment,  # noqa: F811
    autosave: bool,
) -> None:
    class Making(Recorder):
        def on_epoch_start(self) -> None:
            make("exp", "elsewhere")  # the same name and version: only the folder differs

        def on_batch_end(self) -> None:
            self.experiment.log({"mine": 1.0})
            self.experiment.save()

    fit(tmp_path, make(autosave=autosave), Making())
    assert len(rows_in(tmp_path / "tt/exp/version_0/metrics.csv")) == 9
    assert not (tmp_path / "elsewhere/exp/version_0/metrics.csv").exists()


def test_a_fit_inside_a_validation_has_an_experiment_of_its_own(tmp_path: Path, make: MakeExperiment) -> None:  # noqa: F811
    class Outer(Recorder):
        def validation_end(self, outputs: Any) -> Any:
            fit(tmp_path, make("inner", "inside"), Recorder(nb_batches=2))
            self.experiment.log({"mine": 1.0})
            self.experiment.save()
            return super().validation_end(outputs)

    fit(tmp_path, make("outer"), Outer(), max_nb_epochs=2)
    assert len(rows_in(tmp_path / "tt/outer/version_0/metrics.csv")) == 12
    assert [len(rows_in(tmp_path / f"inside/inner/version_{i}/metrics.csv")) for i in (0, 1)] == [3, 3]


def test_a_debug_experiment_takes_every_call(tmp_path: Path, make: MakeExperiment) -> None:  # noqa: F811
    class Using(Recorder):
        def on_epoch_end(self) -> None:
            self.experiment.tag({"a": 1})
            self.experiment.log({"a": 1.0})
            self.experiment.add_scalar("a", 1.0, 0)
            self.experiment.add_histogram("a", torch.ones(3), 0)
            self.experiment.flush()
            self.experiment.close()
            self.experiment.save()

    assert fit(tmp_path, make(debug=True), Using()).global_step == 4
    assert not (tmp_path / "tt").exists()


def test_a_model_may_log_tensors_and_what_is_no_number_is_left_out(
    tmp_path: Path,
    make: MakeExperiment,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Logging(Recorder):
        def on_epoch_end(self) -> None:
            self.experiment.log(
                {
                    "tensor": self.weight.sum() * 0 + 1.5,
                    "double": np.float64(2.5),
                    "several": torch.ones(2),
                    "word": "adam",
                    "nothing": None,
                    "listed": [1],
                    "jpg_loss": 3.5,
                    "pair": {"left": torch.tensor(4.5)},
                },
                global_step=7,
            )

    experiment = make()
    fit(tmp_path, experiment, Logging())
    row = rows_in(tmp_path / "tt/exp/version_0/metrics.csv")[-1]
    assert [row[k] for k in ("tensor", "double", "jp-g_loss", "left")] == ["1.5", "2.5", "3.5", "4.5"]
    assert not {"several", "word", "nothing", "listed", "jpg_loss"} & set(row)
    assert all(isinstance(v, (float, int, str)) for r in experiment.metrics for v in r.values())
    said = capsys.readouterr().err
    assert "'several' isn't logged: it is a Tensor, not one number" in said
    assert said.count("isn't logged") == 4


def test_a_numpy_number_is_a_number_in_the_file(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, "run")
    logger.log_metrics({"rate": np.float64(0.1)}, 0)
    logger.close()
    assert rows_in(tmp_path / "run/version_0/metrics.csv")[0]["rate"] == "0.1"


def test_an_experiment_that_shares_its_version_with_another_process_is_reported(
    tmp_path: Path,
    make: MakeExperiment,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    """test-tube numbers versions without a lock: the second one finds a file that isn't written yet, and is mute."""
    make()
    second = make(version=0)
    assert second.debug
    fit(tmp_path, second)
    assert "'exp', version 0, can't write to its folder and logs nothing any more" in capsys.readouterr().err


def test_options_of_a_search_are_kept_as_plain_data(tmp_path: Path, make: MakeExperiment) -> None:  # noqa: F811
    parser = HyperOptArgumentParser(strategy="random_search")
    parser.opt_range("--rate", default=0.1, type=float, low=0.01, high=0.2, nb_samples=4, tunable=True)
    parser.add_argument("--name", default="a")
    whole, trial = parser.parse_args([]), next(iter(parser.parse_args([]).trials(1)))
    assert callable(whole.trials)
    for version, hparams in enumerate((whole, trial)):
        model = Recorder()
        model.hparams = hparams
        trainer = fit(tmp_path, make(), model)
        trainer.save_checkpoint(tmp_path / "x.ckpt")
        saved = torch.load(tmp_path / "x.ckpt")["hparams"]
        assert saved == {"rate": float(hparams.rate), "name": "a", "hpc_exp_number": None}
        assert type(saved["rate"]) is float
        tags = {r["key"]: r["value"] for r in rows_in(tmp_path / f"tt/exp/version_{version}/meta_tags.csv")}
        assert tags == {"rate": repr(float(hparams.rate)), "name": "a", "hpc_exp_number": "None"}


def test_pandas_never_finds_a_file_without_columns(tmp_path: Path, make: MakeExperiment) -> None:  # noqa: F811
    path = tmp_path / "tt/exp/version_0/metrics.csv"
    seen = []

    class Looking(Recorder):
        def on_fit_start(self) -> None:
            seen.append(path.exists() and pandas.read_csv(path))
            assert (path.parent / "meta_tags.csv").exists()

    model = Looking()
    model.hparams = argparse.Namespace(layers=2)
    fit(tmp_path, make(), model)
    assert seen == [False]
    assert len(pandas.read_csv(path)) == 5


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's thread
@pytest.mark.parametrize("kind", ["csv", "test-tube"])
def test_rows_that_a_full_disk_cut_off_are_written_once_when_there_is_room(
    tmp_path: Path,
    make: MakeExperiment,  # noqa: F811
    kind: str,
) -> None:
    path = tmp_path / "tt/exp/version_0/metrics.csv"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Filling(Recorder):
        def on_batch_end(self) -> None:
            if self.global_step == 9:  # room for half of the next ten rows
                room = path.stat().st_size + 5 * 100
                resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
            if self.global_step == 30:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    experiment = make() if kind == "test-tube" else CSVLogger(tmp_path / "tt", "exp")
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        trainer = quiet_trainer(tmp_path, experiment=experiment, add_log_row_interval=1, log_save_interval=10)
        trainer.fit(Filling(nb_batches=40))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    rows = rows_in(path)
    assert [float(r["global_step"]) for r in rows] == [*range(40), 39]
    assert all(r["tng_loss"] and r["created_at"] for r in rows[:40])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's thread
def test_tensorboard_resumes_after_a_full_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Filling(Recorder):
        def on_batch_end(self) -> None:
            if self.global_step == 9:
                resource.setrlimit(resource.RLIMIT_FSIZE, (1, limits[1]))
            if self.global_step == 30:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    logger = TensorBoardLogger(tmp_path / "tb", "run")
    try:
        trainer = quiet_trainer(tmp_path, experiment=logger, add_log_row_interval=1, log_save_interval=5)
        assert trainer.fit(Filling(nb_batches=40)) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    events = EventAccumulator(str(tmp_path / "tb/run/version_0/tf"))
    events.Reload()
    assert {e.step for e in events.Scalars("tng_loss")} >= set(range(35, 40))
    assert capsys.readouterr().err.count("TensorBoardLogger failed; training continues") == 1


def test_without_an_experiment_a_models_rows_are_taken_as_kindly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Logging(Recorder):
        def on_epoch_end(self) -> None:
            self.experiment.log({"one": torch.ones(1), "several": torch.ones(2), "pair": {"left": np.float32(4.5)}})

    fit(tmp_path, None, Logging())
    row = rows_in(tmp_path / "logs/Logging/version_0/metrics.csv")[-1]
    assert (row["one"], row["left"]) == ("1.0", "4.5")
    assert "several" not in row
    assert "'several' isn't logged: it is a Tensor" in capsys.readouterr().err


def test_an_experiment_in_its_logger_is_the_models(tmp_path: Path, make: MakeExperiment) -> None:  # noqa: F811
    experiment = make()
    assert fit(tmp_path, [CSVLogger(tmp_path / "csv"), TestTubeLogger(experiment)]).experiment is experiment
    assert len(rows_in(tmp_path / "tt/exp/version_0/metrics.csv")) == 5


def test_a_default_folder_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lightning_logs").write_text("in the way")
    trainer = quiet_trainer(tmp_path, default_save_path="./lightning_logs")
    assert trainer.fit(Recorder()) == 1
    assert "so this run writes no files  [no-files]" in capsys.readouterr().err
    assert (tmp_path / "lightning_logs").read_text() == "in the way"
