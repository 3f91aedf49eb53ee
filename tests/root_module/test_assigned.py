"""Attributes of a module that the trainer sets, and that programs of 2019 set too."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from test_tube import Experiment
from torch import nn

from pytorch_lightning import LightningModule
from pytorch_lightning.errors import MisconfigurationException
from tests.recorder import quiet_trainer

FLAGS = ("use_dp", "use_ddp", "use_amp")


class Model(LightningModule):
    def __init__(self, **assigned: Any) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.seen: list[Any] = []
        for name, value in assigned.items():
            setattr(self, name, value)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        self.seen.append({name: getattr(self, name) for name in (*FLAGS, "current_epoch", "global_step", "on_gpu")})
        return self.layer(data_batch).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)

    @property
    def tng_dataloader(self) -> Any:
        self.flags = [getattr(self, name) for name in FLAGS]
        return [torch.ones(3, 2)] * 2


class InTwoProcesses(Model):
    def on_batch_end(self) -> None:
        if not self.use_ddp:
            raise RuntimeError


def test_the_kind_of_run_stands_on_the_module(tmp_path: Path) -> None:
    model = Model()
    assert [getattr(model, name) for name in FLAGS] == [False] * 3
    quiet_trainer(tmp_path).fit(model)
    assert model.flags == [False] * 3
    assert [[seen[name] for name in FLAGS] for seen in model.seen] == [[False] * 3] * 2
    quiet_trainer(tmp_path, use_amp=True).fit(model)
    assert model.flags == [False, False, True]
    quiet_trainer(tmp_path, nb_processes=2).fit(InTwoProcesses())
    with pytest.raises(RuntimeError):
        quiet_trainer(tmp_path).fit(InTwoProcesses())


def test_what_init_assigns_holds_until_a_trainer_knows_better(tmp_path: Path) -> None:
    assigned = {"current_epoch": 7, "global_step": 9, "on_gpu": True, "use_ddp": True, "gradient_clip": 5.0}
    model = Model(**assigned)
    assert {name: getattr(model, name) for name in assigned} == assigned
    quiet_trainer(tmp_path, gradient_clip=1.0).fit(model)
    assert [(seen["current_epoch"], seen["global_step"], seen["on_gpu"]) for seen in model.seen] == [
        (0, 0, False),
        (0, 1, False),
    ]
    assert (model.use_ddp, model.gradient_clip) == (False, 1.0)


def test_a_dtype_of_the_models_own(tmp_path: Path) -> None:
    model = Model(dtype=torch.FloatTensor)
    quiet_trainer(tmp_path).fit(model)
    assert model.dtype is torch.FloatTensor
    assert Model().dtype is torch.float32


@pytest.mark.parametrize("name", ["current_epoch", "global_step", "use_ddp", "gradient_clip"])
def test_a_value_without_effect_is_refused(tmp_path: Path, name: str) -> None:
    class Counting(Model):
        def on_batch_end(self) -> None:
            setattr(self, name, getattr(self, name) + 1)

    with pytest.raises(MisconfigurationException, match=rf"{name} of Counting is the trainer's.*another name"):
        quiet_trainer(tmp_path).fit(Counting())


def test_a_value_that_is_the_trainers_anyway_is_allowed(tmp_path: Path) -> None:
    class Same(Model):
        def on_batch_end(self) -> None:
            self.global_step = self.trainer.global_step

    assert quiet_trainer(tmp_path).fit(Same()) == 1


def test_an_experiment_of_the_models_own_counts_where_the_trainer_has_none(tmp_path: Path) -> None:
    own = Experiment(save_dir=str(tmp_path), name="own")
    model = Model(experiment=own)
    assert model.experiment is own
    quiet_trainer(tmp_path, experiment=False).fit(model)
    assert model.experiment is own
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert copied.experiment is not own
    trainers = Experiment(save_dir=str(tmp_path), name="trainers")
    quiet_trainer(tmp_path, experiment=trainers).fit(model)
    assert model.experiment is trainers
