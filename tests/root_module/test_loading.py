"""Models from files that others wrote, and what is never run."""

import os
import pickle
import warnings
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.errors import CheckpointError
from tests.recorder import Recorder, quiet_trainer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from test_tube import Experiment, HyperOptArgumentParser


class Settable(Recorder):
    """Takes hparams, as a template does."""

    def __init__(self, hparams: Any) -> None:
        super().__init__(lr=hparams.lr)
        self.hparams = hparams


class Bomb:
    """Makes a folder where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


READERS: dict[str, Callable[[Path, Path], Any]] = {
    "resume": lambda folder, path: quiet_trainer(folder, resume=path).fit(Recorder()),
    "load_from_checkpoint": lambda folder, path: Settable.load_from_checkpoint(path),
    "load_from_metrics": lambda folder, path: Settable.load_from_metrics(path, folder / "meta_tags.csv", False),
    "test": lambda folder, path: quiet_trainer(folder).test(Recorder(), ckpt=path),
    "validate": lambda folder, path: quiet_trainer(folder).validate(Recorder(), ckpt=str(path)),
    "predict": lambda folder, path: quiet_trainer(folder).predict(Recorder(), ckpt=path),
}


@pytest.mark.parametrize("write", ["torch.save", "torch.save of old", "pickle"])
@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_holds_code_is_refused_wherever_one_is_read(tmp_path: Path, reader: str, write: str) -> None:
    (tmp_path / "meta_tags.csv").write_text("key,value\nlr,0.1\n")
    path, trace = tmp_path / "x.ckpt", tmp_path / "it ran"
    content = {"state_dict": Recorder().state_dict(), "epoch": 1, "bomb": Bomb(trace)}
    if write == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=write == "torch.save")
    with pytest.raises(CheckpointError, match=r"more than plain data|isn't a checkpoint"):
        READERS[reader](tmp_path, path)
    assert not trace.exists()


def test_the_best_file_is_read_with_the_same_care(tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path / "w")
    trainer = quiet_trainer(tmp_path, checkpoint_callback=keep)
    trainer.fit(Recorder())
    torch.save({"state_dict": Bomb(tmp_path / "it ran")}, keep.best_path)
    with pytest.raises(CheckpointError, match="more than plain data"):
        trainer.test(ckpt="best")
    assert not (tmp_path / "it ran").exists()


def test_a_checkpoint_needs_nothing_of_ours_to_be_read(tmp_path: Path) -> None:
    parser = HyperOptArgumentParser(strategy="random_search")
    parser.opt_list("--lr", default=0.05, type=float, options=[0.05], tunable=True)
    model = Settable(parser.parse_args([]))
    model.hparams.best = np.float64(0.5)
    trainer = quiet_trainer(tmp_path, checkpoint_callback=ModelCheckpoint(tmp_path / "w"))
    trainer.fit(model)
    checkpoint = torch.load(tmp_path / "w/_ckpt_epoch_1.ckpt")
    assert (checkpoint["hparams"]["lr"], checkpoint["hparams"]["best"]) == (0.05, 0.5)
    assert torch.equal(checkpoint["state_dict"]["weight"], model.weight)


def test_a_model_comes_back_from_the_files_of_an_experiment(tmp_path: Path) -> None:
    given = Namespace(lr=1e-3, layers=2, name="a", wide=True, deep=False, nothing=None, version="007")
    experiment = Experiment(name="run", save_dir=str(tmp_path / "tt"))
    experiment.argparse(given)
    model = Settable(given)
    keep = ModelCheckpoint(tmp_path / "w")
    quiet_trainer(tmp_path, experiment=experiment, checkpoint_callback=keep).fit(model)
    experiment.close()
    tags = tmp_path / "tt/run/version_0/meta_tags.csv"
    loaded = Settable.load_from_metrics(str(keep.best_path), tags, on_gpu=[], map_location=None)
    assert vars(loaded.hparams) == {**vars(given), "on_gpu": False}
    assert torch.equal(loaded.weight, model.weight)
    loaded.freeze()
    assert not loaded.weight.requires_grad
    loaded.unfreeze()
    quiet_trainer(tmp_path).fit(loaded)
    assert not torch.equal(loaded.weight, model.weight)


def test_what_a_model_restores_is_up_to_its_own_hooks(tmp_path: Path) -> None:
    class Own(Settable):
        def get_save_dict(self) -> dict[str, Any]:
            return {"mine": self.weight.detach().clone()}

        def load_model_specific(self, checkpoint: dict[str, Any]) -> None:
            self.weight.data.copy_(checkpoint["mine"])

    model = Own(Namespace(lr=0.1))
    trainer = quiet_trainer(tmp_path)
    trainer.fit(model)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    assert "state_dict" not in torch.load(tmp_path / "x.ckpt")
    loaded = Own.load_from_metrics(tmp_path / "x.ckpt", tmp_path / "logs/Own/version_0/meta_tags.csv", False)
    assert torch.equal(loaded.weight, model.weight)
