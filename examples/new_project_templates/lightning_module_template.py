"""A model that reads handwritten digits. Copy this file and change what differs in your project."""

import os
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from test_tube import HyperOptArgumentParser
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader, Dataset, Subset, random_split
from torchvision import transforms

from pytorch_lightning import LightningModule
from pytorch_lightning.data.digits import mnist

Batch = tuple[Tensor, Tensor]
"""What the loaders give: images of shape (batch, 1, 28, 28) and labels of shape (batch,)."""


class LightningTemplateModel(LightningModule):
    """One hidden layer between the pixels of a digit and its ten classes."""

    def __init__(self, hparams: Namespace) -> None:
        super().__init__(hparams)
        self.hidden = nn.Linear(hparams.in_features, hparams.hidden_dim)
        self.norm = nn.BatchNorm1d(hparams.hidden_dim)
        self.dropout = nn.Dropout(hparams.drop_prob)
        self.output = nn.Linear(hparams.hidden_dim, hparams.out_features)

        # with an example the summary also shows what goes into each layer and what comes out
        self.example_input_array = torch.rand(5, hparams.in_features)

    # ---------------------
    # training
    # ---------------------
    def forward(self, x: Tensor) -> Tensor:
        """Images, of any shape behind the batch, to logits of shape (batch, out_features)."""
        x = self.dropout(x.flatten(start_dim=1))
        x = F.relu(self.norm(self.hidden(x)))
        logits: Tensor = self.output(self.dropout(x))
        return logits

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        # smooth labels keep the model from being too sure of the few digits that it learns from
        return F.cross_entropy(logits, labels, label_smoothing=0.1 if self.training else 0.0)

    def training_step(self, data_batch: Batch, batch_nb: int) -> dict[str, Any]:
        x, y = data_batch

        logits = self.forward(x)
        loss = self.loss(logits, y)

        return OrderedDict(
            {
                "loss": loss,  # required
                "prog": {"tng_acc": accuracy(logits, y)},  # optional: for the bar and the log, beside tng_loss
            }
        )

    # ---------------------
    # validation
    # ---------------------
    def validation_step(self, data_batch: Batch, batch_nb: int) -> dict[str, Tensor]:
        x, y = data_batch

        logits = self.forward(x)

        # validation_end gets all of these in a list, one per batch
        return OrderedDict(
            {
                "val_loss": self.loss(logits, y),
                "val_acc": accuracy(logits, y),
                "nb_digits": torch.tensor(len(y)),
            }
        )

    def validation_end(self, outputs: list[dict[str, Tensor]]) -> dict[str, float]:
        # the last batch may be smaller than the others, so each counts by its size
        nb_digits = sum(output["nb_digits"].item() for output in outputs)
        val_loss = sum(output["val_loss"].item() * output["nb_digits"].item() for output in outputs) / nb_digits
        val_acc = sum(output["val_acc"].item() * output["nb_digits"].item() for output in outputs) / nb_digits
        return {"val_loss": val_loss, "val_acc": val_acc}

    def test_end(self, outputs: list[dict[str, Tensor]]) -> dict[str, float]:
        # a test runs validation_step; its numbers get names of their own, so that the log tells them apart
        metrics = self.validation_end(outputs)
        return {"test_loss": metrics["val_loss"], "test_acc": metrics["val_acc"]}

    # ---------------------
    # optimization and logging
    # ---------------------
    def configure_optimizers(self) -> list[optim.Optimizer]:
        return [optim.Adam(self.parameters(), lr=self.hparams.learning_rate)]

    def update_tng_log_metrics(self, logs: dict[str, Any]) -> dict[str, Any]:
        # add to a row of metrics.csv, or change it, before it is written
        logs["output_weight_norm"] = self.output.weight.detach().norm()
        return logs

    # ---------------------
    # checkpoints
    # ---------------------
    def get_save_dict(self) -> dict[str, Any]:
        return {"state_dict": self.state_dict()}

    def load_model_specific(self, checkpoint: dict[str, Any]) -> None:
        self.load_state_dict(checkpoint["state_dict"])

    # ---------------------
    # data
    # ---------------------
    @property
    def tng_dataloader(self) -> DataLoader[Batch]:
        if self._tng_dataloader is None:
            tng_digits, _ = self.split_digits()
            self._tng_dataloader = DataLoader(tng_digits, batch_size=self.hparams.batch_size, shuffle=True)
        return self._tng_dataloader

    @property
    def val_dataloader(self) -> DataLoader[Batch]:
        if self._val_dataloader is None:
            _, val_digits = self.split_digits()
            self._val_dataloader = DataLoader(val_digits, batch_size=self.hparams.batch_size)
        return self._val_dataloader

    @property
    def test_dataloader(self) -> DataLoader[Batch]:
        if self._test_dataloader is None:
            self._test_dataloader = DataLoader(self.digits(train=False), batch_size=self.hparams.batch_size)
        return self._test_dataloader

    def digits(self, train: bool) -> Dataset[Batch]:
        transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (1.0,))])
        return mnist(root=self.hparams.data_root, train=train, transform=transform)

    def split_digits(self) -> list[Subset[Batch]]:
        """The training digits, and a tenth of them that is kept for validation: the same tenth each time.

        The test digits stay unseen until the end, so that nothing is chosen by them.
        """
        return random_split(self.digits(train=True), [0.9, 0.1], generator=torch.Generator().manual_seed(0))

    # ---------------------
    # command line
    # ---------------------
    @staticmethod
    def add_model_specific_args(parent_parser: ArgumentParser, root_dir: str = ".") -> HyperOptArgumentParser:
        """A parser with the options of ``parent_parser`` and those of this model, which are then in ``hparams``."""
        strategy = getattr(parent_parser, "strategy", "grid_search")  # a plain ArgumentParser has none
        parser = HyperOptArgumentParser(
            strategy=strategy, parents=[parent_parser], formatter_class=ArgumentDefaultsHelpFormatter
        )

        # param overwrites
        # parser.set_defaults(gradient_clip=5.0)

        # network params
        parser.opt_list(
            "--drop_prob",
            default=0.2,
            options=[0.2, 0.5],
            type=float,
            tunable=False,
            help="share of pixels and of hidden units that dropout zeroes",
        )
        parser.add_argument("--in_features", default=28 * 28, type=int, help="pixels of an image")
        parser.add_argument("--out_features", default=10, type=int, help="classes")
        # 500 suits a CPU; 50000 shows how much faster a GPU is
        parser.add_argument("--hidden_dim", default=50000, type=int, help="hidden units")

        # data
        parser.add_argument(
            "--data_root", default=os.path.join(root_dir, "mnist"), type=str, help="folder of the digits"
        )

        # training params (opt)
        parser.opt_list(
            "--learning_rate",
            default=0.001,
            type=float,
            options=[0.0001, 0.0005, 0.001, 0.005],
            tunable=False,
            help="of Adam",
        )
        parser.opt_list(
            "--batch_size", default=256, type=int, options=[32, 64, 128, 256], tunable=False, help="digits in a batch"
        )
        return parser


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """The share of ``labels`` whose logit is the largest."""
    return (logits.argmax(dim=1) == labels).float().mean()
