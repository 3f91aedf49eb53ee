"""W2 on the processes that torchrun starts: the shortest correct script. ``torchrun benchmarks/ddp_lean.py BATCHES``"""

import os
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import workloads as w


def main(nb: int, folder: str) -> None:
    dist.init_process_group("gloo")
    net = DistributedDataParallel(w.w2_network())
    sampler = DistributedSampler(w.w2_data(max(1, nb // w.W2_EPOCHS)))
    validation = DistributedSampler(w.w2_data(w.W2_VALIDATION), shuffle=False)
    optimizer = torch.optim.Adam(net.parameters())
    nb_steps, start = 0, 0.0
    for epoch in range(w.W2_EPOCHS):
        sampler.set_epoch(epoch)
        net.train()
        for x, y in DataLoader(sampler.dataset, batch_size=256, sampler=sampler):
            if nb_steps == nb // 10:
                start = time.perf_counter()
            nb_steps += 1
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
        net.eval()
        with torch.no_grad():
            own = [
                nn.functional.cross_entropy(net.module(x), y)
                for x, y in DataLoader(validation.dataset, batch_size=256, sampler=validation)
            ]
            mean = torch.stack(own).mean()
            dist.all_reduce(mean)
        if dist.get_rank() == 0:
            state = {"net": net.module.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(state, os.path.join(folder, f"{epoch}.pt"))
    if dist.get_rank() == 0:
        print((time.perf_counter() - start) * 1e6 / (nb_steps - nb // 10))
    dist.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(int(sys.argv[1]), scratch)
