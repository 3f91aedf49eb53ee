"""The shortest correct torch loops: what every ratio is to."""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import workloads as w


def train(loader: Any) -> None:
    net, criterion = w.w1_network().to(w.DEVICE), nn.MSELoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    for x, y in w.on_device(loader):
        optimizer.zero_grad()
        criterion(net(x), y).backward()
        optimizer.step()


def W1(nb: int) -> None:
    train(w.w1_loader(nb))


def W1list(nb: int) -> None:
    train(w.w1_batches(nb))


def W2(nb: int) -> None:
    net, loader, validation = (
        w.w2_network().to(w.DEVICE),
        w.w2_loader(max(1, nb // w.W2_EPOCHS)),
        w.w2_loader(w.W2_VALIDATION, False),
    )
    optimizer = torch.optim.Adam(net.parameters())
    with tempfile.TemporaryDirectory() as folder:
        for epoch in range(w.W2_EPOCHS):
            net.train()
            for x, y in w.on_device(loader):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                optimizer.step()
            net.eval()
            with torch.no_grad():
                losses = [nn.functional.cross_entropy(net(x), y) for x, y in w.on_device(validation)]
                torch.stack(losses).mean().item()
            torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict()}, Path(folder, f"{epoch}.pt"))


def W3(nb: int, large: bool = False, compiled: bool = False) -> dict[str, float]:
    net = w.w3_network(large).to(w.DEVICE)

    def training_loss(x: Any, y: Any) -> Any:
        return w.w3_loss(net(x), y)

    step = torch.compile(training_loss, dynamic=False) if compiled else training_loss
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    starts = w.Starts(nb)
    starts.mark()
    for n, (x, y) in enumerate(w.on_device(w.w3_loader(nb)), 1):
        (step(x, y) / 2).backward()
        if n % 2 == 0:
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            starts.mark()
    return w.steady(starts)


def W3large(nb: int) -> dict[str, float]:
    return W3(nb, large=True)


def W3compiled(nb: int) -> dict[str, float]:
    return W3(nb, compiled=True)


def W3largecompiled(nb: int) -> dict[str, float]:
    return W3(nb, large=True, compiled=True)


def W4(nb: int) -> None:
    net, criterion, losses = w.w1_network().to(w.DEVICE).eval(), nn.MSELoss(), []
    with torch.no_grad():
        for x, y in w.on_device(w.w1_loader(nb, shuffle=False)):
            losses.append(criterion(net(x), y))
    torch.stack(losses).mean().item()


def stalled(nb: int) -> dict[str, float]:
    """Milliseconds that the loop stands still for a durable save."""
    net, starts = w.ck_network(), []
    optimizer = torch.optim.Adam(net.parameters())
    with tempfile.TemporaryDirectory() as folder:
        for n, x in enumerate(w.ck_batches(nb)):
            if n and n % 10 == 0:
                path = Path(folder, "kept.pt")
                torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict()}, f"{path}.part")
                with open(f"{path}.part", "rb") as file:
                    os.fsync(file.fileno())
                os.replace(f"{path}.part", path)
            starts.append(time.perf_counter())
            optimizer.zero_grad()
            net(x).pow(2).mean().backward()
            optimizer.step()
    return w.stall(starts)
