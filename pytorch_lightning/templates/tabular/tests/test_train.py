"""One batch through the Trainer, and a table of one's own: ``python -m pytest``."""

from pathlib import Path

import pytest
import torch
from model import Regressor, table_of
from train import arguments

from pytorch_lightning import Trainer


def test_one_batch_trains_validates_and_tests() -> None:
    model = Regressor(arguments([]))
    before = [p.detach().clone() for p in model.parameters()]
    trainer = Trainer(fast_dev_run=True, progress_bar=False)  # files go to a temporary folder
    trainer.fit(model)
    assert not any(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    assert trainer.test()["test_error"] > 0


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("width,height,area\n2,3,6\n4,5,20\n")
    x, y = table_of(tmp_path / "own.csv")
    assert (x.tolist(), y.tolist()) == ([[2, 3], [4, 5]], [6, 20])


def test_a_missing_number_is_named(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("width,height,area\n2,3,6\n4,tall,20\n")
    with pytest.raises(SystemExit, match="row 2 below the header has no number in column 2"):
        table_of(tmp_path / "own.csv")
