"""A fork is refused where it can't be exact, and says whose it is; one that is killed is resumed as it was."""

import json
import os
import signal
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pytorch_lightning import Trainer, runs
from pytorch_lightning.callbacks import Callback, EarlyStopping
from pytorch_lightning.errors import MisconfigurationException
from pytorch_lightning.forks.child import rows_of
from pytorch_lightning.forks.command import main
from tests.forks.models import ASKED, SEEN, Model
from tests.forks.test_fork_cases import end_of, same

HPARAMS: dict[str, Any] = {
    "init": 3, "norm": False, "dropout": 0.2, "alpha": 1.0, "learning_rate": 0.05, "decay": 0.01, "groups": 1,
    "optimizer": "sgd", "nb": 24, "schedule": "none", "batch_size": 3, "order": "shuffled", "drop_last": False,
}  # fmt: skip
NB = 8
"""Batches of an epoch."""
QUIET: dict[str, Any] = {
    "progress_bar": False, "print_weights_summary": False, "save_every_minutes": 0, "save_every_nb_batches": 4,
    "keep_saves": "spaced", "max_nb_epochs": 2, "seed": 5, "add_log_row_interval": 1, "resume": "auto",
}  # fmt: skip


def trained(folder: Path, kind: Callable[[Any], Any] = Model, hparams: Any = (), **options: Any) -> Path:
    """The folder of a parent."""
    model = kind(Namespace(**{**HPARAMS, **dict(hparams)}))
    Trainer(**{**QUIET, "default_save_path": folder, **options}).fit(model)
    SEEN.clear()
    ASKED.clear()
    return folder / type(model).__name__ / "version_0"


def forked(run: Path, batch: int, *words: str, module: str = "tests.forks.models", status: int = 0) -> Path:
    assert main([str(run), str(batch), "--module", module, *words]) == status
    return max(run.parent.glob("version_*"))


def refusal(capsys: pytest.CaptureFixture[str], run: Path, batch: int, *words: str, module: str = __name__) -> str:
    before = sorted(path for path in run.parents[1].rglob("*"))
    capsys.readouterr()
    forked(run, batch, *words, module=module, status=1)
    assert sorted(path for path in run.parents[1].rglob("*")) == before  # nothing is left of it
    return capsys.readouterr().err.splitlines()[-1]


def test_what_a_fork_cannot_change_exactly_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path, accumulate_grad_batches=2)

    def refused(batch: int, *words: str) -> str:
        return refusal(capsys, run, batch, *words, module="tests.forks.models")

    for name in ("seed", "precision", "train_percent_check", "nb_processes", "lr_scheduler_milestones"):
        assert f"{name} can't be changed at a fork exactly" in refused(4, "--set", f"{name}=1")
    assert "the batch size was 3 and is 4" in refused(4, "--set", "batch_size=4")
    assert "the training data come in another order" in refused(4, "--set", "order=plain")
    assert "Did you mean 'dropout'?" in refused(4, "--set", "dropuot=0.1")
    assert "dropout was 0.2; pass a value of that kind" in refused(4, "--set", "dropout=high")
    assert "lr was 0.05; pass a value of that kind" in refused(4, "--set", "lr=-1")
    assert "--set lr: pass NAME=VALUE" in refused(4, "--set", "lr")
    assert "gradient_clip_algorithm must be" in refused(4, "--set", "gradient_clip_algorithm=no")
    assert "Pass 3 as BATCH, or skip batches from 4 on" in refused(4, "--skip_batches", "3:5")
    assert "--skip_batches 5: pass FIRST:END" in refused(4, "--skip_batches", "5")
    assert "batch 5 lies within a step of several batches" in refused(5)
    assert "Pass 6, before which the next step begins" in refused(5)
    assert "training ended before batch 99: the run has 16 batches" in refused(99)
    assert "there is no batch -1" in refused(-1)
    assert "isn't the folder of a run" in refused(4) if (run / "options.yaml").rename(run / "aside") else None


def saves_of(run: Path) -> list[int]:
    """A save that falls due while another is written is left out."""
    return [int(path.name[5:17]) for path in (run / "checkpoints").glob("step-*.ckpt")]


class Other(Callback):
    """One of a user's own."""


class Several(Model):
    """Its hparams change attributes while training."""

    def on_epoch_start(self) -> None:
        self.alpha = self.alpha * 0.9


@pytest.mark.slow
def test_a_parent_that_its_folder_does_not_tell_all_of_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_callback = trained(tmp_path / "1", callbacks=[Other()])
    assert "a folder holds no objects: Other" in refusal(capsys, with_callback, 4, module="tests.forks.models")
    changing = trained(tmp_path / "3", Several)
    said = refusal(capsys, changing, 4, "--set", "alpha=2.0")
    assert "module.alpha comes from a hyperparameter, but it changed while training" in said
    without = trained(tmp_path / "4", save_every_nb_batches=100, keep_saves="newest")
    assert "can't be replayed from" in refusal(capsys, without, 4, module="tests.forks.models")


