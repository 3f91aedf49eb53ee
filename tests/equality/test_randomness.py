"""Shuffled batches and dropout by hand: ``order_scope`` and ``step_scope`` draw what a Trainer draws."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import LBFGS, SGD
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

from pytorch_lightning.seeding import order_scope, step_scope
from tests.equality.models import BATCH_SIZE, SEED, Classifier, assert_same, fit, samples, windows


@pytest.mark.parametrize("size", [1, 2])
def test_shuffling_and_dropout(tmp_path: Path, size: int) -> None:
    by_hand = Classifier(norm=True, dropout=0.3, shuffle=True)
    optimizer, loader = SGD(by_hand.parameters(), 0.1), by_hand.tng_dataloader
    global_step = 0
    for epoch in range(3):
        with order_scope(SEED, epoch):
            batches = list(loader)
        for window in windows(batches, size):
            for batch in window:
                with step_scope(SEED, global_step):
                    loss = by_hand.loss(batch)
                (loss / len(window)).backward()
                global_step += 1
            optimizer.step()
            optimizer.zero_grad()

    model = Classifier(norm=True, dropout=0.3, shuffle=True)
    assert_same(by_hand, fit(tmp_path, model, accumulate_grad_batches=size))


def test_a_scope_can_be_held_open_over_an_epoch_of_batches(tmp_path: Path) -> None:
    """Batches needn't be put into a list: a step's own scope is nested in the one of the order."""
    by_hand = Classifier(dropout=0.3, shuffle=True)
    optimizer, global_step = SGD(by_hand.parameters(), 0.1), 0
    for epoch in range(2):
        with order_scope(SEED, epoch):
            for batch in by_hand.tng_dataloader:
                with step_scope(SEED, global_step):
                    by_hand.loss(batch).backward()
                optimizer.step()
                optimizer.zero_grad()
                global_step += 1

    assert_same(by_hand, fit(tmp_path, Classifier(dropout=0.3, shuffle=True), nb_epochs=2))


def loader_with_generator(generator: torch.Generator) -> Any:
    return DataLoader(TensorDataset(*samples()), batch_size=BATCH_SIZE, shuffle=True, generator=generator)


def loader_with_weights(generator: torch.Generator) -> Any:
    sampler = WeightedRandomSampler([1.0, 2.0] * 9, 18, generator=generator)
    return DataLoader(TensorDataset(*samples()), batch_size=BATCH_SIZE, sampler=sampler)


@pytest.mark.parametrize("build_loader", [loader_with_generator, loader_with_weights])
def test_a_generator_of_ones_own(tmp_path: Path, build_loader: Any) -> None:
    class Own(Classifier):
        @property
        def tng_dataloader(self) -> Any:
            return build_loader(torch.Generator().manual_seed(5))

    by_hand = Own()
    generator = torch.Generator().manual_seed(5)
    optimizer, loader = SGD(by_hand.parameters(), 0.1), build_loader(generator)
    orders = []
    for epoch in range(3):
        with order_scope(SEED, epoch, generator):
            batches = list(loader)
        orders.append(torch.cat([y for _, y in batches]).tolist())
        for batch in batches:
            by_hand.loss(batch).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert orders[0] != orders[1]

    assert_same(by_hand, fit(tmp_path, Own()))


def test_each_evaluation_of_lbfgs_draws_the_same_numbers(tmp_path: Path) -> None:
    def optimize(parameters: Any) -> Any:
        return LBFGS(parameters, 0.1, max_iter=3)

    by_hand = Classifier(optimize, dropout=0.3)
    optimizer = optimize(by_hand.parameters())
    for global_step, batch in enumerate(by_hand.tng_dataloader):

        def evaluate(batch: Any = batch, global_step: int = global_step) -> torch.Tensor:
            optimizer.zero_grad()
            with step_scope(SEED, global_step):
                loss = by_hand.loss(batch)
            loss.backward()
            return loss

        optimizer.step(evaluate)

    assert_same(by_hand, fit(tmp_path, Classifier(optimize, dropout=0.3), nb_epochs=1))
