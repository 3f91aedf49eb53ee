"""Configs of Hydra and OmegaConf, where dicts and lists are taken."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping

pytestmark = pytest.mark.neighbours
omegaconf = pytest.importorskip("omegaconf", reason='omegaconf isn\'t installed: pip install -e ".[neighbours]"')
hydra = pytest.importorskip("hydra", reason='hydra isn\'t installed: pip install -e ".[neighbours]"')

YAML = """
epochs: 2
model: {lr: 0.25, widths: [4, 3]}
callbacks:
  - {_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: val_loss}
trainer:
  max_nb_epochs: ${epochs}
  lr_scheduler_milestones: [1]
  accumulate_grad_batches: {1: 2}
  silence: [no-validation]
  progress_bar: false
"""


class Model(LightningModule):
    def __init__(self, hparams: Any) -> None:
        super().__init__(hparams)
        self.layer = torch.nn.Linear(*hparams.widths)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return self.layer(data_batch).pow(2).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), self.hparams.lr)

    @property
    def tng_dataloader(self) -> Any:
        data = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
        return torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)


def fitted(hparams: Any, folder: Path, **options: Any) -> Model:
    torch.manual_seed(0)
    model = Model(hparams)
    Trainer(default_save_path=folder, seed=1, save_every_nb_batches=3, **options).fit(model)
    return model


@pytest.mark.parametrize("how", ["omegaconf", "hydra"])
def test_a_config_trains_as_the_plain_options_do(how: str, tmp_path: Path) -> None:
    if how == "hydra":
        (tmp_path / "c.yaml").write_text(YAML)
        with hydra.initialize_config_dir(str(tmp_path), version_base=None):
            config = hydra.compose("c")
    else:
        config = omegaconf.OmegaConf.create(YAML)
    callbacks = hydra.utils.instantiate(config.callbacks)
    assert isinstance(callbacks, omegaconf.ListConfig)
    trainer = Trainer(callbacks=callbacks, **config.trainer)
    assert [type(one) for one in trainer.config.callbacks] == [EarlyStopping]
    plain = {
        "max_nb_epochs": 2,
        "lr_scheduler_milestones": [1],
        "accumulate_grad_batches": {1: 2},
        "silence": ["no-validation"],
        "progress_bar": False,
    }
    assert {**trainer.options, "callbacks": ()} == Trainer(**plain).options
    assert Trainer.from_args(config.trainer).options == Trainer(**plain).options

    model = fitted(config.model, tmp_path / "config", **config.trainer)
    from argparse import Namespace

    wanted = fitted(Namespace(lr=0.25, widths=[4, 3]), tmp_path / "plain", **plain)
    assert torch.equal(model.layer.weight, wanted.layer.weight)
    folder = tmp_path / "config/Model/version_0"
    with open(folder / "meta_tags.csv", newline="") as file:
        assert {row["key"]: row["value"] for row in csv.DictReader(file)} == {"lr": "0.25", "widths": "[4, 3]"}
    (save,) = folder.glob("checkpoints/*.ckpt")
    hparams = torch.load(save, weights_only=True)["hparams"]
    assert hparams == {"lr": 0.25, "widths": [4, 3]}
    assert type(hparams["widths"]) is list
    assert "widths: [4, 3]" in (folder / "options.yaml").read_text().splitlines()


def test_gpus_of_a_config_are_checked_as_a_list(tmp_path: Path) -> None:
    from pytorch_lightning.errors import MisconfigurationException

    config = omegaconf.OmegaConf.create({"gpus": [0, 0], "max_nb_epochs": "???"})
    with pytest.raises(MisconfigurationException, match=r"a list of different ones.*received \[0, 0\] \(list\)"):
        Trainer(gpus=config.gpus)
    with pytest.raises(Exception, match="max_nb_epochs"):
        Trainer(**config)
