"""``resume='auto'`` through the public Trainer: which run is continued, where, and with which rows."""

from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.errors import CheckpointError
from tests.recorder import QUIET, Recorder, rows_of


class Cut(Exception):
    pass


class Cuttable(Recorder):
    """Raises after the batch ``cut_at``, counted over all epochs."""

    cut_at: int | None = None

    def on_batch_end(self) -> None:
        if self.global_step == self.cut_at:
            raise Cut


def fit(folder: Any, cut_at: int | None = None, **options: Any) -> tuple[Trainer, Cuttable]:
    settings = {**QUIET, "default_save_path": folder, "max_nb_epochs": 3, "save_every_nb_batches": 2, "resume": "auto"}
    silence = (*QUIET["silence"], "first-save")
    trainer = Trainer(**{**settings, "silence": silence, "add_log_row_interval": 1, **options})
    model = Cuttable()
    model.cut_at = cut_at
    if cut_at is None:
        trainer.fit(model)
    else:
        with pytest.raises(Cut):
            trainer.fit(model)
    return trainer, model


def saves(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("step-*"))


def plain_rows(folder: Path) -> list[dict[str, str]]:
    rows = rows_of(folder, "Cuttable")
    return [{key: value for key, value in row.items() if key != "created_at"} for row in rows]


def test_an_interrupted_run_resumes_in_its_own_folder_with_its_own_rows(tmp_path: Path) -> None:
    _, whole = fit(tmp_path / "whole" / "logs")
    for cut_at in (5, 9):
        fit(tmp_path / "cut" / "logs", cut_at)
    assert saves(tmp_path / "cut")[0] < saves(tmp_path / "cut")[1]
    trainer, model = fit(tmp_path / "cut" / "logs")
    assert torch.equal(model.weight, whole.weight)
    assert plain_rows(tmp_path / "cut") == plain_rows(tmp_path / "whole")
    assert trainer.global_step == 12
    assert [p.name for p in (tmp_path / "cut/logs/Cuttable").iterdir()] == ["version_0"]
    assert saves(tmp_path / "cut") == ["step-000000000012.ckpt"]  # the finished one replaces the others


def test_a_finished_run_is_loaded_and_resumes_if_a_limit_was_raised(tmp_path: Path) -> None:
    _, first = fit(tmp_path / "logs")
    trainer, again = fit(tmp_path / "logs")
    assert torch.equal(first.weight, again.weight)
    assert "training_step" not in again.names()
    trainer, longer = fit(tmp_path / "logs", max_nb_epochs=4)
    assert (longer.nb("training_step"), trainer.global_step) == (4, 16)
    assert not torch.equal(first.weight, longer.weight)


def test_without_a_run_it_starts_and_saves_before_the_first_batch(tmp_path: Path) -> None:
    fit(tmp_path / "logs", 0, save_every_nb_batches=None)
    assert saves(tmp_path) == ["step-000000000000.ckpt"]


def test_an_unfinished_run_is_one_line_where_resume_is_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path / "logs", 5)
    assert capsys.readouterr().err == ""
    fit(tmp_path / "logs", resume=None, save_every_nb_batches=None)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "version_0 holds an unfinished run (epoch 0, global_step " in said
    assert "resume='auto' resumes it" in said
    fit(tmp_path / "other", resume=None, save_every_nb_batches=None)
    assert capsys.readouterr().err == ""


def test_a_short_plain_run_writes_no_save_and_one_that_takes_longer_does(tmp_path: Path) -> None:
    fit(tmp_path / "short", resume=None, save_every_nb_batches=None)
    assert saves(tmp_path / "short") == []
    fit(tmp_path / "long", resume=None, save_every_nb_batches=None, save_every_minutes=1e-7)
    assert saves(tmp_path / "long") == ["step-000000000012.ckpt"]
    fit(tmp_path / "off", resume=None, save_every_nb_batches=None, save_every_minutes=0)
    assert saves(tmp_path / "off") == []


def test_a_trial_saves_nothing(tmp_path: Path) -> None:
    fit(tmp_path / "logs", fast_dev_run=True)
    assert saves(tmp_path) == []


