"""A search for hyperparameters, that goes on where it was killed: random draws, and a second round for the best."""

import random

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer, seed_everything

NB_TRIALS, NB_BEST, SEED = 5, 3, 150


def data(nb, seed):
    """Is a point within the ring?"""
    x = 2 * torch.rand(nb, 2, generator=torch.Generator().manual_seed(seed)) - 1
    return TensorDataset(x, ((x.norm(dim=1) - 0.6).abs() < 0.2).long())


def draw(trial):
    """The hyperparameters of a trial: those of a number are always the same, so that it can be resumed."""
    generator = random.Random(SEED + trial)
    return {"lr": 10 ** generator.uniform(-4, -1), "width": generator.choice([8, 32, 128])}


class Classifier(LightningModule):
    def __init__(self, hparams):
        super().__init__(hparams)
        width = hparams["width"]
        self.network = nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.head = nn.Linear(width, 2)

    def forward(self, x):
        return self.head(self.network(x))

    def training_step(self, data_batch, batch_nb):
        x, y = data_batch
        return nn.functional.cross_entropy(self(x), y)

    def validation_step(self, data_batch, batch_nb):
        x, y = data_batch
        return {"nb_right": (self(x).argmax(1) == y).sum(), "nb": len(y)}

    def validation_end(self, outputs):
        return {"val_acc": sum(o["nb_right"] for o in outputs) / sum(o["nb"] for o in outputs)}

    test_step, test_end = validation_step, validation_end

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams["lr"])

    @property
    def tng_dataloader(self):
        return DataLoader(data(400, seed=0), batch_size=20, shuffle=True)

    @property
    def val_dataloader(self):
        return DataLoader(data(500, seed=1), batch_size=500)

    @property
    def test_dataloader(self):
        return DataLoader(data(500, seed=2), batch_size=500)


def train(trial, nb_epochs):
    """A trial up to that many epochs: what it was trained already is found in its folder."""
    seed_everything(trial)
    trainer = Trainer(
        max_nb_epochs=nb_epochs, resume="auto", default_save_path=f"search/{trial}", print_weights_summary=False
    )
    trainer.fit(Classifier(draw(trial)))
    return trainer


if __name__ == "__main__":
    scores = {trial: train(trial, nb_epochs=3).metrics["val_acc"] for trial in range(NB_TRIALS)}
    best = sorted(scores, key=lambda trial: scores[trial], reverse=True)[:NB_BEST]
    trainers = {trial: train(trial, nb_epochs=10) for trial in best}  # goes on after epoch 3
    winner = max(best, key=lambda trial: trainers[trial].metrics["val_acc"])
    for trial, score in scores.items():
        own = draw(trial)
        more = f", then {trainers[trial].metrics['val_acc']:.2f}" if trial in best else ""
        print(f"trial {trial}  lr {own['lr']:.4f}  width {own['width']}  accuracy {score:.2f}{more}")
    print(f"trial {winner} on the test set: {trainers[winner].test()['val_acc']:.2f}")
