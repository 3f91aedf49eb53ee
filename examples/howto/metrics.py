"""Metrics of a whole set: a confusion matrix and F1, collected batch by batch and computed once."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer, seed_everything

CLASSES = ("cat", "dog", "fox")


def data(nb, seed):
    """Three classes, of which the third is rare and lies between the others."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.multinomial(torch.tensor([0.5, 0.4, 0.1]), nb, replacement=True, generator=generator)
    centres = torch.tensor([[-1.5, 0.0], [1.5, 0.0], [0.0, 1.5]])
    return TensorDataset(centres[y] + torch.randn(nb, 2, generator=generator), y)


class F1:
    """The mean of the classes' F1: ``update``, ``compute`` and ``reset``, as the metrics of torchmetrics have them."""

    def __init__(self):
        self.reset()

    def update(self, predicted, y):
        self.matrix += confusion_of(predicted, y).cpu()

    def compute(self):
        return f1_of(self.matrix).mean()

    def reset(self):
        self.matrix = torch.zeros(len(CLASSES), len(CLASSES), dtype=torch.long)


def confusion_of(predicted, y):
    """How many samples of each class (rows) were taken for each class (columns)."""
    nb = len(CLASSES)
    return (nb * y + predicted).bincount(minlength=nb * nb).view(nb, nb)


def f1_of(matrix):
    return 2 * matrix.diag() / (matrix.sum(0) + matrix.sum(1)).clamp(min=1)


class Classifier(LightningModule):
    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, len(CLASSES)))
        self.tng_f1 = F1()  # an attribute of the module: a resumed run goes on counting

    def training_step(self, data_batch, batch_nb):
        x, y = data_batch
        logits = self.network(x)
        self.tng_f1.update(logits.argmax(1), y)
        loss = nn.functional.cross_entropy(logits, y)
        return {"loss": loss, "loss_count": len(y), "prog_epoch": {"tng_f1": self.tng_f1}}

    def validation_step(self, data_batch, batch_nb):
        x, y = data_batch
        matrix = confusion_of(self.network(x).argmax(1), y)
        return {"matrix": matrix, "f1_of_batch": f1_of(matrix).mean()}

    def validation_end(self, outputs):
        self.matrix = torch.stack([o["matrix"] for o in outputs]).sum(0)
        f1 = f1_of(self.matrix)
        return {
            **{f"f1_{name}": f1[number] for number, name in enumerate(CLASSES)},
            "f1": f1.mean(),
            "mean_of_batches": torch.stack([o["f1_of_batch"] for o in outputs]).mean(),
        }

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)

    @property
    def tng_dataloader(self):
        return DataLoader(data(1000, seed=0), batch_size=50, shuffle=True)

    @property
    def val_dataloader(self):
        return DataLoader(data(1000, seed=1), batch_size=20)


if __name__ == "__main__":
    seed_everything(0)
    model, trainer = Classifier(), Trainer(max_nb_epochs=5, print_weights_summary=False, default_save_path="metrics")
    trainer.fit(model)
    found = trainer.metrics
    print(f"{'':5}" + "".join(f"{name:>5}" for name in CLASSES) + "    F1")
    for name, row in zip(CLASSES, model.matrix.tolist(), strict=True):
        print(f"{name:5}" + "".join(f"{nb:5}" for nb in row) + f"  {found[f'f1_{name}']:.2f}")
    print(f"F1 in training {found['tng_f1']:.2f}, in validation {found['f1']:.2f}")
    print(f"the mean of the batches would be {found['mean_of_batches']:.2f}")
