"""A LightningDataModule with prepare_data, setup by stage and three loaders."""
import os

import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset, random_split


class ToyDataModule(L.LightningDataModule):
    def __init__(self, data_dir: str = "./data", batch_size: int = 32):
        super().__init__()
        self.data_dir = data_dir
        self.batch_size = batch_size

    def prepare_data(self):
        # download
        os.makedirs(self.data_dir, exist_ok=True)
        g = torch.Generator().manual_seed(3)
        x = torch.randn(200, 5, generator=g)
        torch.save({"x": x, "y": (x[:, 0] > 0).long()}, os.path.join(self.data_dir, "toy.pt"))

    def setup(self, stage: str):
        data = torch.load(os.path.join(self.data_dir, "toy.pt"))
        full = TensorDataset(data["x"], data["y"])
        # Assign train/val datasets for use in dataloaders
        if stage == "fit":
            train, rest = random_split(full, [120, 80], generator=torch.Generator().manual_seed(42))
            self.train, self.val = train, rest

        # Assign test dataset for use in dataloader(s)
        if stage == "test":
            self.test = full

    def train_dataloader(self):
        return DataLoader(self.train, batch_size=self.batch_size)

    def val_dataloader(self):
        return DataLoader(self.val, batch_size=self.batch_size)

    def test_dataloader(self):
        return DataLoader(self.test, batch_size=self.batch_size)


class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(5, 2)
        self.loss = torch.nn.CrossEntropyLoss()

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.loss(self.layer(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        loss = self.loss(self.layer(x), y)
        self.log("val_loss", loss)
        return loss

    def test_step(self, batch, batch_idx):
        x, y = batch
        acc = (self.layer(x).argmax(-1) == y).float().mean()
        self.log("test_acc", acc)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.05)


if __name__ == "__main__":
    torch.manual_seed(0)
    model = Model()
    dm = ToyDataModule(batch_size=25)
    trainer = L.Trainer(accelerator="cpu", devices=1, max_epochs=3, logger=False, enable_progress_bar=False)
    trainer.fit(model, datamodule=dm)
    numbers = {"val_loss": float(trainer.callback_metrics["val_loss"])}
    results = trainer.test(datamodule=dm)
    numbers["test_acc"] = results[0]["test_acc"]
