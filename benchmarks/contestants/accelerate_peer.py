"""Accelerate: a hand-written loop with everything prepared."""

from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from benchmarks import workloads as w


def train(loader: Any) -> None:
    accelerator = Accelerator(cpu=True)
    net, criterion = w.w1_network(), nn.MSELoss()
    optimizer: Any = torch.optim.SGD(net.parameters(), lr=0.01)
    if isinstance(loader, list):
        net, optimizer = accelerator.prepare(net, optimizer)
    else:
        net, optimizer, loader = accelerator.prepare(net, optimizer, loader)
    for x, y in loader:
        optimizer.zero_grad()
        accelerator.backward(criterion(net(x), y))
        optimizer.step()


def W1(nb: int) -> None:
    train(w.w1_loader(nb))


def W1list(nb: int) -> None:
    train(w.w1_batches(nb))


def W4(nb: int) -> None:
    accelerator, criterion, losses = Accelerator(cpu=True), nn.MSELoss(), []
    net, loader = accelerator.prepare(w.w1_network(), w.w1_loader(nb, shuffle=False))
    net.eval()
    with torch.no_grad():
        for x, y in loader:
            losses.append(accelerator.gather_for_metrics(criterion(net(x), y)))
    torch.stack(losses).mean().item()
