"""The models that are trained twice: by a Trainer and by hand. Each object starts from the same weights."""

import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from pytorch_lightning import LightningModule
from tests.recorder import quiet_trainer

SEED = 11
NB_SAMPLES, BATCH_SIZE = 18, 4
"""Five batches an epoch; the last one holds two samples."""

Parameters = Iterable[nn.Parameter]


def samples(nb: int = NB_SAMPLES, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Points of six numbers, and which of the first three is the largest."""
    x = torch.randn(nb, 6, generator=torch.Generator().manual_seed(seed))
    return x, x[:, :3].argmax(dim=1)


class Classifier(LightningModule):
    """Two layers, with batch normalization and dropout if asked. ``optimize`` is ``configure_optimizers``."""

    def __init__(
        self,
        optimize: Callable[[Parameters], Any] = lambda parameters: torch.optim.SGD(parameters, 0.1),
        *,
        norm: bool = False,
        dropout: float = 0.0,
        shuffle: bool = False,
    ) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Linear(6, 8),
                nn.BatchNorm1d(8) if norm else nn.Identity(),
                nn.Tanh(),
                nn.Dropout(dropout),
                nn.Linear(8, 3),
            )
        self.optimize, self.shuffle = optimize, shuffle

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]

    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        return F.cross_entropy(self(x), y)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return {"loss": self.loss(data_batch)}

    def configure_optimizers(self) -> Any:
        return self.optimize(self.parameters())

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(TensorDataset(*samples()), batch_size=BATCH_SIZE, shuffle=self.shuffle)


class Validated(Classifier):
    """The same with a validation."""

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        return self.loss(data_batch)

    def validation_end(self, outputs: list[Tensor]) -> Any:
        return {"val_loss": torch.stack(outputs).mean()}

    @property
    def val_dataloader(self) -> Any:
        return DataLoader(TensorDataset(*samples(8, seed=2)), batch_size=BATCH_SIZE)


class Augmented(Dataset[Any]):
    """The samples, each changed at random by python's, numpy's and torch's streams."""

    def __init__(self) -> None:
        self.x, self.y = samples()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x = self.x[index] * (0.5 + random.random())
        x = x + float(np.random.normal(scale=0.1)) + 0.1 * torch.randn(6)
        return x, self.y[index]


class Gan(LightningModule):
    """A generator and a discriminator of a few weights; one ``training_step`` for each."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.generator = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 6))
            self.discriminator = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1))

    def loss(self, batch: Any, optimizer_i: int) -> Tensor:
        real, _ = batch
        fake = self.generator(real.flip(0))
        if optimizer_i == 0:
            return F.softplus(-self.discriminator(fake)).mean()
        return (F.softplus(-self.discriminator(real)) + F.softplus(self.discriminator(fake))).mean()

    def training_step(self, data_batch: Any, batch_nb: int, optimizer_i: int) -> Any:
        return {"loss": self.loss(data_batch, optimizer_i)}

    def configure_optimizers(self) -> Any:
        return [
            torch.optim.Adam(self.generator.parameters(), 0.02),
            torch.optim.SGD(self.discriminator.parameters(), 0.1),
        ]

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(TensorDataset(*samples()), batch_size=BATCH_SIZE)


def fit(tmp_path: Path, model: Any, nb_epochs: int = 3, **options: Any) -> Any:
    """``model``, trained by a Trainer."""
    trainer = quiet_trainer(tmp_path, max_nb_epochs=nb_epochs, seed=SEED, **options)
    assert trainer.fit(model) == 1
    return model


def windows(batches: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of ``size`` batches; the last one may be shorter."""
    window: list[Any] = []
    for batch in batches:
        window.append(batch)
        if len(window) == size:
            yield window
            window = []
    if window:
        yield window


def assert_same(model: nn.Module, other: nn.Module) -> None:
    """Every weight and buffer has the same bits."""
    mine, theirs = model.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    different = [name for name in mine if mine[name].dtype != theirs[name].dtype or not mine[name].equal(theirs[name])]
    assert not different
