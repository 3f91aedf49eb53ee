"""Shortest loops over whole fits, several epochs long."""

import math
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import pictures
from benchmarks import workloads as w


def REAL(nb: int, nb_workers: int = 0, persistent: bool = False) -> dict[str, float]:
    """Milliseconds a step of the whole fit, workers' starts with it."""
    w.import_optimizers()
    start = time.perf_counter()
    net, loader = pictures.network(), pictures.loader(nb, nb_workers, persistent)
    optimizer = pictures.optimizer_of(net)
    for _ in range(pictures.EPOCHS):
        for x, y in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
    return {"value": (time.perf_counter() - start) * 1000 / nb / pictures.EPOCHS}


def REALworkers(nb: int) -> dict[str, float]:
    return REAL(nb, 2)


def REALpersistent(nb: int) -> dict[str, float]:
    return REAL(nb, 2, persistent=True)


def W5(nb: int) -> dict[str, float]:
    """Seconds of an epoch with no workers, and with that number of workers which takes least."""
    w.import_optimizers()
    data = pictures.Digits(nb * pictures.DIGITS_BATCH)

    def seconds(nb_workers: int) -> float:
        start, net = time.perf_counter(), pictures.digits_network()
        optimizer = torch.optim.Adam(net.parameters(), 1e-3)
        for x, y in pictures.digits_loader(data, nb_workers):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
        return time.perf_counter() - start

    return {"value": seconds(0), "best": min(map(seconds, pictures.numbers_of_workers()))}


STATE_BYTES = 16_000
"""Of one of the Trainer's checkpoints in EPOCHS at the start of the fit, where 8,700 bytes are weights. What is missing
is filled up, so that both write as much."""


def save_durably(state: dict[str, Any], path: Path) -> None:
    """What the Trainer does for each checkpoint too: write under another name, flush, rename, flush the folder."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    for name, last in ((part, False), (path.parent, True)):
        if last:
            os.replace(part, path)
        handle = os.open(name, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def EPOCHS(nb: int) -> None:
    """Each epoch: 10 batches, a validation, whether to stop, a durable checkpoint under a name of its own. That is as
    many flushes (2 an epoch), files (1) and bytes as the Trainer makes with ModelCheckpoint's defaults."""
    net, criterion = w.w1_network(), nn.MSELoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    loader, validation = w.w1_loader(w.EPOCHS_BATCHES), w.w1_loader(w.EPOCHS_VALIDATION, shuffle=False)
    best, waited, filling = math.inf, 0, torch.zeros(STATE_BYTES - 12_000, dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as folder:
        for epoch in range(nb):
            net.train()
            for x, y in loader:
                optimizer.zero_grad()
                criterion(net(x), y).backward()
                optimizer.step()
            net.eval()
            with torch.no_grad():
                loss = torch.stack([criterion(net(x), y) for x, y in validation]).mean().item()
            state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch, "filling": filling}
            save_durably(state, Path(folder, f"{epoch}.pt"))
            best, waited = (loss, 0) if loss < best else (best, waited + 1)
            if waited > nb:
                break
