"""Sparse gradients, those of ``nn.Embedding(sparse=True)``."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pytorch_lightning import LightningModule
from tests.recorder import quiet_trainer

WORDS = [torch.tensor([1, 1, 2]), torch.tensor([0, 3, 3])]


class Words(LightningModule):
    """An embedding with sparse gradients, and a layer with dense ones if it is ``mixed``."""

    def __init__(self, mixed: bool, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor
        self.table = nn.Embedding.from_pretrained(torch.full((5, 2), 0.5), freeze=False, sparse=True)
        self.scale = nn.Parameter(torch.tensor(3.0)) if mixed else 3.0

    def loss(self, words: Any) -> Any:
        return (self.table(words) * self.scale).sum() * self.factor

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return {"loss": self.loss(data_batch)}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    @property
    def tng_dataloader(self) -> Any:
        return WORDS


@pytest.mark.parametrize("mixed", [False, True])
def test_clipping_by_value_clips_what_an_index_has_got_in_all(tmp_path: Path, mixed: bool) -> None:
    """As torch clips the same gradient where it is dense: word 1 is there twice, 6 in all, and word 2 once, 3."""
    model, dense = Words(mixed), Words(mixed)
    dense.table.sparse = False
    quiet_trainer(tmp_path, gradient_clip=4.0, gradient_clip_algorithm="value").fit(model)
    optimizer = dense.configure_optimizers()
    for words in WORDS:
        optimizer.zero_grad()
        dense.loss(words).backward()
        nn.utils.clip_grad_value_(dense.parameters(), 4.0)
        optimizer.step()
    torch.testing.assert_close(model.state_dict(), dense.state_dict())
    if not mixed:
        assert model.table.weight[1:3, 0].tolist() == pytest.approx([0.5 - 0.4, 0.5 - 0.3])


def test_a_sparse_gradient_that_is_not_finite_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quiet_trainer(tmp_path, print_nan_grads=True).fit(Words(mixed=False))
    assert "isn't finite" not in capsys.readouterr().out
    model = Words(mixed=False, factor=float("inf"))
    with torch.no_grad():
        model.table.weight.zero_()
    quiet_trainer(tmp_path, print_nan_grads=True, stop_on_nan=False).fit(model)
    assert "the gradient of table.weight isn't finite (epoch 0, batch_nb 0)" in capsys.readouterr().out
