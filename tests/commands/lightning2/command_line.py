"""A script with argparse, whose options go to the Trainer and the module."""
from argparse import ArgumentParser

import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset


class Model(L.LightningModule):
    def __init__(self, hidden=8, lr=0.1):
        super().__init__()
        self.save_hyperparameters()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(4, self.hparams.hidden),
            torch.nn.ReLU(),
            torch.nn.Linear(self.hparams.hidden, 2),
        )

    def training_step(self, batch, batch_idx):
        x, y = batch
        return torch.nn.functional.cross_entropy(self.net(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        preds = self.net(x).argmax(1)
        self.log("acc", (preds == y).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), lr=self.hparams.lr)


def main(args):
    L.seed_everything(args.seed)
    x = torch.randn(40, 4)
    y = (x.sum(1) > 0).long()
    model = Model(hidden=args.hidden)
    trainer = L.Trainer(
        max_epochs=args.epochs,
        accelerator=args.accelerator,
        devices=args.devices,
        enable_progress_bar=not args.quiet,
        logger=False,
    )
    trainer.fit(model, DataLoader(TensorDataset(x, y), 8), DataLoader(TensorDataset(x, y), 16))
    return model, float(trainer.callback_metrics["acc"])


if __name__ == "__main__":
    parser = ArgumentParser()
    parser.add_argument("--hidden", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=34)
    parser.add_argument("--accelerator", default="cpu")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--quiet", action="store_true")
    model, acc = main(parser.parse_args(["--quiet"]))
    numbers = {"acc": acc}
