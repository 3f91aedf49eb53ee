"""The shortest correct scripts of DDP2 and DDPS: ``torchrun benchmarks/ddp_lean.py NAME BATCHES``, where NAME is DDP2,
DDPS, or DDPSdirect, which indexes its tensors instead of going through a DataLoader. Prints the microseconds of a step,
from a tenth of the batches to the end of training."""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import workloads as w


def DDP2(nb: int, folder: str) -> float:
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
    return (time.perf_counter() - start) * 1e6 / (nb_steps - nb // 10)


def loaded(nb: int) -> Iterator[Any]:
    """The batches of a process, from a loader."""
    sampler = DistributedSampler(w.ddps_data(max(1, nb // w.DDPS_EPOCHS)))
    loader = DataLoader(sampler.dataset, batch_size=32, sampler=sampler)
    for epoch in range(w.DDPS_EPOCHS):
        sampler.set_epoch(epoch)
        yield from loader


def indexed(nb: int) -> Iterator[Any]:
    """The batches of a process, by one index of each tensor."""
    x, y = w.ddps_data(max(1, nb // w.DDPS_EPOCHS)).tensors
    for epoch in range(w.DDPS_EPOCHS):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
        for indices in order[dist.get_rank() :: 2].split(32):
            yield x[indices], y[indices]


def DDPS(nb: int, folder: str, batches: Any = loaded) -> float:
    net = DistributedDataParallel(w.ddps_network())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    nb_steps, start = 0, 0.0
    for x, y in batches(nb):
        if nb_steps == nb // 10:
            start = time.perf_counter()
        nb_steps += 1
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return (time.perf_counter() - start) * 1e6 / (nb_steps - nb // 10)


def DDPSdirect(nb: int, folder: str) -> float:
    return DDPS(nb, folder, indexed)


def main(name: str, nb: int, folder: str) -> None:
    dist.init_process_group("gloo")
    value = globals()[name](nb, folder)
    if dist.get_rank() == 0:
        print(value)
    dist.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(sys.argv[1], int(sys.argv[2]), scratch)
