"""START2, a script: ``python two_start.py ours PATH``, or ``torchrun --nproc_per_node=2 two_start.py lean PATH``.

Writes when the first training step of W1 on two processes was over, by a clock that all processes share.
"""

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from torch import nn
from torch.utils.data import DataLoader

torch.set_num_threads(1)


def data() -> Any:
    from benchmarks.workloads import w1_data

    return w1_data(8)


def network() -> nn.Module:
    from benchmarks.workloads import w1_network

    return w1_network()


def lean(path: str) -> None:
    import torch.distributed as dist
    from torch.utils.data.distributed import DistributedSampler

    dist.init_process_group("gloo")
    net = nn.parallel.DistributedDataParallel(network())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    samples = data()
    for n, (x, y) in enumerate(DataLoader(samples, 32, sampler=DistributedSampler(samples))):
        optimizer.zero_grad()
        nn.functional.mse_loss(net(x), y).backward()
        optimizer.step()
        if n == 0 and dist.get_rank() == 0:
            Path(path).write_text(str(time.perf_counter()))
    dist.destroy_process_group()


if sys.argv[1] == "ours" or __name__ != "__main__":
    from pytorch_lightning import LightningModule, Trainer

    class Regression(LightningModule):
        def __init__(self, path: str) -> None:
            super().__init__()
            self.net, self.path = network(), path

        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            x, y = data_batch
            return {"loss": nn.functional.mse_loss(self.net(x), y)}

        def on_batch_end(self) -> None:
            if self.global_step == 1 and self.trainer.proc_rank == 0:
                Path(self.path).write_text(str(time.perf_counter()))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.01)

        @property
        def tng_dataloader(self) -> Any:
            return DataLoader(data(), 32, shuffle=True)

    def ours(path: str) -> None:
        folder = str(Path(path).parent)
        Trainer(max_nb_epochs=1, default_save_path=folder, nb_processes=2).fit(Regression(path))


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2])
