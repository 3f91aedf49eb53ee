"""Metrics of an epoch in several processes that are killed."""

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.launchers.ranks import in_ranks
from tests.launchers.test_torchrun import ROOT

PROGRAM = """
import csv, json, os, signal, torch
import torch.distributed as dist
from pathlib import Path
from pytorch_lightning import Trainer
from tests.recorder import QUIET
from tests.trainer import test_epoch_metrics

options, rank = json.loads(os.environ["OPTIONS"]), os.environ.get("RANK", "0")
kill_at, real = options.pop("kill_at", None), options.pop("real", False)


class Largest(test_epoch_metrics.Largest):
    def compute(self):
        value = torch.tensor(self.value)
        if dist.is_initialized():
            dist.all_reduce(value, dist.ReduceOp.MAX)
        return value


class Net(test_epoch_metrics.Net):
    def __init__(self):
        super().__init__()
        self.largest = Largest()
        if real:
            import torchmetrics
            self.mean, self.on_validation = torchmetrics.MeanMetric(), torchmetrics.MeanMetric()

    def training_step(self, data_batch, batch_nb):
        given = super().training_step(data_batch, batch_nb)
        if real:
            self.mean.update(data_batch[0] + self.current_epoch)
            given["prog_epoch"]["mean"] = self.mean
        return given

    def validation_step(self, data_batch, batch_nb):
        if real:
            self.on_validation.update(data_batch[0])
        return {}

    def validation_end(self, outputs):
        if not real:
            return {}
        value = self.on_validation.compute()
        self.on_validation.reset()
        return {"val_mean": value}

    val_dataloader = test_epoch_metrics.Net.tng_dataloader

    def on_batch_end(self):
        if self.global_step == kill_at:
            if rank == "0":
                trainer._plan.rolling._writer and trainer._plan.rolling._writer.wait()
            trainer._strategy.processes.wait()
            os.kill(os.getpid(), signal.SIGKILL)


trainer = Trainer(**{
    **QUIET, "max_nb_epochs": 3, "virtual_ranks": 2, "save_every_nb_batches": 1, "resume": "auto",
    "default_save_path": "logs", "nb_sanity_val_steps": 0, **options})
trainer.fit(Net())
if rank == "0":
    with open("logs/Net/version_0/metrics.csv", newline="") as file:
        rows = [{k: v for k, v in row.items() if k != "created_at"} for row in csv.DictReader(file)]
    Path("told.json").write_text(json.dumps([row for row in rows if row["tng_loss_epoch"] or row.get("val_mean")]))
"""


def told(folder: Path, nb: int, **options: Any) -> Any:
    folder.mkdir(exist_ok=True)
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = in_ranks(folder, PROGRAM, nb=nb, OPTIONS=json.dumps(options), PYTHONPATH=path)
    if "kill_at" in options:
        assert "SIGKILL" in done.stderr, done.stderr
        return None
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "told.json").read_text())


def numbers(rows: Any, name: str) -> list[float]:
    return [float(row[name]) for row in rows if row.get(name)]


@pytest.mark.parametrize("real", [False, pytest.param(True, marks=pytest.mark.neighbours)])
def test_the_same_in_one_process_and_several_and_after_kills(tmp_path: Path, real: bool) -> None:
    if real and importlib.util.find_spec("torchmetrics") is None:
        pytest.skip('torchmetrics isn\'t installed: pip install -e ".[neighbours]"')
    one, two = told(tmp_path / "one", 1, real=real), told(tmp_path / "two", 2, real=real)
    assert len(numbers(one, "largest")) == 3
    for name in ("mean_x", "ones", "largest"):
        assert numbers(one, name) == numbers(two, name), name
    for name in ("tng_loss_epoch", *(("mean", "val_mean") if real else ())):
        assert numbers(one, name) == pytest.approx(numbers(two, name), rel=1e-6), name
    if real:
        assert numbers(two, "mean") == pytest.approx([0.9, 1.9, 2.9])
        assert numbers(two, "val_mean") == pytest.approx([0.9] * 3)
    for before, after, at in ((2, 2, 1), (2, 2, 2), (2, 1, 3), (1, 2, 1)):
        folder = tmp_path / f"{before}{after}{at}"
        told(folder, before, kill_at=at, real=real)
        again = told(folder, after, real=real)
        for name in ("mean_x", "ones", "largest"):
            assert numbers(again, name) == numbers(two, name), (name, before, after, at)
        if before == after:
            assert again == two
