"""The shortest loops without a DataLoader: tensors in memory are indexed directly, as few people write it."""

import torch
from torch import nn

from benchmarks import workloads as w
from benchmarks.contestants import lean_processes


def W1(nb: int) -> None:
    net, criterion = w.w1_network().to(w.DEVICE), nn.MSELoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    x, y = (tensor.to(w.DEVICE) for tensor in w.w1_data(nb).tensors)
    for indices in torch.randperm(len(x), device=w.DEVICE).split(32):
        optimizer.zero_grad()
        criterion(net(x[indices]), y[indices]).backward()
        optimizer.step()


def W1list(nb: int) -> None:
    net, criterion = w.w1_network().to(w.DEVICE), nn.MSELoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    x, y = (tensor.to(w.DEVICE) for tensor in w.w1_data(nb).tensors)
    for start in range(0, len(x), 32):
        optimizer.zero_grad()
        criterion(net(x[start : start + 32]), y[start : start + 32]).backward()
        optimizer.step()


def W4(nb: int) -> None:
    net, criterion, losses = w.w1_network().to(w.DEVICE).eval(), nn.MSELoss(), []
    x, y = (tensor.to(w.DEVICE) for tensor in w.w1_data(nb).tensors)
    with torch.no_grad():
        for inputs, targets in zip(x.split(32), y.split(32), strict=True):
            losses.append(criterion(net(inputs), targets))
    torch.stack(losses).mean().item()


def DDPS(nb: int) -> dict[str, float]:
    return lean_processes.DDP2(nb, "DDPSdirect")
