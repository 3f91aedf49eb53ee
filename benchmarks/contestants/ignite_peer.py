"""Ignite: its supervised trainer and evaluator, with nothing attached but the loss."""

from typing import Any

import torch
from ignite.engine import create_supervised_evaluator, create_supervised_trainer
from ignite.metrics import Loss
from torch import nn

from benchmarks import workloads as w


def train(loader: Any) -> None:
    net = w.w1_network()
    trainer = create_supervised_trainer(net, torch.optim.SGD(net.parameters(), lr=0.01), nn.MSELoss())
    trainer.run(loader, max_epochs=1)


def W1(nb: int) -> None:
    train(w.w1_loader(nb))


def W1list(nb: int) -> None:
    train(w.w1_batches(nb))


def W4(nb: int) -> None:
    evaluator = create_supervised_evaluator(w.w1_network(), metrics={"loss": Loss(nn.MSELoss())})
    evaluator.run(w.w1_loader(nb, shuffle=False))
