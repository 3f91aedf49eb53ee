"""hparams that are a Namespace or a dict: save_hyperparameters of one, of a list of names, and a net to ignore."""
from argparse import ArgumentParser, Namespace

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader


class FromNamespace(pl.LightningModule):
    def __init__(self, hparams):
        super().__init__()
        self.save_hyperparameters(hparams)
        self.net = torch.nn.Linear(4, self.hparams.width)

    def training_step(self, batch, batch_idx):
        loss = self.net(batch).pow(2).mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return getattr(torch.optim, self.hparams.optimizer)(self.parameters(), lr=self.hparams.lr)

    @staticmethod
    def add_model_args(parent):
        parser = ArgumentParser(parents=[parent], add_help=False)
        parser.add_argument("--width", type=int, default=3)
        parser.add_argument("--optimizer", default="SGD")
        parser.add_argument("--lr", type=float, default=0.1)
        return parser


class WithNet(pl.LightningModule):
    def __init__(self, net: torch.nn.Module, lr: float = 0.05, note: str = "none"):
        super().__init__()
        self.save_hyperparameters("lr", "note")
        self.net = net

    def training_step(self, batch, batch_idx):
        return self.net(batch).sub(1).pow(2).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), lr=self.hparams["lr"])


if __name__ == "__main__":
    parser = ArgumentParser(add_help=False)
    parser.add_argument("--epochs", type=int, default=2)
    args = FromNamespace.add_model_args(parser).parse_args()
    pl.seed_everything(54)
    loader = DataLoader(torch.randn(16, 4), batch_size=4)
    first = FromNamespace(args)
    pl.Trainer(max_epochs=args.epochs, logger=False, enable_checkpointing=False).fit(first, loader)
    assert isinstance(args, Namespace)
    model = WithNet(first.net, note="second")
    trainer = pl.Trainer(max_epochs=2, logger=False, enable_checkpointing=False)
    trainer.fit(model, loader)
    trainer.save_checkpoint("with_net.ckpt")
    again = WithNet.load_from_checkpoint("with_net.ckpt", net=torch.nn.Linear(4, 3))
    numbers = {"lr": again.hparams.lr, "same": torch.equal(again.net.weight, model.net.weight), "note": len(again.hparams.note)}
