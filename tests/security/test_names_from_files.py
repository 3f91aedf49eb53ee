"""What a checkpoint names is never read, written or deleted: names in it are names, not paths."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.errors import CheckpointError

QUIET: dict[str, Any] = {"progress_bar": False, "print_weights_summary": False, "silence": ("not-shuffled",)}


class Falling(LightningModule):
    """Its ``val_loss`` falls with every epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return self.layer(data_batch[0]).pow(2).mean()

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        return self.layer(data_batch[0]).pow(2).mean()

    def validation_end(self, outputs: Any) -> Any:
        return {"val_loss": 10.0 - self.current_epoch}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(TensorDataset(torch.ones(4, 1)), batch_size=2)

    val_dataloader = tng_dataloader


def fit(folder: Path, nb_epochs: int, keep: ModelCheckpoint, **options: Any) -> Trainer:
    options = {"default_save_path": folder / "logs", **QUIET, **options}
    trainer = Trainer(max_nb_epochs=nb_epochs, checkpoint_callback=keep, **options)
    trainer.fit(Falling())
    return trainer


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """The checkpoint after two epochs of a fit that keeps the best one in ``tmp_path / 'kept'``."""
    fit(tmp_path, 2, ModelCheckpoint(tmp_path / "kept", save_top_k=1)).save_checkpoint(tmp_path / "x.ckpt")
    return tmp_path / "x.ckpt"


def hostile(path: Path, **state: Any) -> None:
    """Write ``path`` again with another state of its ModelCheckpoint."""
    checkpoint = torch.load(path, weights_only=True)
    (name,) = (name for name in checkpoint["parts"]["callbacks"] if name.startswith("ModelCheckpoint"))
    checkpoint["parts"]["callbacks"][name] |= state
    torch.save(checkpoint, path)


def test_a_resumed_keeper_deletes_its_own_files_alone(trained: Path, tmp_path: Path) -> None:
    """Not those that the checkpoint names: by their path, by a way around, or in a folder named as the keeper's."""
    kept = tmp_path / "kept"
    others = [tmp_path / "letter.txt", tmp_path / "other" / "_ckpt_epoch_1.ckpt", kept / "notes.txt", kept / "a.ckpt"]
    for path in others:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    around = [str(kept / ".." / "letter.txt"), str(kept / ".." / "other" / "_ckpt_epoch_1.ckpt")]
    named = dict.fromkeys([*map(str, others), *around, "", "/", "."], 99.0)
    hostile(trained, kept=named | {str(kept / "_ckpt_epoch_2.ckpt"): 9.0}, best_path=str(others[1]))
    keep = ModelCheckpoint(kept, save_top_k=1)
    fit(tmp_path, 4, keep, resume=trained)
    assert [path.read_text() for path in others] == ["mine"] * 4
    assert sorted(path.name for path in kept.iterdir()) == ["_ckpt_epoch_4.ckpt", "a.ckpt", "notes.txt"]
    assert keep.best_path == str(kept / "_ckpt_epoch_4.ckpt")


def test_the_folder_that_a_checkpoint_names_is_not_written_to(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "_ckpt_epoch_2.ckpt"
    other.write_text("mine")
    hostile(trained, kept={str(other): 9.0}, best_path=str(other), filepath=str(tmp_path / "other"))
    keep = ModelCheckpoint(tmp_path / "kept", save_top_k=1)
    fit(tmp_path, 4, keep, resume=trained)
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["_ckpt_epoch_2.ckpt"]
    assert other.read_text() == "mine"
    assert list(keep.kept) == [str(tmp_path / "kept" / "_ckpt_epoch_4.ckpt")]


def test_the_best_is_no_file_that_a_checkpoint_names(trained: Path, tmp_path: Path) -> None:
    """``test(ckpt='best')`` after a resume of a fit that was complete."""
    model = Falling()
    nn.init.constant_(model.layer.weight, 77.0)
    elsewhere = tmp_path / "elsewhere" / "_ckpt_epoch_2.ckpt"
    elsewhere.parent.mkdir()
    torch.save({"state_dict": model.state_dict()}, elsewhere)
    hostile(trained, kept={str(elsewhere): 9.0}, best_path=str(elsewhere))
    keep = ModelCheckpoint(tmp_path / "kept", save_top_k=1)
    trainer = fit(tmp_path, 2, keep, resume=trained)
    assert keep.best_path == str(tmp_path / "kept" / "_ckpt_epoch_2.ckpt")
    trainer.validate(Falling(), ckpt="best")


def test_a_keeper_with_another_folder_begins_with_nothing_kept(trained: Path, tmp_path: Path) -> None:
    """The files of the old folder stay."""
    keep = ModelCheckpoint(tmp_path / "new", save_top_k=1)
    fit(tmp_path, 4, keep, resume=trained)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["_ckpt_epoch_2.ckpt"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["_ckpt_epoch_4.ckpt"]


def test_a_resumed_run_in_the_same_folder_keeps_what_an_uninterrupted_one_keeps(trained: Path, tmp_path: Path) -> None:
    keep, whole = ModelCheckpoint(tmp_path / "kept", save_top_k=1), ModelCheckpoint(tmp_path / "whole", save_top_k=1)
    fit(tmp_path, 4, keep, resume=trained)
    fit(tmp_path, 4, whole)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["_ckpt_epoch_4.ckpt"]
    assert [Path(path).name for path in keep.kept] == [Path(path).name for path in whole.kept]
    assert Path(keep.best_path or "").name == Path(whole.best_path or "").name


@pytest.mark.parametrize(
    "state",
    [{"kept": 5}, {"kept": {3: 1.0}}, {"kept": {"_ckpt_epoch_2.ckpt": "x"}}, {"best": "x"}, {"last_epoch": "x"}],
    ids=str,
)
def test_a_state_of_other_types_is_refused_before_a_step(state: dict[str, Any], trained: Path, tmp_path: Path) -> None:
    hostile(trained, **state)
    keep = ModelCheckpoint(tmp_path / "kept", save_top_k=1)
    with pytest.raises(CheckpointError, match="callbacks doesn't fit"):
        fit(tmp_path, 4, keep, resume=trained)
