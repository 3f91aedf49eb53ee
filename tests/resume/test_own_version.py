"""``resume='auto'`` where the Experiment has the version of an older run."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_tube import Experiment

from pytorch_lightning import LightningModule
from tests.recorder import quiet_trainer


class Model(LightningModule):
    fails_at = -1

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        if self.global_step == self.fails_at:
            raise ValueError("the cut")
        return (self.weight * data_batch).sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)

    @property
    def tng_dataloader(self) -> Any:
        return [torch.ones(1)] * 6


def run(tmp_path: Path, version: int, fails_at: int = -1, **options: Any) -> Any:
    experiment = Experiment(save_dir=str(tmp_path), name="runs", version=version)
    model = Model()
    model.fails_at = fails_at
    trainer = quiet_trainer(tmp_path, experiment=experiment, save_every_nb_batches=2, **options)
    if fails_at < 0:
        trainer.fit(model)
        return trainer
    with pytest.raises(ValueError, match="the cut"):
        trainer.fit(model)
    return trainer


@pytest.mark.parametrize(("cut", "named"), [(5, True), (-1, False)])
def test_an_unfinished_run_of_its_version_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cut: int, named: bool
) -> None:
    run(tmp_path, 0, fails_at=cut)
    run(tmp_path, 1, fails_at=5)
    capsys.readouterr()
    run(tmp_path, 0, resume="auto")
    said = capsys.readouterr().err
    assert ("[own-run-unfinished]" in said) is named
    assert not named or ("version_1 is resumed" in said and "runs/version_0, of" in said)


def test_the_newest_one_itself_is_not_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, 0, fails_at=5)
    run(tmp_path, 0, resume="auto")
    assert "own-run-unfinished" not in capsys.readouterr().err