def test_a_run_without_a_log_keeps_its_saves_by_default(tmp_path: Path) -> None:
    fit(tmp_path / "logs", 5, experiment=False)
    there = [path.name for path in (tmp_path / "logs/Cuttable").iterdir()]
    trainer, _ = fit(tmp_path / "logs", experiment=False)
    assert trainer.global_step == 12
    assert there == [path.name for path in (tmp_path / "logs/Cuttable").iterdir()] == ["version_0"]
    assert saves(tmp_path) == ["step-000000000012.ckpt"]


def test_a_users_experiment_resumes_in_its_version_and_its_new_folder_goes(tmp_path: Path) -> None:
    from test_tube import Experiment

    def run(folder: str, cut_at: int | None) -> Cuttable:
        experiment = Experiment(name="mine", save_dir=tmp_path / folder)
        experiment.tag({"a": 1})
        experiment.save()
        trainer, model = fit(tmp_path / "unused", cut_at, experiment=experiment)
        assert experiment.version == 0
        assert trainer.experiment is experiment
        return model

    whole = run("whole", None)
    run("cut", 5)
    model = run("cut", None)
    assert torch.equal(model.weight, whole.weight)
    assert [p.name for p in (tmp_path / "cut/mine").iterdir()] == ["version_0"]
    rows = [(tmp_path / folder / "mine/version_0/metrics.csv").read_text().splitlines() for folder in ("whole", "cut")]
    columns = rows[0][0].split(",")
    keep = [i for i, name in enumerate(columns) if name != "created_at"]
    assert rows[1][0] == rows[0][0]
    first, second = ([[row.split(",")[i] for i in keep] for row in each] for each in rows)
    assert first == second
    tags = (tmp_path / "cut/mine/version_0/meta_tags.csv").read_text()
    assert "a,1" in tags


def test_weights_in_the_folder_of_a_version_resume_in_that_version(tmp_path: Path) -> None:
    from test_tube import Experiment

    def run(cut_at: int | None) -> ModelCheckpoint:
        experiment = Experiment(name="mine", save_dir=tmp_path)
        keep = ModelCheckpoint(tmp_path / f"mine/version_{experiment.version}/weights", save_top_k=2)
        fit(tmp_path / "unused", cut_at, experiment=experiment, checkpoint_callback=keep)
        return keep

    run(5)
    keep = run(None)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["version_0"]
    assert sorted(keep.kept) == [str(tmp_path / f"mine/version_0/weights/_ckpt_epoch_{n}.ckpt") for n in (1, 2)]
    assert sorted(keep.kept) == sorted(map(str, (tmp_path / "mine/version_0/weights").iterdir()))


def test_saves_on_another_machine_are_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where the rows go
    where = f"memory://{tmp_path.name}/runs"
    _, whole = fit(tmp_path / "whole")
    fit(where, 5)
    _, model = fit(where)
    assert torch.equal(model.weight, whole.weight)
    _, again = fit(where)
    assert torch.equal(again.weight, whole.weight)
    assert "training_step" not in again.names()
    fit(where, resume=None, max_nb_epochs=1)  # a run of its own
    assert fsspec.filesystem("memory").ls(f"/{tmp_path.name}/runs/Cuttable", detail=False) == [
        f"/{tmp_path.name}/runs/Cuttable/version_{n}" for n in (0, 1)
    ]
    assert (tmp_path / "lightning_logs/Cuttable").is_dir()
    assert not (tmp_path / "memory:").exists()


def test_nothing_that_can_be_trusted_is_an_error(tmp_path: Path) -> None:
    fit(tmp_path / "logs", 5)
    for path in tmp_path.rglob("step-*"):
        path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(CheckpointError, match=r"no save in .* can be trusted"):
        fit(tmp_path / "logs")


def test_what_the_users_hooks_do_not_bring_back_is_named(tmp_path: Path) -> None:
    class Forgetful(Cuttable):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen_batches", torch.zeros(1))

        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            self.seen_batches += 1
            return super().training_step(data_batch, batch_nb)

        def get_save_dict(self) -> Any:
            return {"state_dict": {"weight": self.weight.detach()}}

        def load_model_specific(self, checkpoint: Any) -> None:
            self.load_state_dict(checkpoint["state_dict"], strict=False)

    options = {**QUIET, "default_save_path": tmp_path, "resume": "auto", "silence": ("not-shuffled", "first-save")}
    Trainer(**options, max_nb_epochs=1).fit(Forgetful())
    with pytest.raises(CheckpointError, match=r"load_model_specific of Forgetful didn't restore seen_batches"):
        Trainer(**options, max_nb_epochs=2).fit(Forgetful())
