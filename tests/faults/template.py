"""The model of the examples on the shipped digits, with everything in it that a run may lose."""

import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
from test_tube import HyperOptArgumentParser
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import transforms

from pytorch_lightning.callbacks.callback import Callback
from pytorch_lightning.data.digits import SHIPPED

EXAMPLE = Path(__file__).parents[2] / "examples/new_project_templates/lightning_module_template.py"
NB_TNG, NB_VAL, BATCH_SIZE, WINDOW, NB_EPOCHS = 1302, 200, 32, 2, 3
"""41 batches an epoch, the last of 22 digits, and 21 windows, the last of one batch."""


def example() -> Any:
    """The module of the example."""
    spec = importlib.util.spec_from_file_location("lightning_module_template", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LightningTemplateModel: Any = example().LightningTemplateModel


class Augmented(Dataset[Any]):
    """Digits that are turned, moved and soiled at random whenever they are fetched."""

    def __init__(self, digits: Dataset[Any]) -> None:
        self.digits = digits
        self.change = transforms.Compose(
            [transforms.RandomAffine(10, translate=(0.1, 0.1)), transforms.RandomErasing(0.3, scale=(0.02, 0.1))]
        )

    def __getitem__(self, index: int) -> Any:
        image, label = self.digits[index]
        return self.change(image) + np.float32(np.random.normal(scale=0.05)), label


class Template(LightningTemplateModel):  # type: ignore[misc]
    """Dropout and batch normalization are the example's own; augmentation, workers and OneCycleLR are added."""

    def __init__(self) -> None:
        parser = HyperOptArgumentParser(strategy="grid_search", add_help=False)
        hparams = LightningTemplateModel.add_model_specific_args(parser, ".").parse_args([])
        hparams.hidden_dim, hparams.batch_size, hparams.data_root = 256, BATCH_SIZE, str(SHIPPED)
        super().__init__(hparams)

    def configure_optimizers(self) -> Any:
        (optimizer,) = super().configure_optimizers()
        nb_windows = -(-self.nb_batches // WINDOW)
        one_cycle = OneCycleLR(optimizer, 0.01, total_steps=NB_EPOCHS * nb_windows + 1)
        return [optimizer], [{"scheduler": one_cycle, "interval": "step"}]

    nb_batches = -(-NB_TNG // BATCH_SIZE)

    @property
    def tng_dataloader(self) -> Any:
        if self._tng_dataloader is None:
            digits = Subset(Augmented(self.split_digits()[0]), range(NB_TNG))
            self._tng_dataloader = DataLoader(digits, BATCH_SIZE, shuffle=True, num_workers=2)
        return self._tng_dataloader

    @property
    def val_dataloader(self) -> Any:
        if self._val_dataloader is None:
            digits = Subset(self.split_digits()[1], range(NB_VAL))
            self._val_dataloader = DataLoader(digits, BATCH_SIZE, num_workers=2)
        return self._val_dataloader


class Phase(Callback):
    """Keeps in a file what the run is doing, for who kills it."""

    def __init__(self, path: str) -> None:
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def note(self, phase: str) -> None:
        os.pwrite(self.file, f"{phase:<16}".encode(), 0)

    def on_epoch_start(self, run: Any) -> None:
        self.note("training")

    def on_evaluation_start(self, run: Any, stage: str, nb_batches: int | None) -> None:
        self.note("validation")

    def on_evaluation_end(self, run: Any, stage: str) -> None:
        self.note("training")

    def on_fit_end(self, run: Any) -> None:
        self.note("end")
