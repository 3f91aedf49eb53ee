"""``resume='auto'`` in the jobs of a cluster: each goes on with its own run, and with no other."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.errors import SHOWN, CheckpointError
from tests.recorder import quiet_trainer

NB_BATCHES, NB_EPOCHS = 4, 3


class Net(LightningModule):
    """One weight; the rate tells one task of a sweep from another."""

    stop_at: int | None = None

    def __init__(self, rate: float) -> None:
        super().__init__({"rate": rate})
        self.weight = nn.Parameter(torch.ones(1))

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        if self.global_step == self.stop_at:
            raise KeyError("cut")
        return (self.weight * data_batch).pow(2).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), self.hparams["rate"])

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(torch.arange(1.0, NB_BATCHES + 1), batch_size=1)


def by_hand(rate: float) -> float:
    weight = torch.ones(1)
    for _ in range(NB_EPOCHS):
        for x in torch.arange(1.0, NB_BATCHES + 1):
            weight -= rate * (2 * x * x * weight)
    return float(weight)


def start(monkeypatch: pytest.MonkeyPatch, **variables: Any) -> None:
    """The variables of a cluster, for one start of one job."""
    for name in [n for n in os.environ if n.startswith(("SLURM_", "TORCHELASTIC_"))]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))


def slurm(monkeypatch: pytest.MonkeyPatch, job: int, array: int | None = None, restarts: int = 0) -> None:
    variables = {"SLURM_JOB_ID": job, "SLURM_JOB_NAME": "sweep", "SLURM_RESTART_COUNT": restarts}
    if array is not None:
        variables |= {"SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": job - array}
    start(monkeypatch, **variables)


def fit(folder: Path, rate: float, stop_at: int | None = None, **options: Any) -> tuple[Trainer, float]:
    settings = {"max_nb_epochs": NB_EPOCHS, "save_every_nb_batches": 1, "resume": "auto", "crash_bundle": False}
    silence = ("no-validation", "not-shuffled", "first-save")
    trainer, model = quiet_trainer(folder, **{**settings, "silence": silence, **options}), Net(rate)
    Net.stop_at = stop_at
    if stop_at is None:
        trainer.fit(model)
    else:
        with pytest.raises(KeyError, match="cut"):
            trainer.fit(model)
    return trainer, float(model.weight.detach())


def versions(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "logs/Net").iterdir())


@pytest.mark.parametrize("restarts", [0, 1])
def test_each_task_of_an_array_resumes_its_own_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restarts: int
) -> None:
    rates = {0: 0.001, 1: 0.002, 2: 0.003}
    for task, rate in rates.items():
        slurm(monkeypatch, 100 + task, 100)
        fit(tmp_path, rate, 3 + task)
    for task, rate in rates.items():
        slurm(monkeypatch, 100 + task, 100, restarts)
        trainer, weight = fit(tmp_path, rate)
        assert trainer.optimizers[0].param_groups[0]["lr"] == rate
        assert weight == pytest.approx(by_hand(rate), rel=1e-6)
    assert versions(tmp_path) == ["version_0", "version_1", "version_2"]


@pytest.mark.parametrize(
    "other", [{"SLURM_JOB_ID": 8, "SLURM_JOB_NAME": "train"}, {"TORCHELASTIC_RUN_ID": "other"}, {}]
)
def test_a_job_starts_a_run_of_its_own_and_says_how_to_resume_that_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], other: dict[str, Any]
) -> None:
    start(monkeypatch, **other)
    fit(tmp_path, 0.001, 6)
    capsys.readouterr()
    slurm(monkeypatch, 7)
    _, weight = fit(tmp_path, 0.002)
    assert weight == pytest.approx(by_hand(0.002), rel=1e-6)
    assert versions(tmp_path) == ["version_0", "version_1"]
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"version_0 holds an unfinished run (epoch 1, global_step 6) of {'another job' if other else 'no job'}" in (
        said
    )
    assert f"resume='{tmp_path}/logs/Net/version_0' resumes it in this job  [unfinished-run]" in said


def test_the_folder_of_a_run_is_resumed_as_it_is_by_any_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm(monkeypatch, 7)
    fit(tmp_path, 0.001, 6)
    fit(tmp_path, 0.001, 5, resume=None)  # another run, newer
    slurm(monkeypatch, 8)
    _, weight = fit(tmp_path, 0.001, resume=tmp_path / "logs/Net/version_0")
    assert weight == pytest.approx(by_hand(0.001), rel=1e-6)
    assert versions(tmp_path) == ["version_0", "version_1"]
    assert [path.name for path in tmp_path.glob("logs/Net/version_0/checkpoints/step-*")] == ["step-000000000012.ckpt"]
    with pytest.raises(CheckpointError, match=r"isn't a run of .*other/logs/Net"):
        fit(tmp_path / "other", 0.001, resume=tmp_path / "logs/Net/version_0")


def test_a_job_says_what_resumes_its_run_in_any_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def notes(folder: Path) -> tuple[str, str]:
        SHOWN.clear()
        model = Net(0.001)
        model.stop_at = 3
        with pytest.raises(KeyError) as raised:
            quiet_trainer(folder, resume="auto", max_nb_epochs=NB_EPOCHS, crash_bundle=False).fit(model)
        (note,) = (note for note in raised.value.__notes__ if "is saved" in note)
        return note, capsys.readouterr().err

    start(monkeypatch)
    note, said = notes(tmp_path / "none")
    assert note == "the state at global_step 3 is saved; resume='auto' resumes from there"
    assert "; resume='auto' resumes from the newest" in said
    slurm(monkeypatch, 7)
    note, said = notes(tmp_path / "job")
    option = f"resume='{tmp_path / 'job'}/logs/Net/version_0'"
    assert note == f"the state at global_step 3 is saved; {option} resumes from there"
    assert f"; {option} resumes from the newest" in said
    slurm(monkeypatch, 8)
    folder = option.removeprefix("resume=").strip("'")
    _, weight = fit(tmp_path / "job", 0.001, resume=folder)
    assert weight == pytest.approx(by_hand(0.001), rel=1e-6)


def test_without_a_job_any_newest_run_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm(monkeypatch, 7)
    fit(tmp_path, 0.001, 6)
    each: tuple[dict[str, Any], ...] = (
        {},
        {"SLURM_JOB_ID": 9, "SLURM_JOB_NAME": "bash"},
        {"TORCHELASTIC_RUN_ID": "none"},
        {"TORCHELASTIC_RUN_ID": "1c51eea6-9928-4408-8256-49cddcf36aa9"},  # as torchrun makes it up
    )
    for variables in each:
        start(monkeypatch, **variables)
        _, weight = fit(tmp_path, 0.001)
        assert weight == pytest.approx(by_hand(0.001), rel=1e-6)
    assert versions(tmp_path) == ["version_0"]


def test_a_run_that_still_runs_is_no_unfinished_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Outer(Net):
        def on_epoch_end(self) -> None:
            if self.current_epoch == 0:
                slurm(monkeypatch, 102, 100)
                fit(tmp_path, 0.002)

    slurm(monkeypatch, 101, 100)
    Outer.__name__ = "Net"
    options = {"max_nb_epochs": 2, "save_every_nb_batches": 1, "resume": "auto"}
    quiet_trainer(tmp_path, silence=("no-validation", "not-shuffled", "first-save"), **options).fit(Outer(0.001))
    assert capsys.readouterr().err == ""
    assert versions(tmp_path) == ["version_0", "version_1"]


def test_without_scontrol_a_line_says_how_the_run_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm(monkeypatch, 7)
    monkeypatch.setenv("PATH", str(tmp_path))  # as in a container

    def end(self: Any) -> None:
        if self.global_step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Net, "on_batch_end", end)
        with pytest.raises(SystemExit) as stopped:
            fit(tmp_path, 0.001, resume=None, save_every_nb_batches=None)
    assert stopped.value.code == 75
    said = " ".join("".join(capsys.readouterr()).split())
    assert "job 7 couldn't be requeued, since there is no scontrol here" in said
    assert f"with resume='{tmp_path}/logs/Net/version_0' to resume" in said
    slurm(monkeypatch, 8)
    _, weight = fit(tmp_path, 0.001, resume=tmp_path / "logs/Net/version_0")
    assert weight == pytest.approx(by_hand(0.001), rel=1e-6)
    assert versions(tmp_path) == ["version_0"]
