"""A job that a cluster ends at any time: it is saved, starts again, and loses nothing."""

import os
import signal
from argparse import ArgumentParser

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer, seed_everything


class Classifier(LightningModule):
    def __init__(self, warn_at=None):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 2))
        self.warn_at = warn_at

    def training_step(self, data_batch, batch_nb):
        if self.global_step == self.warn_at:
            os.kill(os.getpid(), signal.SIGUSR1)  # as Slurm does, some time before it ends the job
        x, y = data_batch
        return nn.functional.cross_entropy(self.network(x), y)

    def validation_step(self, data_batch, batch_nb):
        x, y = data_batch
        return {"val_acc": (self.network(x).argmax(1) == y).float().mean()}

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)

    def loader(self, nb, seed):
        x = torch.randn(nb, 8, generator=torch.Generator().manual_seed(seed))
        return DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), batch_size=20, shuffle=seed == 0)

    @property
    def tng_dataloader(self):
        return self.loader(600, seed=0)

    @property
    def val_dataloader(self):
        return self.loader(300, seed=1)


if __name__ == "__main__":
    parser = ArgumentParser()
    parser.add_argument("--folder", default="job", help="on a disk that all machines of the cluster see")
    parser.add_argument("--warn_at", type=int, help="the batch in which the signal comes, to try it out")
    arguments = parser.parse_args()

    seed_everything(0)
    model = Classifier(arguments.warn_at)
    trainer = Trainer(
        max_nb_epochs=4,
        resume="auto",  # where there is a save, goes on from there; where not, begins
        save_every_minutes=10,  # for what comes without a warning: a crash, a power cut
        default_save_path=arguments.folder,
        print_weights_summary=False,
        progress_bar=False,
        silence=["other-attributes"],
    )
    trainer.fit(model)
    norm = nn.utils.parameters_to_vector(model.parameters()).norm()
    print(f"batch {trainer.global_step}: accuracy {trainer.metrics['val_acc']:.3f}, norm of the weights {norm:.7f}")
