"""What people write: a tqdm bar, the loss read in each step, a csv row every 50."""

import csv
import os
import tempfile
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from benchmarks import workloads as w


def train(loader: Any) -> None:
    net, criterion = w.w1_network().to(w.DEVICE), nn.MSELoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    with tempfile.TemporaryDirectory() as folder, open(os.path.join(folder, "log.csv"), "w") as file:
        rows, bar = csv.writer(file), tqdm(w.on_device(loader))
        for n, (x, y) in enumerate(bar):
            optimizer.zero_grad()
            loss = criterion(net(x), y)
            loss.backward()
            optimizer.step()
            bar.set_postfix(loss=loss.item())
            if n % 50 == 0:
                rows.writerow([n, loss.item()])
                file.flush()


def W1(nb: int) -> None:
    train(w.w1_loader(nb))


def W1list(nb: int) -> None:
    train(w.w1_batches(nb))


def W4(nb: int) -> None:
    net, criterion, total = w.w1_network().to(w.DEVICE).eval(), nn.MSELoss(), 0.0
    with torch.no_grad():
        for x, y in w.on_device(w.w1_loader(nb, shuffle=False)):
            total += criterion(net(x), y).item()
