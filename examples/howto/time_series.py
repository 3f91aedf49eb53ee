"""Forecast a series: windows of the past, one step ahead, validated on what comes later."""

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from pytorch_lightning import LightningModule, Trainer, seed_everything

PAST = 24


class Windows(Dataset):
    """Each sample is ``PAST`` values and the one after them."""

    def __init__(self, series):
        self.series = series

    def __len__(self):
        return len(self.series) - PAST

    def __getitem__(self, i):
        return self.series[i : i + PAST], self.series[i + PAST]


def series():
    t = torch.arange(1200.0)
    noise = 0.1 * torch.randn(1200, generator=torch.Generator().manual_seed(0))
    return (t * 2 * torch.pi / 24).sin() + 0.5 * (t * 2 * torch.pi / 168).sin() + noise


class Forecaster(LightningModule):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(1, 16, batch_first=True)
        self.head = nn.Linear(16, 1)
        values = series()
        # time goes on: what is validated comes after all that is trained on, and shares no value with it
        self.early, self.late = values[:900], values[900:]
        self.register_buffer("mean", self.early.mean())
        self.register_buffer("std", self.early.std())  # of the training data alone

    def forward(self, past):
        hidden, _ = self.lstm(((past - self.mean) / self.std)[..., None])
        return self.head(hidden[:, -1]).squeeze(1) * self.std + self.mean

    def training_step(self, data_batch, batch_nb):
        past, following = data_batch
        return nn.functional.mse_loss(self(past), following)

    def validation_step(self, data_batch, batch_nb):
        past, following = data_batch
        return {
            "error": (self(past) - following).abs().sum(),
            "naive": (past[:, -1] - following).abs().sum(),  # tomorrow is like today
            "nb": len(past),
        }

    def validation_end(self, outputs):
        nb = sum(o["nb"] for o in outputs)
        return {name: sum(o[name] for o in outputs) / nb for name in ("error", "naive")}

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)

    @property
    def tng_dataloader(self):
        return DataLoader(Windows(self.early), batch_size=32, shuffle=True)

    @property
    def val_dataloader(self):
        return DataLoader(Windows(self.late), batch_size=128)


if __name__ == "__main__":
    seed_everything(0)
    trainer = Trainer(max_nb_epochs=5, print_weights_summary=False, default_save_path="time_series")
    trainer.fit(Forecaster())
    found = trainer.metrics
    print(f"mean absolute error {found['error']:.3f}; the last value as the forecast: {found['naive']:.3f}")
