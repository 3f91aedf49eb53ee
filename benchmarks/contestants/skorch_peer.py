"""skorch: a regressor without callbacks."""

from typing import Any

import torch
from skorch import NeuralNetRegressor
from torch.utils.data import DataLoader

from benchmarks import workloads as w


def regressor(loader: Any = DataLoader) -> Any:
    net = NeuralNetRegressor(
        w.w1_network(),
        optimizer=torch.optim.SGD,
        lr=0.01,
        batch_size=32,
        max_epochs=1,
        train_split=None,
        iterator_train=loader,
        iterator_train__shuffle=True,
        callbacks="disable",
        verbose=0,
    )
    return net.initialize()


def W1(nb: int) -> None:
    regressor().fit(w.w1_data(nb), y=None)


def W1list(nb: int) -> None:
    batches = w.w1_batches(nb)
    regressor(lambda *_, **__: batches).fit(w.w1_data(nb), y=None)


def W4(nb: int) -> None:
    net = regressor()
    net.module_.eval()
    losses = [net.validation_step(batch)["loss"] for batch in w.w1_loader(nb, shuffle=False)]
    torch.stack(losses).mean().item()
