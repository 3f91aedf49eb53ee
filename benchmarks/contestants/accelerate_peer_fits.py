"""Accelerate over whole fits, several epochs long."""

import time
from typing import Any

from accelerate import Accelerator
from torch import nn

from benchmarks import pictures
from benchmarks import workloads as w


def REAL(nb: int, nb_workers: int = 0, persistent: bool = False) -> dict[str, float]:
    """Milliseconds a step of the whole fit, workers' starts with it."""
    w.import_optimizers()
    start = time.perf_counter()
    accelerator, net = Accelerator(cpu=True), pictures.network()
    optimizer: Any = pictures.optimizer_of(net)
    net, optimizer, loader = accelerator.prepare(net, optimizer, pictures.loader(nb, nb_workers, persistent))
    for _ in range(pictures.EPOCHS):
        for x, y in loader:
            optimizer.zero_grad()
            accelerator.backward(nn.functional.cross_entropy(net(x), y))
            optimizer.step()
    return {"value": (time.perf_counter() - start) * 1000 / nb / pictures.EPOCHS}


def REALworkers(nb: int) -> dict[str, float]:
    return REAL(nb, 2)


def REALpersistent(nb: int) -> dict[str, float]:
    return REAL(nb, 2, persistent=True)
