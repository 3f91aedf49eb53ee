"""Two processes that the Trainer starts give the weights of the loop by hand, as they were: dtype and bits."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pytorch_lightning import LightningModule
from tests.equality.by_hand import Recipe, train_by_hand
from tests.equality.models import SEED, assert_same
from tests.equality.zoo import batches
from tests.recorder import quiet_trainer


class Small(LightningModule):
    """Five batches an epoch: in the third round one of the two processes has none."""

    def __init__(self, sparse: bool = False) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.words = nn.Embedding(10, 6, sparse=sparse)
            self.layers = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
        self.register_buffer("turns", torch.polar(torch.ones(3), torch.arange(3.0)))

    def count(self, batch: Any) -> None:
        return None

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        x = data_batch["x"] + self.words(data_batch["words"]).mean(1)
        return {"loss": F.cross_entropy(self.layers(x), data_batch["y"])}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)

    @property
    def tng_dataloader(self) -> Any:
        return batches()


@pytest.mark.parametrize(
    ("precision", "sparse", "options"),
    [
        ("64", False, {"nb_processes": 2}),
        ("bf16-true", False, {"nb_processes": 2}),
        ("16", False, {"nb_processes": 2}),
        ("32", True, {"nb_processes": 2}),
        ("32", True, {"nb_processes": 2, "exact_elastic": True}),
        ("64", True, {"virtual_ranks": 2, "accumulate_grad_batches": 2}),
        ("64", True, {"virtual_ranks": 2}),
    ],
    ids=str,
)
def test_weights_come_back_as_they_were(tmp_path: Path, precision: str, sparse: bool, options: Any) -> None:
    recipe = Recipe(precision=precision, virtual_ranks=2, accumulate=options.get("accumulate_grad_batches", 1))
    by_hand, model = Small(sparse), Small(sparse)
    train_by_hand(by_hand, recipe)
    trainer = quiet_trainer(tmp_path, precision=precision, max_nb_epochs=recipe.nb_epochs, seed=SEED, **options)
    assert trainer.fit(model) == 1
    if precision == "16":
        assert trainer.progress.nb_optimizer_steps == 6  # in the last round of an epoch one process has no loss
    assert_same(by_hand, model)
