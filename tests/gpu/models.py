"""The models of these tests, their data, and the loops that a person would write for them."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer
from tests.gpu.places import IS_DRY_RUN

if IS_DRY_RUN:  # also where these models are part of a program
    from tests.gpu import stand_in

    stand_in.install()

SILENT = ("not-shuffled", "no-validation", "first-save", "unfinished-run")


def trainer_in(folder: Path, **options: Any) -> Trainer:
    """A Trainer that shows nothing and keeps its files in ``folder``."""
    defaults: dict[str, Any] = {"max_nb_epochs": 1, "seed": 1, "silence": SILENT}
    quiet = {"progress_bar": False, "print_weights_summary": False, "default_save_path": folder}
    return Trainer(**{**defaults, **quiet, **options})


class Plain(LightningModule):
    """Two linear layers and nothing that draws: what a hand-written loop gives, bit for bit."""

    def __init__(self, hparams: Any = None, nb_batches: int = 12, width: int = 32) -> None:
        super().__init__(hparams)
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(8, width), nn.Tanh(), nn.Linear(width, 1))
        self.nb_batches = nb_batches
        self.made: set[torch.dtype] = set()
        """The types that the first layer gave."""

    def forward(self, x: Tensor) -> Any:
        return self.net(x)

    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        hidden = self.net[0](x)
        self.made.add(hidden.dtype)
        return nn.functional.mse_loss(self.net[2](self.net[1](hidden)), y)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        loss = self.loss(data_batch)
        return {"loss": loss, "prog": {"error": loss}}

    def predict_step(self, data_batch: Any, batch_nb: int) -> Any:
        return self(data_batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)

    def data(self) -> TensorDataset:
        draws = torch.Generator().manual_seed(1)
        x = torch.randn(16 * self.nb_batches, 8, generator=draws)
        return TensorDataset(x, x[:, :1] * x[:, 1:2] / 4)  # small enough for float16 from the first step

    def loader(self) -> Any:
        return DataLoader(self.data(), batch_size=16)

    tng_dataloader = property(loader)  # type: ignore[assignment]


class Validated(Plain):
    """The same with a validation after each epoch."""

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        return self.loss(data_batch)

    def validation_end(self, outputs: Any) -> Any:
        return {"val_loss": torch.stack(outputs).mean()}

    val_dataloader = test_dataloader = property(Plain.loader)  # type: ignore[assignment]


LOSSES: WeakKeyDictionary[Any, list[Tensor]] = WeakKeyDictionary()


class Images(LightningModule):
    """A convolution, BatchNorm and dropout: what has buffers, and draws on the device. ``at`` is called with each
    ``global_step`` before it is trained."""

    def __init__(self, hparams: Any = None, nb_batches: int = 8, at: Callable[[int], Any] = bool) -> None:
        super().__init__(hparams)
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Conv2d(1, 4, 3, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(4 * 36, 10),
        )
        self.nb_batches, self.at = nb_batches, at

    @property
    def losses(self) -> list[Tensor]:
        """Of the steps that this object made: kept outside of it, since a resume brings its attributes back."""
        return LOSSES.setdefault(self, [])

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        self.at(self.global_step)
        x, y = data_batch
        loss = nn.functional.cross_entropy(self.net(x), y)
        self.losses.append(loss.detach())
        return {"loss": loss, "prog": {"error": loss}}

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.9)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def data(self) -> TensorDataset:
        draws = torch.Generator().manual_seed(1)
        nb = 8 * self.nb_batches
        return TensorDataset(torch.randn(nb, 1, 8, 8, generator=draws), torch.randint(10, (nb,), generator=draws))

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(self.data(), batch_size=8, shuffle=True)


def bits_of(module: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers, on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}


def assert_same_bits(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """Every weight and buffer is the same, to the last bit."""
    assert list(ours) == list(theirs)
    differ = [name for name, value in ours.items() if not torch.equal(value, theirs[name])]
    assert not differ, f"{differ} differ, by up to {max(distance(ours[n], theirs[n]) for n in differ)}"


def distance(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, for each of the largest value."""
    ours, theirs = ours.double(), theirs.double()
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-12))


def farthest(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The largest of all distances."""
    return max(distance(value, theirs[name]) for name, value in ours.items())


def batches_on(device: torch.device, loader: Iterable[Any]) -> list[Any]:
    """The batches of ``loader`` on ``device``."""
    return [tuple(tensor.to(device) for tensor in batch) for batch in loader]


def rows_of(folder: Path, name: str, version: int = 0) -> list[dict[str, str]]:
    """The rows of a run's metrics.csv, without the time."""
    import csv

    with open(os.path.join(folder, name, f"version_{version}", "metrics.csv"), newline="") as file:
        return [{k: v for k, v in row.items() if k != "created_at"} for row in csv.DictReader(file)]
