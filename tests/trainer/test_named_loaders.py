"""Loaders of an evaluation that have names."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pytorch_lightning import LightningModule
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.errors import MisconfigurationException
from tests.recorder import Recorder, quiet_trainer


def loaders() -> dict[str, Any]:
    return {"clean": DataLoader(torch.arange(5.0), batch_size=2), "noisy": [torch.tensor([10.0, 20.0])]}


class Named(Recorder):
    """Its validation gives the sums of its batches, and nobody summarizes them."""

    def __init__(self, given: Any = None) -> None:
        super().__init__()
        self.given = given

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        return {"val_loss": data_batch.sum()}

    validation_end = LightningModule.validation_end

    @property
    def val_dataloader(self) -> Any:
        return loaders() if self.given is None else self.given

    test_dataloader = val_dataloader


class Summarized(Named):
    def validation_step(self, data_batch: Any, batch_nb: int, name: str) -> Any:
        self.note(name, batch_nb)
        return data_batch.sum()

    def validation_end(self, outputs: Any) -> Any:
        return {"all": sum(map(sum, outputs.values())), **{name: {"nb": len(each)} for name, each in outputs.items()}}


def test_numbers_are_averaged_for_each_name(tmp_path: Path) -> None:
    trainer = quiet_trainer(tmp_path)
    model = Named()
    trainer.fit(model)
    expected = {"clean/val_loss": (1 + 5 + 4) / 3, "noisy/val_loss": 30.0}
    assert trainer.metrics.items() >= expected.items()
    assert trainer.validate() == trainer.test() == expected
    assert trainer.nb_val_batches == 4


def test_an_end_gets_them_by_name(tmp_path: Path) -> None:
    trainer = quiet_trainer(tmp_path, max_nb_val_batches=2)
    trainer.fit(model := Summarized())
    assert trainer.validate() == {"all": 36.0, "clean/nb": 2, "noisy/nb": 1}
    names = [call for call in model.calls if call[0] in loaders()]
    assert names[:3] == [("clean", 0), ("clean", 1), ("noisy", 0)]


def test_a_name_can_be_monitored(tmp_path: Path) -> None:
    kept = ModelCheckpoint(tmp_path / "kept", monitor="clean/val_loss", save_top_k=1, filename="{noisy/val_loss:.0f}")
    stopping = EarlyStopping("noisy/val_loss", patience=1)
    trainer = quiet_trainer(tmp_path, checkpoint_callback=kept, early_stop_callback=stopping, max_nb_epochs=9)
    trainer.fit(Named())
    assert trainer.progress.epoch == 2
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["noisy_val_loss=30.ckpt"]


def test_predictions_have_the_names(tmp_path: Path) -> None:
    class Predicting(Named):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

    trainer = quiet_trainer(tmp_path)
    found = trainer.predict(Predicting())
    assert {name: [x.tolist() for x in each] for name, each in found.items()} == {
        "clean": [[0.0, 2.0], [4.0, 6.0], [8.0]],
        "noisy": [[20.0, 40.0]],
    }


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({}, "a dict without loaders"),
        ({1: [torch.ones(2)]}, "a name that isn't text"),
        ({"a": {"b": [torch.ones(2)]}}, "loaders inside of loaders, under 'a'"),
        ({"a": [DataLoader(torch.ones(2))] * 2}, "loaders inside of loaders, under 'a'"),
        ({"a": 3}, "something that isn't a loader"),
        ({"a": iter([torch.ones(2)])}, "yields its batches only once"),
    ],
)
def test_what_is_no_loader_by_name_is_refused(tmp_path: Path, given: Any, what: str) -> None:
    with pytest.raises(MisconfigurationException, match=what):
        quiet_trainer(tmp_path).fit(Named(given))
