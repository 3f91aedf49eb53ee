"""The workloads: data, networks and sizes, the same for every contestant."""

import os
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


@dataclass(frozen=True)
class Workload:
    """``full`` batches are run, and ``small`` ones: their difference is the steady state."""

    what: str
    small: int
    full: int
    unit: str = "us a step"
    most_rounds: int = 99
    """Slow ones that vary little are run in fewer rounds."""


PICTURES = "ResNet18, 16 wide, 32 x 32 images augmented by PIL, 3 epochs, whole fit"

MORE = "figures with more_ are what the largest takes over 10^6"
BIG = 10**9

WORKLOADS = {
    "W1": Workload("MLP 32-64-1, batch 32, DataLoader over tensors in memory, SGD", 200, 2000),
    "W1list": Workload("the same, the loader is a list of ready batches", 200, 2000),
    "W2": Workload("MLP 784-1000-10 with BatchNorm and Dropout, Adam, batch 256; validation and checkpoint", 30, 300),
    "W3": Workload("char-GPT, 4 layers, 128 wide, AdamW, clip 1.0, accumulation 2", 50, 50),
    "W3large": Workload("the same, 6 layers, 256 wide", 26, 26),
    "W3compiled": Workload("W3 compiled by torch.compile, without the time that takes", 50, 50),
    "W3largecompiled": Workload("W3large compiled, without the time that takes", 26, 26),
    "W4": Workload("evaluation of W1's network", 200, 2000),
    "PROG": Workload("W1list with 0, 1, 11 and 50 logged values, taking turns", 1000, 1000),
    "CK": Workload(
        "25 M parameters, Adam: how long the loop stands still for a save; peak: memory for each byte of the state",
        50,
        50,
        "ms a save",
    ),
    "DDP2": Workload("W2 on 2 processes; lean is a DDP script under torchrun; without start-up", 300, 300),
    "DDPS": Workload("MLP 784-512-512-10, batch 32 a process, 2 processes; lean as in DDP2", 800, 800),
    "REAL": Workload(f"{PICTURES}, no workers", 40, 40, "ms a step", most_rounds=3),
    "REALworkers": Workload(f"{PICTURES}, 2 workers", 40, 40, "ms a step", most_rounds=3),
    "REALpersistent": Workload(f"{PICTURES}, 2 persistent workers", 40, 40, "ms a step", most_rounds=3),
    "EPOCHS": Workload(
        "W1, epochs of 10 batches, each with a validation, early stopping and a durable checkpoint",
        200,
        2000,
        "us an epoch",
        most_rounds=3,
    ),
    "W5": Workload("digits augmented by PIL, a small network, num_workers=0: a whole fit", 1500, 1500, "s", 2),
    "BIG": Workload(f"shuffled samples that cost nothing, up to 10^9: to the fifth step; {MORE}", BIG, BIG, "s", 2),
    "RESTORE": Workload("84 M parameters, Adam: a resume from a checkpoint of 1 GB", 0, 1, "s", 3),
    "FSDP2R": Workload("25 MB of weights, Adam, fsdp on 2 processes: bytes read by a resume", 0, 1, "of own shards", 1),
    "COLL": Workload("W1's network on 2 processes: collectives in a training step", 0, 1, "a step", 1),
    "GROWTH": Workload("W1list for 50,000 steps", 0, 50_000, most_rounds=3),
    "START": Workload(
        "import (of torch, or of the library after that), and process start to the first step of W1", 0, 1, "s"
    ),
    "START2": Workload("process start to the first step of W1 on 2 processes; lean is under torchrun", 0, 1, "s", 3),
    "REPORT": Workload("the report of a run with 50,000 rows of 8 values", 0, 50_000, "s", 3),
}


ON_DEVICE = ("W1", "W1list", "W2", "W3", "W3large", "W3compiled", "W3largecompiled", "W4")
"""The workloads that can be run on a GPU."""


def _find_device() -> torch.device:
    name = os.environ.get("BENCHMARK_DEVICE", "cpu")
    if name == "standin":  # what the tests use where there is no GPU
        from tests.gpu import stand_in

        stand_in.install()
    return torch.device(name)


DEVICE = _find_device()
"""Where the contestants compute: on the CPU, or on a GPU."""


def on_device(loader: Iterable[Any]) -> Iterable[Any]:
    """The batches of ``loader``, brought to the device as a hand-written loop does that."""
    if DEVICE.type == "cpu":
        return loader
    return (tuple(tensor.to(DEVICE, non_blocking=True) for tensor in batch) for batch in loader)


def wait() -> None:
    """Return when the device has done all that it was given."""
    if DEVICE.type != "cpu":
        torch.get_device_module(DEVICE).synchronize()


