"""A run of many processes of a tiny model, which saves in its middle; ``main(folder, what)`` trains, or resumes it."""

import json
import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader

from pytorch_lightning import LightningModule, Trainer

RANKS, NB_BATCHES, SIZE = 16, 37, 2
"""The last round of an epoch has 5 batches."""
SAVED, STEPS = 4, 6
TABLES: list[int] = []
"""Numbers of each all-reduce of float64, which are the tables: weights are float32."""


class Net(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 1)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        # some rows count for nothing, and some batches have other numbers of those that do
        kept = data_batch[data_batch[:, 0] > -0.5]
        loss = (self.layer(kept) - kept.sum(1, keepdim=True)).pow(2)
        return {"loss": loss.sum() / max(len(kept), 1), "loss_count": len(kept)}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.05, momentum=0.9)

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(rows(), batch_size=SIZE)  # type: ignore[arg-type]


def rows() -> Any:
    return torch.randn(NB_BATCHES * SIZE, 3, generator=torch.Generator().manual_seed(3))


def by_hand(nb_steps: int) -> list[Any]:
    """The weighted mean over all batches of a round, in one process."""
    net, batches = Net(), rows().split(SIZE)
    rounds = [batches[i : i + RANKS] for i in range(0, NB_BATCHES, RANKS)]
    optimizer = net.configure_optimizers()
    for step in range(nb_steps):
        found = [net.training_step(batch, 0) for batch in rounds[step % len(rounds)]]
        total = sum(output["loss_count"] for output in found)
        optimizer.zero_grad()
        sum(output["loss"] * output["loss_count"] / total for output in found).backward()
        optimizer.step()
    return [p.tolist() for p in net.parameters()]


def main(folder: str, what: str) -> None:
    own = dist.all_reduce

    def counted(tensor: Any, *arguments: Any, **options: Any) -> Any:
        if tensor.dtype == torch.float64:
            TABLES.append(tensor.numel())
        return own(tensor, *arguments, **options)

    dist.all_reduce = counted
    options: dict[str, Any] = {"max_nb_steps": STEPS, "progress_bar": False, "print_weights_summary": False}
    if what == "cut":
        options["max_nb_steps"] = SAVED
    place = f"{folder}/whole" if what == "whole" else f"{folder}/{what}"
    if what.startswith("resumed"):
        (saved,) = Path(folder, "cut").glob("**/step-*.ckpt")
        options["resume"] = str(saved)
    else:
        options["save_every_nb_batches"] = SAVED
    trainer = Trainer(
        distributed_backend="ddp", virtual_ranks=RANKS, exact_elastic=True, seed=1, default_save_path=place, **options
    )
    net = Net()
    trainer.fit(net)
    told = {"weights": [p.tolist() for p in net.parameters()], "steps": trainer.global_step, "tables": TABLES}
    Path(folder, f"{what}_{os.environ['RANK']}.json").write_text(json.dumps(told))
