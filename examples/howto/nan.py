"""A loss that is NaN: which step made it, which sample did, and what to write instead."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer, seed_everything
from pytorch_lightning.errors import FitError
from pytorch_lightning.replay import read_bundle


def data():
    """Pairs of points, and how far apart they are. The points of pair 100 are the same."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 320, 4, generator=generator)
    y[100] = x[100]
    return TensorDataset(x, y, (x - y).norm(dim=1))


class Distances(LightningModule):
    """Learns an embedding in which points are as far apart as they are in truth."""

    def __init__(self, smallest=0.0):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 8))
        self.smallest = smallest

    def forward(self, x, y):
        square = (self.network(x) - self.network(y)).pow(2).sum(dim=1)
        return (square + self.smallest).sqrt()  # the slope of sqrt at 0 is infinite

    def training_step(self, data_batch, batch_nb):
        x, y, distances = data_batch
        return (self(x, y) - distances).abs().mean()

    def validation_step(self, data_batch, batch_nb):
        x, y, distances = data_batch
        return {"error": (self(x, y) - distances).abs().mean()}

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)

    @property
    def tng_dataloader(self):
        return DataLoader(data(), batch_size=32, shuffle=True)

    @property
    def val_dataloader(self):
        return DataLoader(data(), batch_size=320)


class Suspicious(Distances):
    """Ends the fit at the first gradient that isn't finite: before a step takes it into the weights."""

    def on_after_backward(self):
        if not all(p.grad is None or p.grad.isfinite().all() for p in self.parameters()):
            raise ValueError("a gradient isn't finite")


def is_harmful(model, sample):
    """Whether this sample alone has a gradient that isn't finite."""
    loss = model.training_step([part[None] for part in sample], 0)
    return not all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, model.parameters()))


def fit(model, **options):
    seed_everything(0)
    trainer = Trainer(max_nb_epochs=5, print_weights_summary=False, default_save_path="nan", **options)
    trainer.fit(model)
    return trainer


if __name__ == "__main__":
    try:
        fit(Distances(), print_nan_grads=True)
    except FitError as error:
        print(f"1. {error}")

    model = Suspicious()
    try:
        fit(model)
    except ValueError as error:
        print(f"2. {error}")
    bundle = read_bundle("nan/Suspicious/version_0/crash/bundle.pt")
    samples = data()
    harmful = [i for i in bundle["loader"]["indices"] if is_harmful(model, samples[i])]
    print(f"3. samples of batch {bundle['batch_nb']}: {harmful}")

    trainer = fit(Distances(smallest=1e-8))
    print(f"4. with a smallest distance the mean error is {trainer.metrics['error']:.2f}")
