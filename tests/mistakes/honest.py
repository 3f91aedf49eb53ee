"""A model without a mistake, to plant mistakes in, and what every refusal is held to."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.errors import LightningError, MisconfigurationException


def batches(nb_samples: int = 8, **options: Any) -> Any:
    """A DataLoader over ones."""
    return DataLoader(TensorDataset(torch.ones(nb_samples, 2)), **{"batch_size": 2, "shuffle": True, **options})


class Trained(LightningModule):
    """What a fit needs, without validation. ``nb_steps`` counts calls of ``training_step``."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.nb_steps = 0

    def forward(self, x: Any) -> Any:
        return self.layer(x)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        self.nb_steps += 1
        return {"loss": self(data_batch[0]).pow(2).mean()}

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.parameters(), 0.1)]

    @property
    def tng_dataloader(self) -> Any:
        return batches()


class Honest(Trained):
    """The same with validation and a test set."""

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        return {"loss": self(data_batch[0]).pow(2).mean()}

    def validation_end(self, outputs: Any) -> Any:
        return {"val_loss": torch.stack([output["loss"] for output in outputs]).mean()}

    @property
    def val_dataloader(self) -> Any:
        return batches(4, shuffle=False)

    @property
    def test_dataloader(self) -> Any:
        return batches(4, shuffle=False)


def planted(base: type = Honest, **attributes: Any) -> Any:
    """A ``Net``: ``base`` with other attributes of the class."""
    return type("Net", (base,), attributes)()


def loads(function: Any) -> property:
    """A loader property."""
    return property(function)


SHOWING_NOTHING: dict[str, Any] = {"progress_bar": False, "print_weights_summary": False, "max_nb_epochs": 1}


def trainer_in(folder: Path, **options: Any) -> Trainer:
    """A Trainer whose bar and summary are off; everything else is as a user has it."""
    return Trainer(**{**SHOWING_NOTHING, "default_save_path": folder / "logs", "crash_bundle": False, **options})


class Refusals:
    """Checks that a mistake gives exactly one error, at the right time, with all that it must say."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys

    def of(self, action: Any, words: tuple[str, ...], kind: type[LightningError] = MisconfigurationException) -> str:
        """The message of the one error that ``action()`` raises; all ``words`` are in it, and nothing is printed."""
        with pytest.raises(kind) as caught:
            action()
        message = str(caught.value)
        for word in words:
            assert word in message, message
        assert message.rstrip()[-1] in ".?)}]" or "\n" in message, "it ends like a sentence, or with a stub to write"
        assert ".." not in message.replace("...", ""), message
        assert "?." not in message, message
        assert " at 0x" not in message, message
        out = self.capsys.readouterr()
        assert (out.out, out.err) == ("", "")
        return message

    def before_training(
        self, model: Any, words: tuple[str, ...], kind: type[LightningError] = MisconfigurationException, **options: Any
    ) -> str:
        """The same of a fit, before anything was trained or written."""
        message = self.of(lambda: trainer_in(self.folder, **options).fit(model), words, kind)
        assert "problems must be fixed" not in message
        assert model.nb_steps == 0
        assert not (self.folder / "logs").exists()
        return message
