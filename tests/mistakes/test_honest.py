"""Honest programs: no notice is shown, and nothing is refused."""

import dataclasses
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, WeightedRandomSampler

import pytorch_lightning as ptl
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from tests.mistakes.honest import Honest, Trained, batches, loads, planted, trainer_in

SGD = torch.optim.SGD


class Gan(Trained):
    def __init__(self) -> None:
        super().__init__()
        self.critic = nn.Linear(1, 1)

    def training_step(self, data_batch: Any, batch_nb: int, optimizer_i: int) -> Any:  # type: ignore[override]
        made = self.critic(self.layer(data_batch[0])).mean()
        return {"loss": made if optimizer_i == 0 else -made}

    def configure_optimizers(self) -> Any:
        return [SGD(self.layer.parameters(), 0.1), SGD(self.critic.parameters(), 0.1)]


class Frozen(Honest):
    """A pretrained layer that stays as it is, a teacher kept out of the state, and a copy that follows."""

    def __init__(self) -> None:
        super().__init__()
        self.pretrained = nn.Linear(2, 2).requires_grad_(False)
        self.teacher = [nn.Linear(2, 2).requires_grad_(False)]
        self.seen: list[Any] = []
        self.sizes = {"in": 2, "out": 1}

    def forward(self, x: Any) -> Any:
        out = self.layer(self.pretrained(x))
        self.seen.append(out)
        return out


class Tied(Honest):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)
        self.second.weight = self.first.weight

    def forward(self, x: Any) -> Any:
        return self.layer(self.second(self.first(x)))


class Grouped(Honest):
    def configure_optimizers(self) -> Any:
        groups = [{"params": [self.layer.weight]}, {"params": [self.layer.bias], "lr": 0.01}]
        optimizer = SGD(groups, 0.1)
        step = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return [optimizer], [step, {"scheduler": plateau, "monitor": "tng_loss"}]


class Named(Honest):
    """Methods of a user's own, with names that remind of hooks."""

    def loss(self, x: Any) -> Any:
        return self(x).pow(2).mean()

    def training_metrics(self) -> None: ...
    def validation_accuracy(self) -> None: ...
    def test_accuracy(self) -> None: ...
    def on_gpu_memory(self) -> None: ...
    def make_dataloader(self) -> None: ...
    def configure_layers(self) -> None: ...
    def step(self) -> None: ...
    def reset(self) -> None: ...


class Cached(Honest):
    @ptl.data_loader
    def tng_dataloader(self) -> Any:
        return batches()


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter([(torch.ones(2),)] * 6)


@dataclasses.dataclass
class Options:
    size: int = 3
    where: Path = Path("data")


def with_hparams(hparams: Any) -> Any:
    model = Honest()
    model.hparams = hparams
    return model


def step(function: Any) -> Any:
    return planted(training_step=lambda self, data_batch, batch_nb: function(self, data_batch))


def loss_of(model: Any, batch: Any) -> Any:
    return model(batch[0]).pow(2).mean()


def tng(loader: Any, **attributes: Any) -> Any:
    return planted(tng_dataloader=loads(lambda self: loader), **attributes)


def two_validations() -> Any:
    return planted(
        val_dataloader=loads(lambda self: [batches(4), [[torch.ones(2, 2)]]]),
        validation_step=lambda self, data_batch, batch_nb, dataloader_i: {"loss": self(data_batch[0]).mean()},
        validation_end=lambda self, outputs: {"val_loss": sum(len(one) for one in outputs)},
    )


def saving() -> Any:
    return planted(
        get_save_dict=lambda self: {"weights": self.state_dict(), "note": "mine", "size": np.float32(3.5)},
        load_model_specific=lambda self, checkpoint: self.load_state_dict(checkpoint["weights"]),
    )


def attached() -> Any:
    """A hook that is an attribute of the object."""
    model = Honest()
    model.training_step = lambda data_batch, batch_nb: loss_of(model, data_batch)  # type: ignore[method-assign]
    return model


class Old:
    """A callback of the Keras kind."""

    def on_epoch_end(self, epoch: int, logs: Any) -> None:
        pass


