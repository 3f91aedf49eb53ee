"""One batch through the Trainer, and what the model writes: ``python -m pytest``."""

from pathlib import Path

import torch
from model import CharacterModel, text_of
from train import arguments

from pytorch_lightning import Trainer


def test_one_batch_trains_and_validates() -> None:
    model = CharacterModel(arguments([]))
    before = [p.detach().clone() for p in model.parameters()]
    trainer = Trainer(fast_dev_run=True, progress_bar=False)  # files go to a temporary folder
    trainer.fit(model)
    assert not any(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    assert trainer.tqdm_metrics["val_loss"] > 0


def test_it_writes_on() -> None:
    text = CharacterModel(arguments([])).write("1+1=", length=5)
    assert text.startswith("1+1=")


def test_a_text_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("é, to be or not to be")
    assert bytes(text_of(tmp_path / "own.txt").tolist()).decode() == "é, to be or not to be"
