"""BIG's fit by this library."""

import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from benchmarks.programs.big import BATCH, STEPS, Free, network
from pytorch_lightning import LightningModule, Trainer

SEED = 1


def loader(nb: int) -> DataLoader[Any]:
    return DataLoader(Free(nb), BATCH, shuffle=True)


class Line(LightningModule):
    def __init__(self, nb: int, fifth: str) -> None:
        super().__init__()
        self.net, self.nb, self.fifth = network(), nb, fifth

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        STEPS.append(time.perf_counter())
        if len(STEPS) == 5 and self.trainer.proc_rank == 0:
            Path(self.fifth).write_text(str(STEPS[-1]))
        x, y = data_batch
        return {"loss": nn.functional.mse_loss(self.net(x), y)}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)

    @property
    def tng_dataloader(self) -> Any:
        return loader(self.nb)


def fit(nb: int, folder: Path, two: bool, middle: bool) -> None:
    """Eight steps, from the start or from the middle; a checkpoint is left in ``folder``."""
    done, options = 0, dict[str, Any]()
    if middle:
        done = middle_of(nb, 2 if two else 1)
        options["resume"] = folder / "middle.ckpt"
    if two:
        options["nb_processes"] = 2
    model = Line(nb, str(folder / "fifth"))
    trainer = Trainer(max_nb_epochs=1, max_nb_steps=done + 8, seed=SEED, default_save_path=str(folder), **options)
    trainer.fit(model)
    if not middle:
        trainer.save_checkpoint(folder / "end.ckpt")


def middle_of(nb: int, nb_processes: int) -> int:
    """The steps that are done there."""
    return nb // BATCH // nb_processes // 2


def to_the_middle(nb: int, folder: Path, nb_processes: int) -> None:
    """Make of the checkpoint one of the middle of its epoch."""
    from pytorch_lightning.data.replayable import replayable

    saved, middle = torch.load(folder / "end.ckpt", weights_only=True), middle_of(nb, nb_processes)
    again = replayable(loader(nb), SEED, 0)
    again.use_order(saved["parts"]["data"]["order"])
    next(iter(again.batches(0, middle * nb_processes, middle * nb_processes + 1)))
    saved["parts"]["data"]["indices_crc"] = again.crc_at(middle * nb_processes)
    saved["parts"]["progress"].update(batch_nb=middle, global_step=middle, nb_optimizer_steps=middle)
    saved["global_step"] = middle
    torch.save(saved, folder / "middle.ckpt")
