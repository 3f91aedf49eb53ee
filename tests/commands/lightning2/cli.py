"""LightningCLI, with the arguments in the program."""
import lightning as L
import torch
from lightning.pytorch.cli import LightningCLI
from torch.utils.data import DataLoader


class Model(L.LightningModule):
    def __init__(self, width: int = 4, lr: float = 0.1):
        super().__init__()
        self.lr = lr
        self.layers = torch.nn.Sequential(torch.nn.Linear(3, width), torch.nn.ReLU(), torch.nn.Linear(width, 1))

    def training_step(self, batch, batch_idx):
        return self.layers(batch).sub(1).pow(2).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class Data(L.LightningDataModule):
    def __init__(self, batch_size: int = 8):
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage):
        self.data = torch.randn(32, 3, generator=torch.Generator().manual_seed(0))

    def train_dataloader(self):
        return DataLoader(self.data, batch_size=self.batch_size)


def cli_main():
    global model
    cli = LightningCLI(Model, Data, seed_everything_default=42, run=False, save_config_callback=None,
                       trainer_defaults={"max_epochs": 2, "logger": False, "enable_checkpointing": False})
    model = cli.model
    cli.trainer.fit(cli.model, cli.datamodule)


if __name__ == "__main__":
    cli_main()
