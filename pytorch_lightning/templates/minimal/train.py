"""One layer, trained: ``python train.py``, with ``--help`` for every option of the Trainer."""

from argparse import ArgumentParser

import torch
import torch.nn.functional as F
from torch import Tensor, optim
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer, add_default_args, seed_everything


class Model(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(20, 3)

    def training_step(self, data_batch: list[Tensor], batch_nb: int) -> dict[str, Tensor]:
        x, y = data_batch
        return {"loss": F.cross_entropy(self.layer(x), y)}

    def configure_optimizers(self) -> list[optim.Optimizer]:
        return [optim.Adam(self.parameters(), lr=0.01)]

    @property
    def tng_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        x = torch.randn(1000, 20, generator=torch.Generator().manual_seed(0))  # the same at each start
        return DataLoader(TensorDataset(x, x[:, :3].argmax(dim=1)), batch_size=32, shuffle=True)


if __name__ == "__main__":
    parser = ArgumentParser(usage="%(prog)s [--option value ...]")
    add_default_args(parser, ".", run_options=False)
    parser.set_defaults(max_nb_epochs=20, save_every_nb_batches=20, silence=["no-validation"])
    hparams = parser.parse_args()
    if hparams.seed is not None:
        seed_everything(hparams.seed)  # before the model draws its weights
    trainer = Trainer.from_args(hparams)
    trainer.fit(Model())
    print(f"batches {trainer.global_step}, loss {trainer.tqdm_metrics['tng_loss']}")
