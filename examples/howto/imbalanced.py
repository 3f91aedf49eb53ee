"""One class is rare: draw it as often as the other one, or weigh its loss, and look at recall and precision."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

from pytorch_lightning import LightningModule, Trainer, seed_everything


def data(nb, seed):
    generator = torch.Generator().manual_seed(seed)
    y = (torch.rand(nb, generator=generator) < 0.03).long()
    x = torch.randn(nb, 4, generator=generator) + 1.2 * y[:, None]
    return TensorDataset(x, y)


class Detector(LightningModule):
    """``remedy`` is 'none', 'draw' or 'weigh'."""

    rarity: torch.Tensor  # for editors, which can't see what register_buffer makes

    def __init__(self, remedy):
        super().__init__()
        self.remedy = remedy
        self.network = nn.Linear(4, 2)
        self.samples = data(2000, seed=0)
        shares = self.samples.tensors[1].bincount() / len(self.samples)
        self.register_buffer("rarity", 1 / shares)

    def training_step(self, data_batch, batch_nb):
        x, y = data_batch
        weight = self.rarity if self.remedy == "weigh" else None
        return nn.functional.cross_entropy(self.network(x), y, weight)

    def validation_step(self, data_batch, batch_nb):
        x, y = data_batch
        found = self.network(x).argmax(1)
        return {"hits": (found * y).sum(), "found": found.sum(), "there": y.sum()}

    def validation_end(self, outputs):
        hits, found, there = (torch.stack([o[name] for o in outputs]).sum() for name in ("hits", "found", "there"))
        return {"recall": hits / there, "precision": hits / found.clamp(min=1)}

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.02)

    @property
    def tng_dataloader(self):
        if self.remedy != "draw":
            return DataLoader(self.samples, batch_size=50, shuffle=True)
        weights = self.rarity.cpu()[self.samples.tensors[1]].tolist()
        return DataLoader(self.samples, batch_size=50, sampler=WeightedRandomSampler(weights, len(weights)))

    @property
    def val_dataloader(self):
        return DataLoader(data(2000, seed=1), batch_size=500)


if __name__ == "__main__":
    for remedy in ("none", "draw", "weigh"):
        seed_everything(1)
        trainer = Trainer(max_nb_epochs=5, print_weights_summary=False, default_save_path="imbalanced")
        trainer.fit(Detector(remedy))
        print(f"{remedy:6} recall {trainer.metrics['recall']:.2f}  precision {trainer.metrics['precision']:.2f}")
