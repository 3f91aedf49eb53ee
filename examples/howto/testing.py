"""Tests of a model for CI: it runs, it can learn, and it still trains as it did."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer, seed_everything
from pytorch_lightning.testing import same_training

QUIET: dict[str, Any] = {"progress_bar": False, "print_weights_summary": False}


class Classifier(LightningModule):
    """Yours is imported from your program."""

    def __init__(self, slope=0.1, lr=0.01):
        super().__init__()
        self.lr = lr
        self.network = nn.Sequential(nn.Linear(8, 32), nn.LeakyReLU(slope), nn.Dropout(0.1), nn.Linear(32, 2))

    def training_step(self, data_batch, batch_nb):
        x, y = data_batch
        return nn.functional.cross_entropy(self.network(x), y)

    def validation_step(self, data_batch, batch_nb):
        x, y = data_batch
        return {"val_acc": (self.network(x).argmax(1) == y).float().mean()}

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)

    @property
    def tng_dataloader(self):
        return DataLoader(self.data(seed=0), batch_size=20, shuffle=True)

    @property
    def val_dataloader(self):
        return DataLoader(self.data(seed=1), batch_size=200)

    def data(self, seed):
        x = torch.randn(200, 8, generator=torch.Generator().manual_seed(seed))
        return TensorDataset(x, (x.sum(1) > 0).long())


@pytest.fixture(autouse=True)
def seeded():
    seed_everything(0)


def test_one_batch_of_everything_runs():
    assert Trainer(fast_dev_run=True, **QUIET).fit(Classifier()) == 1


def test_it_can_learn_a_few_batches_by_heart():
    trainer = Trainer(False, overfit_pct=0.2, max_nb_epochs=40, **QUIET)
    trainer.fit(Classifier())
    assert trainer.metrics["tng_loss_epoch"] < 0.1


def test_it_is_better_than_chance():
    trainer = Trainer(False, max_nb_epochs=5, **QUIET)
    trainer.fit(Classifier())
    assert trainer.metrics["val_acc"] > 0.8


def test_a_sample_has_no_influence_on_another_one():
    model = Classifier().eval()
    x = torch.randn(4, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.network(x)[0].sum(), x)
    assert gradient[0].any()
    assert not gradient[1:].any()


def test_it_trains_as_it_did():
    golden = Path(__file__).with_name("classifier.json")  # written by pytest --update, and kept in version control
    same_training(Classifier, golden, nb_batches=15, tolerance=1e-4)


if __name__ == "__main__":  # what the last test says where somebody changes the model
    same_training(Classifier, "classifier.json", nb_batches=15, update=True)
    for what, changed in (
        ("no change", Classifier),
        ("another slope", lambda: Classifier(slope=0.2)),
        ("another rate", lambda: Classifier(lr=0.02)),
    ):
        try:
            same_training(changed, "classifier.json", nb_batches=15, tolerance=1e-4)
            print(f"{what}: trains as it did")
        except AssertionError as error:
            print(f"{what}: {str(error).splitlines()[1].strip()}")
