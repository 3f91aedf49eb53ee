"""A slow loader: how long training waits for data, and what workers and a cache change."""

import time

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from pytorch_lightning import LightningModule, Trainer, seed_everything


class Files(Dataset):
    """Samples that take 4 ms each to read and decode, and are augmented at random."""

    def __len__(self):
        return 400

    def read(self, i):
        time.sleep(0.004)  # stands for a file on a disk, or on the network
        return torch.full((8,), i / 400)

    def __getitem__(self, i):
        x = self.read(i) + 0.1 * torch.randn(8)
        return x, x.sum()


class Cached(Files):
    """Read once, before training; augmented as before."""

    def __init__(self):
        self.all = torch.stack([super(Cached, self).read(i) for i in range(len(self))])

    def read(self, i):
        return self.all[i]


class Model(LightningModule):
    def __init__(self, samples, nb_workers):
        super().__init__()
        self.layer = nn.Linear(8, 1)
        self.samples, self.nb_workers = samples, nb_workers

    def training_step(self, data_batch, batch_nb):
        x, y = data_batch
        time.sleep(0.020)  # stands for what a GPU computes meanwhile
        return (self.layer(x).squeeze(1) - y).pow(2).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)

    @property
    def tng_dataloader(self):
        return DataLoader(self.samples, batch_size=8, shuffle=True, num_workers=self.nb_workers)


def fit(samples, nb_workers=0):
    """The share of its time that training waits for data, and the weights at its end."""
    seed_everything(0)
    model = Model(samples, nb_workers)
    trainer = Trainer(False, max_nb_epochs=1, print_weights_summary=False, silence=["no-validation"])
    trainer.fit(model)
    seconds = trainer.timings.seconds
    training = sum(seconds.values()) - seconds["start"]
    return seconds["data"] / training, model.layer.weight.detach()


if __name__ == "__main__":
    waited, weights = fit(Files())
    print(f"no workers    waits {100 * waited:3.0f} % of the time")
    for name, samples, nb_workers in (("2 workers", Files(), 2), ("read once", Cached(), 0)):
        waited, others = fit(samples, nb_workers)
        print(f"{name:13} waits {100 * waited:3.0f} % of the time, the same weights: {torch.equal(weights, others)}")
