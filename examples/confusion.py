"""Metrics of each step and of each epoch, by torchmetrics: accuracy, F1 and a confusion matrix.

``python confusion.py`` trains a small network on digits, in seconds on a CPU, and prints which digits it takes for
which. The numbers are right on several processes too, and whole where a run is killed and resumed.
"""

import os
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassF1Score

from pytorch_lightning import LightningModule, Trainer, add_default_args, seed_everything
from pytorch_lightning.data.digits import mnist


class Digits(LightningModule):
    """The metrics are layers of the module, so that they are resumed."""

    def __init__(self, hparams: Namespace) -> None:
        super().__init__(hparams)
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10))
        self.tng_acc, self.tng_f1 = MulticlassAccuracy(10, average="micro"), MulticlassF1Score(10)
        self.val_acc, self.confusion = MulticlassAccuracy(10, average="micro"), MulticlassConfusionMatrix(10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, data_batch: tuple[Tensor, Tensor], batch_nb: int) -> dict[str, Any]:
        images, labels = data_batch
        logits = self(images)
        self.tng_f1.update(logits, labels)
        acc = self.tng_acc(logits, labels)  # of this batch; the metric collects those of the epoch
        return {
            "loss": F.cross_entropy(logits, labels),
            "loss_count": len(labels),
            "prog": {"acc": acc},
            "prog_epoch": {"tng_acc": self.tng_acc, "tng_f1": self.tng_f1, "mean_acc": acc},
        }

    def validation_step(self, data_batch: tuple[Tensor, Tensor], batch_nb: int) -> None:
        images, labels = data_batch
        logits = self(images)
        self.val_acc.update(logits, labels)
        self.confusion.update(logits, labels)

    def validation_end(self, outputs: list[Any]) -> dict[str, Any]:
        self.matrix = self.confusion.compute().tolist()
        wrong = sum(map(sum, self.matrix)) - sum(row[n] for n, row in enumerate(self.matrix))
        given = {"val_acc": self.val_acc.compute(), "nb_wrong": wrong}
        self.val_acc.reset()
        self.confusion.reset()
        return given

    def configure_optimizers(self) -> optim.Optimizer:
        return optim.Adam(self.parameters(), lr=self.hparams.learning_rate)

    def data(self, train: bool) -> TensorDataset:
        digits = mnist(root=self.hparams.data_root, train=train)
        return TensorDataset(digits.data.float() / 255, digits.targets)

    @property
    def tng_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.data(train=True), batch_size=self.hparams.batch_size, shuffle=True)

    @property
    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.data(train=False), batch_size=250)


def main(hparams: Namespace) -> None:
    seed_everything(hparams.seed)
    model = Digits(hparams)
    trainer = Trainer.from_args(hparams)
    trainer.fit(model)
    trainer.validate()
    print("rows: the digit; columns: what it was taken for")
    for digit, row in enumerate(model.matrix):
        print(f"{digit}  " + " ".join(f"{nb:4}" for nb in row))
    found = trainer.metrics
    print(f"accuracy        {found['tng_acc']:.3f} in training, {found['val_acc']:.3f} in validation")


if __name__ == "__main__":
    root_dir = os.path.dirname(os.path.realpath(__file__))

    parser = ArgumentParser(usage="%(prog)s [--option value ...]", formatter_class=ArgumentDefaultsHelpFormatter)
    add_default_args(parser, root_dir)
    parser.add_argument("--learning_rate", default=0.005, type=float, help="of the optimizer")
    parser.add_argument("--batch_size", default=128, type=int, help="digits in a batch")
    parser.add_argument("--data_root", default=os.path.join(root_dir, "mnist"), type=str, help="folder of the digits")
    parser.set_defaults(max_nb_epochs=5, seed=1, tt_name="confusion")
    main(parser.parse_args())
