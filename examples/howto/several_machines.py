"""Several processes, on one machine or on many: one program, whatever starts it."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer, seed_everything


def data(nb, seed):
    x = torch.randn(nb, 8, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, (x[:, :4].sum(1) > x[:, 4:].sum(1)).long())


class Classifier(LightningModule):
    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))

    def training_step(self, data_batch, batch_nb):
        x, y = data_batch
        return nn.functional.cross_entropy(self.network(x), y)

    def validation_step(self, data_batch, batch_nb):
        x, y = data_batch
        return {"nb_right": (self.network(x).argmax(1) == y).sum(), "nb": len(y)}

    def validation_end(self, outputs):  # in every process, with the outputs of all of them
        nb = sum(o["nb"] for o in outputs)
        return {"val_acc": sum(o["nb_right"] for o in outputs) / nb, "nb_validated": nb}

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)

    @property
    def tng_dataloader(self):  # all samples, no DistributedSampler: the Trainer deals out the batches
        return DataLoader(data(1010, seed=0), batch_size=20, shuffle=True)

    @property
    def val_dataloader(self):
        return DataLoader(data(310, seed=1), batch_size=20)


if __name__ == "__main__":
    seed_everything(0)
    model = Classifier()
    trainer = Trainer(
        max_nb_epochs=3,
        distributed_backend="ddp",  # and gpus=-1 where there are GPUs
        virtual_ranks=2,  # two batches a step, on one process or two: leave it out, and it is the number of processes
        default_save_path="machines",
        print_weights_summary=False,
        progress_bar=False,
    )
    trainer.fit(model)
    if trainer.proc_rank == 0:
        found, norm = trainer.metrics, nn.utils.parameters_to_vector(model.parameters()).norm()
        print(f"{trainer.progress.nb_optimizer_steps} steps, norm of the weights {norm:.7f}")
        print(f"accuracy {found['val_acc']:.3f} of {found['nb_validated']:.0f} samples")
