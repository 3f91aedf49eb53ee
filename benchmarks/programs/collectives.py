"""COLL: python -m benchmarks.programs.collectives CONTESTANT FOLDER

How often each of two processes meets the other in a training step: torch's profiler counts what is given to the process
group in ten steps. The network is W1's, whose gradients are one exchange.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.data import DataLoader

from benchmarks import workloads as w
from pytorch_lightning import LightningModule, Trainer

BEGINS, FIRST, STEPS = 20, 40, 10
"""The step at which the profiler begins, which takes long, so that an agreement of once a second follows; the one from
which on they are counted, and how many."""
PROFILERS: list[Any] = []


def count(n: int, path: str) -> None:
    """Step ``n`` begins."""
    if n == BEGINS:
        PROFILERS.append(profile(activities=[ProfilerActivity.CPU]))
        PROFILERS[0].start()
    if n == FIRST:
        with record_function("counted from here"):
            pass
    if n == FIRST + STEPS:
        PROFILERS[0].stop()
        events = PROFILERS[0].events()
        start = next(event.time_range.start for event in events if event.name == "counted from here")
        found = [event for event in events if event.name.startswith("c10d::") and event.time_range.start >= start]
        Path(path).write_text(str(len(found) / STEPS))


def lean(path: str) -> None:
    dist.init_process_group("gloo")
    net = nn.parallel.DistributedDataParallel(w.w1_network())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    for n, (x, y) in enumerate(w.w1_loader(FIRST + STEPS + 2)):
        if dist.get_rank() == 0:
            count(n, path)
        optimizer.zero_grad()
        nn.functional.mse_loss(net(x), y).backward()
        optimizer.step()
    dist.barrier()
    dist.destroy_process_group()


class Counted(LightningModule):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.net, self.path = w.w1_network(), path

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        if self.trainer.proc_rank == 0:
            count(batch_nb, self.path)
        x, y = data_batch
        return {"loss": nn.functional.mse_loss(self.net(x), y)}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(w.w1_data(2 * (FIRST + STEPS + 2)), batch_size=32, shuffle=True)


def ours(path: str) -> None:
    folder = str(Path(path).parent)
    Trainer(max_nb_epochs=1, default_save_path=folder, nb_processes=2).fit(Counted(path))


if __name__ == "__main__":
    globals()[sys.argv[1]](f"{sys.argv[2]}/count")
    if (found := Path(sys.argv[2], "count")).exists() and os.environ.get("RANK", "0") == "0":
        print(json.dumps({"value": float(found.read_text())}), flush=True)
