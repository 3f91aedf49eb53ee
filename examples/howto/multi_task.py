"""Two tasks on one trunk: a class and a number, with weights of their losses that are learnt."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer, seed_everything


def data(nb, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(nb, 8, generator=generator)
    kind = (x[:, 0] + x[:, 1] > 0).long()
    size = 100 * x[:, 2] + 20 * x[:, 0]  # its loss is thousands of times that of the class
    return TensorDataset(x, kind, size)


class TwoTasks(LightningModule):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(8, 32), nn.ReLU())
        self.kind, self.size = nn.Linear(32, 2), nn.Linear(32, 1)
        # the log of each task's variance (Kendall, Gal and Cipolla, 2018): a parameter, so it is trained and resumed
        self.log_vars = nn.Parameter(torch.zeros(2))

    def losses(self, data_batch):
        x, kind, size = data_batch
        hidden = self.trunk(x)
        return torch.stack(
            [
                nn.functional.cross_entropy(self.kind(hidden), kind),
                nn.functional.mse_loss(self.size(hidden).squeeze(1), size),
            ]
        )

    def training_step(self, data_batch, batch_nb):
        losses = self.losses(data_batch)
        total = (losses * (-self.log_vars).exp() + self.log_vars).sum()
        return {"loss": total, "prog": {"kind_loss": losses[0], "size_loss": losses[1]}}

    def validation_step(self, data_batch, batch_nb):
        x, kind, size = data_batch
        hidden = self.trunk(x)
        return {
            "nb_right": (self.kind(hidden).argmax(1) == kind).sum(),
            "error": (self.size(hidden).squeeze(1) - size).abs().sum(),
            "nb": len(x),
        }

    def validation_end(self, outputs):
        nb = sum(o["nb"] for o in outputs)
        return {"val_acc": sum(o["nb_right"] for o in outputs) / nb, "val_mae": sum(o["error"] for o in outputs) / nb}

    def configure_optimizers(self):
        tasks = [*self.trunk.parameters(), *self.kind.parameters(), *self.size.parameters()]
        return torch.optim.Adam([{"params": tasks, "lr": 0.01}, {"params": [self.log_vars], "lr": 0.05}])

    @property
    def tng_dataloader(self):
        return DataLoader(data(1000, seed=0), batch_size=50, shuffle=True)

    @property
    def val_dataloader(self):
        return DataLoader(data(500, seed=1), batch_size=100)


if __name__ == "__main__":
    seed_everything(0)
    trainer = Trainer(max_nb_epochs=20, print_weights_summary=False, default_save_path="multi_task")
    trainer.fit(TwoTasks())
    found = trainer.metrics
    print(f"accuracy {found['val_acc']:.3f}, mean absolute error {found['val_mae']:.1f} of a spread of 100")