MODELS: dict[str, Any] = {
    "plain": Honest,
    "gan": Gan,
    "no validation": Trained,
    "one loss, two optimizers": lambda: planted(
        configure_optimizers=lambda self: [SGD([self.layer.weight], 0.1), SGD([self.layer.bias], 0.1)]
    ),
    "frozen": Frozen,
    "tied": Tied,
    "groups and schedules": Grouped,
    "own names": Named,
    "data_loader": Cached,
    "a list of batches": lambda: tng([[torch.ones(2, 2)]] * 3),
    "batches that are dicts": lambda: tng(
        [{"x": torch.ones(2, 2)}], training_step=lambda self, data_batch, batch_nb: self(data_batch["x"]).mean()
    ),
    "a batch that is None": lambda: tng([None, [torch.ones(2, 2)]]),
    "a stream": lambda: tng(DataLoader(Stream(), batch_size=2)),
    "weighted": lambda: tng(
        DataLoader(TensorDataset(torch.ones(8, 2)), batch_size=2, sampler=WeightedRandomSampler([1.0] * 8, 8))
    ),
    "one full batch and LBFGS": lambda: tng(
        DataLoader(TensorDataset(torch.ones(8, 2)), batch_size=8),
        configure_optimizers=lambda self: torch.optim.LBFGS(self.parameters()),
    ),
    "several validation loaders": two_validations,
    "own save dict": saving,
    "hook on the object": attached,
    "loss of shape (1,)": lambda: step(lambda m, b: {"loss": loss_of(m, b).reshape(1)}),
    "bare loss": lambda: step(loss_of),
    "other keys": lambda: step(lambda m, b: {"loss": loss_of(m, b), "output": m(b[0]), "log": {}}),
    "prog": lambda: step(
        lambda m, b: {"loss": loss_of(m, b), "prog": {"n": 1, "t": torch.ones(1), "a": np.float64(2), "s": "text"}}
    ),
    "prog of 2019": lambda: step(lambda m, b: {"loss": loss_of(m, b), "tqdm_metrics": {"tng_loss": 1.0}}),
    "loss_count": lambda: step(lambda m, b: {"loss": loss_of(m, b), "loss_count": torch.tensor(2)}),
    "loss_count of an empty batch": lambda: step(lambda m, b: {"loss": 0 * loss_of(m, b), "loss_count": 0}),
    "validation without numbers": lambda: planted(
        validation_step=lambda self, data_batch, batch_nb: None, validation_end=lambda self, outputs: None
    ),
    "hparams": lambda: with_hparams(Namespace(lr=0.1, f=print, where=Path("x"), array=np.ones(2), none=None)),
    "hparams of a dict": lambda: with_hparams({"lr": 0.1}),
    "hparams of a dataclass": lambda: with_hparams(Options()),
}


@pytest.mark.parametrize("name", MODELS)
def test_an_honest_model_gets_no_message(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    model = MODELS[name]()
    silence = () if isinstance(model, Honest) else ("no-validation",)
    keep = ModelCheckpoint(tmp_path / "kept")
    trainer = trainer_in(tmp_path, max_nb_epochs=2, checkpoint_callback=keep, silence=silence)
    assert trainer.fit(model) == 1
    assert capsys.readouterr() == ("", "")


OPTIONS: dict[str, Any] = {
    "defaults": {},
    "early stopping": {"early_stop_callback": EarlyStopping("val_loss", patience=1)},
    "early stopping on training": {"early_stop_callback": EarlyStopping("tng_loss", patience=1)},
    "callbacks": {"callbacks": (Callback(), Old()), "early_stop_callback": False, "checkpoint_callback": None},
    "no callbacks": {"callbacks": None},
    "accumulation": {"accumulate_grad_batches": {1: 3, 2: 2}},
    "shares": {"train_percent_check": 0.5, "val_percent_check": 0.5, "val_check_interval": 0.5},
    "batches": {"val_check_interval": 3, "max_nb_steps": 5, "max_time": 10},
    "overfit": {"overfit_pct": 0.5, "nb_sanity_val_steps": 0},
    "fast_dev_run": {"fast_dev_run": True, "val_check_interval": 1000, "min_nb_epochs": 5},
    "no files": {"experiment": False, "default_save_path": None},
    "64 bit": {"precision": "64", "gradient_clip": 0.5, "track_grad_norm": 2, "print_nan_grads": True},
    "bfloat16": {"precision": "bf16", "gradient_clip": -1, "overfit_pct": -1},
    "milestones": {"lr_scheduler_milestones": "1,2", "seed": 0, "deterministic": True},
    "no GPU": {"gpus": [], "use_amp": False},
    "several epochs between validations": {"check_val_every_n_epoch": 2},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_honest_options_get_no_message(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    trainer = trainer_in(tmp_path, **{"max_nb_epochs": 2, **OPTIONS[name]})
    assert trainer.fit(Honest()) == 1
    assert capsys.readouterr() == ("", "")


def test_everything_after_a_fit_gets_no_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, keep = Honest(), ModelCheckpoint(tmp_path / "kept", save_best_only=True)
    trainer = trainer_in(tmp_path, checkpoint_callback=keep)
    trainer.fit(model)
    trainer.validate()
    trainer.test(ckpt="best")
    trainer.predict(dataloader=[torch.ones(2, 2)])
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    trainer_in(tmp_path, resume=tmp_path / "a.ckpt", max_nb_epochs=2, silence=("first-save", "absent-callbacks")).fit(
        Honest()
    )
    loaded = Honest.load_from_checkpoint(keep.best_path or "")
    trainer_in(tmp_path).test(loaded)
    trainer_in(tmp_path).test(planted(tng_dataloader=loads(lambda self: None)))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("interval", [100, 0.5])
def test_an_interval_of_validations_that_there_are_none_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], interval: float
) -> None:
    model = planted(Trained, tng_dataloader=loads(lambda self: DataLoader(Stream())))
    trainer = trainer_in(tmp_path, val_check_interval=interval, silence=["no-validation"])
    assert trainer.fit(Trained()) == trainer.fit(model) == 1
    assert capsys.readouterr() == ("", "")


def test_no_validation_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer_in(tmp_path).fit(Trained())
    said = "pytorch_lightning: there is no validation: val_dataloader isn't defined  [no-validation]\n"
    assert capsys.readouterr() == ("", said)


def test_a_notice_is_printed_once_by_a_trainer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer: Trainer = trainer_in(tmp_path)
    trainer.fit(Trained())
    trainer.fit(Trained())
    assert capsys.readouterr().err.count("[no-validation]") == 1
