"""A Trainer gives the weights of the loop that one would write by hand, bit for bit: steps and windows."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import LBFGS, SGD, Adam

from tests.equality.models import BATCH_SIZE, Classifier, Gan, Validated, assert_same, fit, samples, windows

OPTIMIZERS = [
    lambda parameters: SGD(parameters, 0.1),
    lambda parameters: SGD(parameters, 0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    lambda parameters: Adam(parameters, 0.02),
]
each_optimizer = pytest.mark.parametrize("optimize", OPTIMIZERS, ids=["sgd", "momentum", "adam"])


@each_optimizer
@pytest.mark.parametrize("norm", [False, True], ids=["plain", "batchnorm"])
def test_one_step_a_batch(tmp_path: Path, optimize: Any, norm: bool) -> None:
    by_hand = Classifier(optimize, norm=norm)
    optimizer = optimize(by_hand.parameters())
    for _ in range(3):
        for batch in by_hand.tng_dataloader:
            by_hand.loss(batch).backward()
            optimizer.step()
            optimizer.zero_grad()

    assert_same(by_hand, fit(tmp_path, Classifier(optimize, norm=norm)))


@pytest.mark.parametrize("interval", [1.0, 0.4, 2])
def test_validations_leave_no_trace_in_training(tmp_path: Path, interval: float) -> None:
    plain = fit(tmp_path, Classifier(norm=True, dropout=0.3, shuffle=True))
    validated = Validated(norm=True, dropout=0.3, shuffle=True)
    assert_same(plain, fit(tmp_path, validated, val_check_interval=interval, nb_sanity_val_steps=2))


# ---------------------------------------------------------------------------------------------- windows
@each_optimizer
@pytest.mark.parametrize("size", [2, 3, 5, 9])
def test_accumulated_batches_with_a_short_last_window(tmp_path: Path, optimize: Any, size: int) -> None:
    by_hand = Classifier(optimize, norm=True)
    optimizer = optimize(by_hand.parameters())
    for _ in range(3):
        for window in windows(by_hand.tng_dataloader, size):
            for batch in window:
                (by_hand.loss(batch) / len(window)).backward()
            optimizer.step()
            optimizer.zero_grad()

    assert_same(by_hand, fit(tmp_path, Classifier(optimize, norm=True), accumulate_grad_batches=size))


def test_windows_that_change_with_the_epoch(tmp_path: Path) -> None:
    by_hand = Classifier()
    optimizer = SGD(by_hand.parameters(), 0.1)
    for size in (1, 2, 2, 4):
        for window in windows(by_hand.tng_dataloader, size):
            for batch in window:
                (by_hand.loss(batch) / len(window)).backward()
            optimizer.step()
            optimizer.zero_grad()

    assert_same(by_hand, fit(tmp_path, Classifier(), nb_epochs=4, accumulate_grad_batches={2: 2, 4: 4}))


class Counting(Classifier):
    """A mean over uneven batches, which says over how many items."""

    sizes = (1, 5, 2, 7, 3)

    @property
    def tng_dataloader(self) -> Any:
        x, y = samples(sum(self.sizes))
        return list(zip(x.double().split(self.sizes), y.split(self.sizes), strict=True))

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return {"loss": self.loss(data_batch), "loss_count": len(data_batch[1])}


@each_optimizer
@pytest.mark.parametrize("size", [2, 3, 5])
def test_counted_windows_are_one_batch_of_all_their_items(tmp_path: Path, optimize: Any, size: int) -> None:
    by_hand = Counting(optimize).double()
    optimizer = optimize(by_hand.parameters())
    for _ in range(3):
        for window in windows(by_hand.tng_dataloader, size):
            whole = tuple(torch.cat(parts) for parts in zip(*window, strict=True))
            by_hand.loss(whole).backward()
            optimizer.step()
            optimizer.zero_grad()

    trained = fit(tmp_path, Counting(optimize), precision="64", accumulate_grad_batches=size)
    for mine, theirs in zip(by_hand.parameters(), trained.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_windows_without_counts_weigh_each_batch_the_same(tmp_path: Path) -> None:
    class Uncounted(Counting):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            return self.loss(data_batch)

    by_hand = Uncounted().double()
    optimizer = SGD(by_hand.parameters(), 0.1)
    for window in windows(by_hand.tng_dataloader, 3):
        for batch in window:
            (by_hand.loss(batch) / len(window)).backward()
        optimizer.step()
        optimizer.zero_grad()

    trained = fit(tmp_path, Uncounted(), nb_epochs=1, precision="64", accumulate_grad_batches=3)
    assert_same(by_hand, trained)


# ---------------------------------------------------------------------------------------------- clipping
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_clipped_gradients(tmp_path: Path, algorithm: str, size: int) -> None:
    clip: Any = {"norm": nn.utils.clip_grad_norm_, "value": nn.utils.clip_grad_value_}[algorithm]
    limit = {"norm": 0.2, "value": 0.02}[algorithm]

    by_hand = Classifier()
    optimizer = SGD(by_hand.parameters(), 0.1)
    for _ in range(3):
        for window in windows(by_hand.tng_dataloader, size):
            for batch in window:
                (by_hand.loss(batch) / len(window)).backward()
            clip(by_hand.parameters(), limit)
            optimizer.step()
            optimizer.zero_grad()

    options = {"gradient_clip": limit, "gradient_clip_algorithm": algorithm, "accumulate_grad_batches": size}
    assert_same(by_hand, fit(tmp_path, Classifier(), **options))


# ---------------------------------------------------------------------------------------------- two optimizers
def two_optimizers(model: Any) -> list[Any]:
    return [SGD(model.layers[0].parameters(), 0.1, momentum=0.9), Adam(model.layers[4].parameters(), 0.02)]


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("clip", [0.0, 0.2])
def test_one_loss_for_two_optimizers(tmp_path: Path, size: int, clip: float) -> None:
    class Two(Classifier):
        def configure_optimizers(self) -> Any:
            return two_optimizers(self)

    by_hand = Two()
    optimizers = two_optimizers(by_hand)
    for _ in range(3):
        for window in windows(by_hand.tng_dataloader, size):
            for batch in window:
                (by_hand.loss(batch) / len(window)).backward()
            if clip:  # one norm over all
                nn.utils.clip_grad_norm_(by_hand.parameters(), clip)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()

    assert_same(by_hand, fit(tmp_path, Two(), accumulate_grad_batches=size, gradient_clip=clip))


@pytest.mark.parametrize("clip", [0.0, 0.2])
def test_a_gan_steps_one_network_then_the_other(tmp_path: Path, clip: float) -> None:
    by_hand = Gan()
    networks, optimizers = (by_hand.generator, by_hand.discriminator), by_hand.configure_optimizers()
    for _ in range(3):
        for batch in by_hand.tng_dataloader:
            for i in (0, 1):
                by_hand.loss(batch, i).backward()
                if clip:
                    nn.utils.clip_grad_norm_(networks[i].parameters(), clip)
                optimizers[i].step()
                by_hand.zero_grad()  # also what the loss left on the other network

    assert_same(by_hand, fit(tmp_path, Gan(), gradient_clip=clip))


@pytest.mark.parametrize("size", [2, 3])
def test_an_accumulated_gan_steps_both_at_the_windows_end(tmp_path: Path, size: int) -> None:
    by_hand = Gan()
    networks, optimizers = (by_hand.generator, by_hand.discriminator), by_hand.configure_optimizers()
    for _ in range(3):
        for window in windows(by_hand.tng_dataloader, size):
            for batch in window:
                for i in (0, 1):
                    networks[1 - i].requires_grad_(False)
                    (by_hand.loss(batch, i) / len(window)).backward()
                    networks[1 - i].requires_grad_(True)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()

    assert_same(by_hand, fit(tmp_path, Gan(), accumulate_grad_batches=size))


# ---------------------------------------------------------------------------------------------- LBFGS
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_lbfgs_evaluates_the_whole_window(tmp_path: Path, size: int, search: str | None) -> None:
    def optimize(parameters: Any) -> Any:
        return LBFGS(parameters, 0.1, max_iter=3, line_search_fn=search)

    by_hand = Classifier(optimize)
    optimizer = optimize(by_hand.parameters())
    for _ in range(2):
        for window in windows(by_hand.tng_dataloader, size):

            def evaluate(window: Any = window) -> Tensor:
                optimizer.zero_grad()
                losses = [by_hand.loss(batch) / len(window) for batch in window]
                for loss in losses:
                    loss.backward()
                return sum(loss.detach() for loss in losses)  # type: ignore[return-value]

            optimizer.step(evaluate)

    assert_same(by_hand, fit(tmp_path, Classifier(optimize), nb_epochs=2, accumulate_grad_batches=size))


def test_the_batches_are_uneven() -> None:
    assert [len(y) for _, y in Classifier().tng_dataloader] == [BATCH_SIZE] * 4 + [2]
