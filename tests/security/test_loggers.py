"""What a logger is given, and what it can do to a fit."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.loggers import Logger

GIVEN = {"log_hyperparams", "log_metrics", "save", "close", "resume", "state_dict", "load_state_dict"}


class Model(LightningModule):
    def __init__(self, hparams: dict[str, Any]) -> None:
        super().__init__(hparams)
        self.layer = nn.Linear(4, 1)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        loss = self.layer(data_batch[0]).pow(2).mean()
        return {"loss": loss, "prog": {"own": loss}}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(TensorDataset(torch.ones(40, 4)), batch_size=4)


class Recorder(Logger):
    """Keeps what it is given."""

    folder = version = None

    def __init__(self) -> None:
        self.given: list[tuple[str, tuple[Any, ...]]] = []

    def log_hyperparams(self, *arguments: Any) -> None:
        self.given.append(("log_hyperparams", copy.deepcopy(arguments)))
        arguments[0].clear()

    def log_metrics(self, *arguments: Any) -> None:
        self.given.append(("log_metrics", arguments))

    def save(self, *arguments: Any) -> None:
        self.given.append(("save", arguments))

    def close(self, *arguments: Any) -> None:
        self.given.append(("close", arguments))


class Broken(Recorder):
    """Fails in every call, in every way."""

    def _fail(self, *arguments: Any) -> None:
        self.given.append(("", arguments))
        raise (OSError, ValueError, RuntimeError, KeyError)[len(self.given) % 4]("as planned")

    log_hyperparams = log_metrics = save = close = _fail


def fit(folder: Path, logger: Logger) -> Model:
    torch.manual_seed(3)
    model = Model({"lr": 0.1, "name": "a"})
    options: dict[str, Any] = {"progress_bar": False, "print_weights_summary": False, "default_save_path": folder}
    silence = ("not-shuffled", "no-validation")
    assert Trainer(logger, max_nb_epochs=2, add_log_row_interval=5, silence=silence, **options).fit(model) == 1
    return model


def test_a_logger_is_given_hyperparameters_and_numbers_and_nothing_else(tmp_path: Path) -> None:
    """No weights, no batch, no path, nothing of the environment; and it gets a copy of the hyperparameters."""
    recorder = Recorder()
    assert fit(tmp_path, recorder).hparams == {"lr": 0.1, "name": "a"}
    assert {name for name, _ in recorder.given} <= GIVEN
    by_name = {name: [arguments for other, arguments in recorder.given if other == name] for name in GIVEN}
    assert by_name["log_hyperparams"] == [({"lr": 0.1, "name": "a"},)]
    assert len(by_name["log_metrics"]) == 4
    for row, step in by_name["log_metrics"]:
        assert set(row) == {"epoch", "batch_nb", "global_step", "tng_loss", "lr_0", "own"}
        assert {type(value) for value in row.values()} <= {int, float}
        assert type(step) is int
    assert set(by_name["save"] + by_name["close"]) == {()}


def test_a_logger_that_fails_everywhere_changes_no_weight(tmp_path: Path) -> None:
    broken = Broken()
    weights = fit(tmp_path / "broken", broken).layer.weight
    assert torch.equal(weights, fit(tmp_path / "whole", Recorder()).layer.weight)
    assert len(broken.given) > 5