SETTLED = 5
"""So many of the first starts are left out."""


class Starts(list[float]):
    """When each second step started, for ``steady``. A device is waited for twice, so that the time in between is its
    own too: when the first few are over, and at the last of ``nb`` batches."""

    def __init__(self, nb: int) -> None:
        super().__init__()
        self.waits = () if DEVICE.type == "cpu" else (min(SETTLED, nb // 2 - 1), nb // 2)

    def mark(self) -> None:
        """One starts now."""
        if len(self) in self.waits:
            wait()
        self.append(time.perf_counter())


def steady(starts: Starts) -> dict[str, float]:
    """Of W3, from when each second step started: the microseconds of a step, those of the first few left out."""
    settled = starts[min(SETTLED, len(starts) - 2) :]
    if starts.waits:  # what lies between is only when the device was given something
        return {"value": (settled[-1] - settled[0]) * 1e6 / (len(settled) - 1) / 2}
    return {"value": statistics.median(b - a for a, b in pairwise(settled)) * 1e6 / 2}


def stall(starts: list[float]) -> dict[str, float]:
    """Of CK, from when each step started: the milliseconds by which a step that follows a save starts later than
    others do. Saves were due after every tenth step."""
    waits = [later - earlier for earlier, later in pairwise(starts)]
    usual = statistics.median(wait for n, wait in enumerate(waits, 1) if n % 10)
    return {"value": (statistics.median(waits[9::10]) - usual) * 1000}


def import_optimizers() -> None:
    """What torch imports with the first optimizer takes seconds, which aren't those of a fit."""
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)


torch.set_num_threads(int(os.environ.get("BENCHMARK_THREADS", "1")))


def w1_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 1))


def w1_data(nb: int) -> TensorDataset:
    draws = torch.Generator().manual_seed(1)
    return TensorDataset(torch.randn(32 * nb, 32, generator=draws), torch.randn(32 * nb, 1, generator=draws))


def w1_loader(nb: int, shuffle: bool = True) -> DataLoader[Any]:
    return DataLoader(w1_data(nb), batch_size=32, shuffle=shuffle)


def w1_batches(nb: int) -> list[tuple[Tensor, Tensor]]:
    x, y = w1_data(nb).tensors
    return list(zip(x.split(32), y.split(32), strict=True))


def w2_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(784, 1000), nn.BatchNorm1d(1000), nn.ReLU(), nn.Dropout(0.2), nn.Linear(1000, 10))


W2_EPOCHS = 3
W2_VALIDATION = 20


def w2_data(nb: int) -> TensorDataset:
    draws = torch.Generator().manual_seed(1)
    return TensorDataset(torch.randn(256 * nb, 784, generator=draws), torch.randint(10, (256 * nb,), generator=draws))


def w2_loader(nb: int, shuffle: bool = True) -> DataLoader[Any]:
    return DataLoader(w2_data(nb), batch_size=256, shuffle=shuffle)


DDPS_EPOCHS = 4


def ddps_network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    return nn.Sequential(*layers)


def ddps_data(nb: int) -> TensorDataset:
    """What two processes train on in an epoch: ``nb`` batches of 32 for each."""
    draws = torch.Generator().manual_seed(1)
    return TensorDataset(torch.randn(64 * nb, 784, generator=draws), torch.randint(10, (64 * nb,), generator=draws))


EPOCHS_BATCHES, EPOCHS_VALIDATION = 10, 4


VOCABULARY, BLOCK = 65, 64


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = (part.view(b, t, self.heads, -1).transpose(1, 2) for part in self.qkv(self.norm(x)).split(c, 2))
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, c))
        return x + self.mlp(self.norm2(x))


class CharGPT(nn.Module):
    def __init__(self, layers: int = 4, width: int = 128, heads: int = 4) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(VOCABULARY, width), nn.Embedding(BLOCK, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, VOCABULARY)

    def forward(self, x: Tensor) -> Any:
        hidden = self.token(x) + self.place(torch.arange(x.shape[1], device=x.device))
        return self.head(self.norm(self.blocks(hidden)))


def w3_network(large: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return CharGPT(layers=6, width=256) if large else CharGPT()


def w3_loader(nb: int) -> DataLoader[Any]:
    text = torch.randint(VOCABULARY, (16 * nb, BLOCK + 1), generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(text[:, :-1].contiguous(), text[:, 1:].contiguous()), batch_size=16, shuffle=True)


def w3_loss(logits: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten())


def ck_network(width: int = 1024) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(width, width) for _ in range(24)))


def ck_batches(nb: int, width: int = 1024) -> list[Tensor]:
    return [torch.ones(1, width)] * nb