def save_of(run: Path, step: int) -> Any:
    return torch.load(run / "checkpoints" / f"step-{step:012d}.ckpt", weights_only=True)


def test_a_parent_that_gives_other_numbers_now_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path)
    rows = (run / "metrics.csv").read_text().split("\n")
    place = rows[0].split(",").index("tng_loss")
    cells = rows[7].split(",")  # of batch 6
    rows[7] = ",".join([*cells[:place], "0.5", *cells[place + 1 :]])
    (run / "metrics.csv").write_text("\n".join(rows))
    said = refusal(capsys, run, 7, module="tests.forks.models")
    assert "the replay of the parent isn't exact: at global_step 6 it gave tng_loss" in said
    assert forked(run, 6).name == "version_1"  # before that nothing is known to be other


def test_the_fork_names_its_parent_and_edits_and_shares_its_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(tmp_path, early_stop_callback=EarlyStopping("val_loss", patience=9))
    child = forked(run, 9, "--set", "lr=0.01", "init=7", "--skip_batches", "10:12")
    out = capsys.readouterr().out
    assert f"at batch 9, from its save at {max(n for n in saves_of(run) if n <= 9)}" in out
    assert "lr 0.05 -> 0.01" in out
    assert "init -> 7: nothing that configure_optimizers gives and no attribute" in out
    assert "without the batches 10 to 11" in out
    assert "left out, since a folder holds no objects: EarlyStopping" in out
    about = json.loads((child / "run.json").read_text())
    assert about["fork"] == {
        "parent": "../version_0", "batch": 9, "set": {"lr": "0.01", "init": "7"}, "skip_batches": ["10:12"]
    }  # fmt: skip
    assert [start["state"] for start in about["starts"]] == ["complete"]
    mine, its = rows_of(child / "metrics.csv"), rows_of(run / "metrics.csv")
    nb = sum(int(row["global_step"]) < 9 for row in its)
    assert mine[:nb] == its[:nb]
    later = [int(row["global_step"]) for row in mine[nb:] if "lr_0" in row]
    assert later == [9, 12, 13, 14, 15]
    assert {float(row["lr_0"]) for row in mine[nb:] if "lr_0" in row} == {0.01}
    table: Any = runs(tmp_path)
    rows = table.to_dict("records") if hasattr(table, "to_dict") else table
    assert rows[1]["fork"] == f"{run} at batch 9: lr=0.01, init=7, without 10:12"
    assert rows[1]["hparams.init"] == 7


def in_another_process(work: Callable[[], object]) -> int:
    """The status of a process that does ``work``."""
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return os.waitpid(pid, 0)[1]


@pytest.mark.parametrize("dies_at", [10, pytest.param(14, marks=pytest.mark.slow)])
def test_a_fork_that_is_killed_is_resumed_with_its_edits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: int
) -> None:
    words = ["--set", "lr=0.02", "dropout=0.4", "gradient_clip=0.2", "--skip_batches", "11:13"]
    run = trained(tmp_path, hparams={"schedule": "lambda"})
    whole = forked(run, 9, *words, "--default_save_path", str(tmp_path / "whole"))
    whole = tmp_path / "whole" / "Model" / "version_0"
    monkeypatch.setattr(Model, "dies_at", dies_at)
    assert in_another_process(lambda: forked(run, 9, *words)) == signal.SIGKILL
    monkeypatch.setattr(Model, "dies_at", -1)
    child = run.with_name("version_1")
    hparams = Namespace(**{**HPARAMS, "schedule": "lambda", "dropout": 0.4})
    options = {**QUIET, "default_save_path": tmp_path, "resume": child}
    with pytest.raises(MisconfigurationException, match=r"the option gradient_clip of it is 0\.2; received 0"):
        Trainer(**options).fit(Model(hparams))
    with pytest.raises(MisconfigurationException, match=r"the hyperparameter dropout of it is 0\.4; received 0\.2"):
        Trainer(**{**options, "gradient_clip": 0.2}).fit(Model(Namespace(**{**vars(hparams), "dropout": 0.2})))
    SEEN.clear()
    if dies_at == 10:
        assert forked(run, 9, *words, "--resume") == child
    else:  # a program that has the edits
        Trainer(**{**options, "gradient_clip": 0.2}).fit(Model(hparams))
    assert not {11, 12} & SEEN.keys()
    assert same(end_of(child), end_of(whole))
    assert rows_of(child / "metrics.csv") == rows_of(whole / "metrics.csv")
    assert forked(run, 9, *words) == run.with_name("version_2")  # without --resume: one more
