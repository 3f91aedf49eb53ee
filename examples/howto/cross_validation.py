"""Train on k folds, and say how good the model is on samples that it hasn't seen."""

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from pytorch_lightning import LightningModule, Trainer, seed_everything

NB_FOLDS = 5


def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 6, generator=generator)
    y = (x[:, 0] * x[:, 1] + 0.3 * torch.randn(200, generator=generator) > 0).long()
    return TensorDataset(x, y)


class Classifier(LightningModule):
    def __init__(self, fold):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 2))
        self.samples = data()
        order = torch.randperm(len(self.samples), generator=torch.Generator().manual_seed(1))
        self.folds = order.chunk(NB_FOLDS)
        self.fold = fold

    def training_step(self, data_batch, batch_nb):
        x, y = data_batch
        return nn.functional.cross_entropy(self.network(x), y)

    def validation_step(self, data_batch, batch_nb):
        x, y = data_batch
        return {"nb_right": (self.network(x).argmax(1) == y).sum(), "nb": len(y)}

    def validation_end(self, outputs):
        return {"val_acc": sum(o["nb_right"] for o in outputs) / sum(o["nb"] for o in outputs)}

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)

    @property
    def tng_dataloader(self):
        others = [fold for number, fold in enumerate(self.folds) if number != self.fold]
        return DataLoader(Subset(self.samples, torch.cat(others).tolist()), batch_size=20, shuffle=True)

    @property
    def val_dataloader(self):
        return DataLoader(Subset(self.samples, self.folds[self.fold].tolist()), batch_size=20)


if __name__ == "__main__":
    scores = []
    for fold in range(NB_FOLDS):
        seed_everything(fold)  # each model begins with weights of its own
        model = Classifier(fold)
        trainer = Trainer(max_nb_epochs=10, print_weights_summary=False, default_save_path=f"folds/{fold}")
        trainer.fit(model)
        scores.append(trainer.metrics["val_acc"])
        print(f"fold {fold}  accuracy {scores[-1]:.3f}")
    all_scores = torch.tensor(scores)
    print(f"all     accuracy {all_scores.mean():.3f} +- {all_scores.std() / NB_FOLDS**0.5:.3f}")
