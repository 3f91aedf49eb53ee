"""A DataModule whose setup makes each stage's data, validate and predict with it, and state of its own."""
import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset, random_split


class Sequences(Dataset):
    def __init__(self, length=60, window=5):
        t = torch.arange(length + window, dtype=torch.float32)
        self.series = torch.sin(t / 3)
        self.window = window

    def __len__(self):
        return len(self.series) - self.window

    def __getitem__(self, idx):
        return self.series[idx : idx + self.window].unsqueeze(-1), self.series[idx + self.window]


class SeriesData(L.LightningDataModule):
    def __init__(self, batch_size=10, window=5):
        super().__init__()
        self.save_hyperparameters()
        self.scale = None

    def prepare_data(self):
        Sequences()

    def setup(self, stage=None):
        full = Sequences(window=self.hparams.window)
        if stage in ("fit", "validate", None):
            self.train_set, self.val_set = random_split(full, [45, 15], generator=torch.Generator().manual_seed(7))
        if stage in ("test", None):
            self.test_set = Sequences(20, self.hparams.window)
        if stage == "predict":
            self.predict_set = Sequences(10, self.hparams.window)

    def train_dataloader(self):
        return DataLoader(self.train_set, batch_size=self.hparams.batch_size)

    def val_dataloader(self):
        return DataLoader(self.val_set, batch_size=self.hparams.batch_size)

    def test_dataloader(self):
        return DataLoader(self.test_set, batch_size=self.hparams.batch_size)

    def predict_dataloader(self):
        return DataLoader(self.predict_set, batch_size=4)

    def teardown(self, stage):
        print("done with", stage)


class Forecaster(L.LightningModule):
    def __init__(self, hidden=6):
        super().__init__()
        self.save_hyperparameters()
        self.lstm = torch.nn.LSTM(1, hidden, batch_first=True)
        self.out = torch.nn.Linear(hidden, 1)

    def forward(self, x):
        return self.out(self.lstm(x)[0][:, -1]).squeeze(-1)

    def _shared_eval(self, batch, batch_idx, prefix):
        x, y = batch
        loss = torch.nn.functional.mse_loss(self(x), y)
        self.log(f"{prefix}_loss", loss)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = torch.nn.functional.mse_loss(self(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self._shared_eval(batch, batch_idx, "val")

    def test_step(self, batch, batch_idx):
        self._shared_eval(batch, batch_idx, "test")

    def predict_step(self, batch, batch_idx):
        return self(batch[0])

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.02)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1, factor=0.5),
                "monitor": "val_loss",
                "frequency": 1,
            },
        }


def main():
    global model, numbers
    L.seed_everything(59)
    dm = SeriesData()
    model = Forecaster()
    trainer = L.Trainer(max_epochs=4, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.fit(model, datamodule=dm)
    numbers = {"val": trainer.validate(model, datamodule=dm)[0]["val_loss"],
               "test": trainer.test(model, datamodule=dm)[0]["test_loss"],
               "sum": float(torch.cat(trainer.predict(model, datamodule=dm)).sum())}


if __name__ == "__main__":
    main()
