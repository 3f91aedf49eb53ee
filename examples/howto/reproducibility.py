"""Reproducibility: what gives the same bits again, and what doesn't."""

import contextlib

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from pytorch_lightning import LightningModule, Trainer, seed_everything


class Noisy(Dataset):
    """Samples that are augmented at random."""

    def __len__(self):
        return 96

    def __getitem__(self, i):
        x = torch.full((6,), i / 96) + 0.1 * torch.randn(6)
        return x, x.sum()


class Stop(Exception):
    """Stands for a crash."""


class Model(LightningModule):
    def __init__(self, nb_workers=0, fail_at=None):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 1))
        self.nb_workers, self.fail_at = nb_workers, fail_at

    def training_step(self, data_batch, batch_nb):
        if self.global_step == self.fail_at:
            raise Stop
        x, y = data_batch
        return (self.network(x).squeeze(1) - y).pow(2).mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)

    @property
    def tng_dataloader(self):
        return DataLoader(Noisy(), batch_size=8, shuffle=True, num_workers=self.nb_workers)


def fit(folder="runs", seed=7, draws=0, nb_workers=0, fail_at=None, **options):
    """The weights at the end."""
    seed_everything(seed)
    model = Model(nb_workers, fail_at)
    torch.rand(draws)  # somebody draws more random numbers than before
    trainer = Trainer(
        max_nb_epochs=2,
        default_save_path=folder,
        print_weights_summary=False,
        silence=["no-validation", "first-save"],
        **options,
    )
    trainer.fit(model)
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def fit_twice():
    """A fit that fails in its second epoch, and the same program again."""
    options = {"folder": "cut", "resume": "auto", "save_every_nb_batches": 5}
    with contextlib.suppress(Stop):
        fit(fail_at=17, **options)
    return fit(**options)


if __name__ == "__main__":
    weights = fit()
    for what, others in (
        ("again", fit()),
        ("with 2 workers", fit(nb_workers=2)),
        ("more numbers are drawn before", fit(draws=5)),
        ("failed in batch 17, and resumed", fit_twice()),
        ("deterministic algorithms", fit(deterministic=True)),
        ("another seed", fit(seed=8)),
        ("batches of two, added up", fit(accumulate_grad_batches=2)),
    ):
        print(f"{what:32} {'the same bits' if torch.equal(weights, others) else 'others'}")
