"""LoRA: a network that knows the digits learns to read them turned over, by adapters alone.

``python lora.py`` trains a network on digits, freezes it, and adds two small matrices to each of its layers, which
learn the turned digits. A checkpoint holds these matrices and nothing else. Seconds on a CPU; started again after it
was killed it resumes. ``--schedule_free`` takes an optimizer of the package ``schedulefree``. Source: Hu et al., "LoRA:
Low-Rank Adaptation of Large Language Models" (2021).
"""

import os
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer, add_default_args, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint, ScheduleFree
from pytorch_lightning.data.digits import mnist


class Digits(LightningModule):
    """A small network of linear layers."""

    turns = 0
    """Quarters of a circle that each image is turned by."""

    def __init__(self, hparams: Namespace) -> None:
        super().__init__(hparams)
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))

    def training_step(self, data_batch: tuple[Tensor, Tensor], batch_nb: int) -> Tensor:
        images, labels = data_batch
        return F.cross_entropy(self.network(images), labels)

    def validation_step(self, data_batch: tuple[Tensor, Tensor], batch_nb: int) -> dict[str, Tensor]:
        images, labels = data_batch
        logits = self.network(images)
        return {"val_loss": F.cross_entropy(logits, labels), "val_acc": (logits.argmax(1) == labels).float().mean()}

    def configure_optimizers(self) -> Any:
        return optim.AdamW(self.parameters(), lr=self.hparams.learning_rate)

    def data(self, train: bool) -> TensorDataset:
        digits = mnist(root=self.hparams.data_root, train=train)
        nb = self.hparams.nb_digits
        images = torch.rot90(digits.data[:nb].float() / 255, self.turns, (1, 2))
        return TensorDataset(images, digits.targets[:nb])

    @property
    def tng_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.data(train=True), batch_size=self.hparams.batch_size, shuffle=True)

    @property
    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.data(train=False), batch_size=250)


class Adapted(nn.Module):
    """A linear layer that is frozen, and a product of two small matrices that is added to it: zero at first."""

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.lora_a = nn.Parameter(torch.randn(rank, layer.in_features) / layer.in_features**0.5)
        self.lora_b = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        frozen: Tensor = self.layer(x)
        return frozen + x @ self.lora_a.T @ self.lora_b.T


class Turned(Digits):
    """The same network with adapters, which alone are trained and written to checkpoints."""

    turns = 2

    def __init__(self, hparams: Namespace, network: nn.Sequential) -> None:
        super().__init__(hparams)
        adapted = [Adapted(part, hparams.rank) if isinstance(part, nn.Linear) else part for part in network]
        self.network = nn.Sequential(*adapted)

    def configure_optimizers(self) -> Any:
        trained = [p for p in self.parameters() if p.requires_grad]
        if self.hparams.schedule_free:
            from schedulefree import AdamWScheduleFree

            return AdamWScheduleFree(trained, lr=self.hparams.learning_rate)
        return optim.AdamW(trained, lr=self.hparams.learning_rate)

    def get_save_dict(self) -> dict[str, Any]:
        return {"adapters": {name: value for name, value in self.state_dict().items() if "lora_" in name}}

    def load_model_specific(self, checkpoint: dict[str, Any]) -> None:
        self.load_state_dict(checkpoint["adapters"], strict=False)


def main(hparams: Namespace) -> None:
    seed_everything(hparams.seed)  # the weights that the network and the adapters begin with
    folder = Path(hparams.folder)
    base = Digits(hparams)
    Trainer.from_args(hparams, default_save_path=folder / "base", resume="auto").fit(base)

    seed_everything(hparams.seed)
    model = Turned(hparams, base.network)
    trainer = Trainer.from_args(
        hparams,
        default_save_path=folder / "adapters",
        checkpoint_callback=ModelCheckpoint(folder / "best", monitor="val_acc", save_top_k=1, save_weights_only=True),
        callbacks=[ScheduleFree()] if hparams.schedule_free else [],
        resume="auto",
    )
    before = trainer.validate(model)["val_acc"]  # the adapters add nothing yet
    trainer.fit(model)
    if hparams.fast_dev_run:  # keeps nothing
        return
    best = trainer.checkpoint_callback.best_path
    print(f"accuracy        {before:.3f}, and {trainer.validate(ckpt='best')['val_acc']:.3f} with adapters")
    print(f"metrics         {trainer.folder}/metrics.csv")
    print(f"checkpoint      {best}")


if __name__ == "__main__":
    root_dir = os.path.dirname(os.path.realpath(__file__))

    parser = ArgumentParser(usage="%(prog)s [--option value ...]", formatter_class=ArgumentDefaultsHelpFormatter)
    add_default_args(parser, root_dir)
    parser.add_argument("--rank", default=4, type=int, help="rows of an adapter")
    parser.add_argument("--schedule_free", action="store_true", help="train the adapters with AdamWScheduleFree")
    parser.add_argument("--learning_rate", default=0.01, type=float, help="of both optimizers")
    parser.add_argument("--batch_size", default=64, type=int, help="digits in a batch")
    parser.add_argument("--nb_digits", default=2000, type=int, help="how many are trained on")
    parser.add_argument("--data_root", default=os.path.join(root_dir, "mnist"), type=str, help="folder of the digits")
    parser.add_argument("--folder", default="lora", type=str, help="folder of the runs")
    parser.set_defaults(max_nb_epochs=4, seed=1)
    main(parser.parse_args())
