"""A Trainer gives the weights of the loop that one would write by hand, bit for bit: in every precision."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import LBFGS, SGD, Adam

from tests.equality.models import Classifier, Gan, assert_same, fit, windows

OPTIMIZERS = {"sgd": lambda p: SGD(p, 0.1, momentum=0.9), "adam": lambda p: Adam(p, 0.02)}
each_optimizer = pytest.mark.parametrize("optimize", OPTIMIZERS.values(), ids=OPTIMIZERS)


@each_optimizer
@pytest.mark.parametrize("size", [1, 2])
def test_bf16_is_autocast_alone(tmp_path: Path, optimize: Any, size: int) -> None:
    by_hand = Classifier(optimize, norm=True)
    optimizer = optimize(by_hand.parameters())
    for _ in range(3):
        for window in windows(by_hand.tng_dataloader, size):
            for batch in window:
                with torch.autocast("cpu", torch.bfloat16):
                    loss = by_hand.loss(batch)
                (loss / len(window)).backward()
            optimizer.step()
            optimizer.zero_grad()

    trained = fit(tmp_path, Classifier(optimize, norm=True), precision="bf16", accumulate_grad_batches=size)
    assert_same(by_hand, trained)


@each_optimizer
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("clip", [0.0, 0.2])
def test_16_is_autocast_with_a_gradient_scaler(tmp_path: Path, optimize: Any, size: int, clip: float) -> None:
    by_hand = Classifier(optimize, norm=True)
    optimizer, scaler = optimize(by_hand.parameters()), torch.amp.GradScaler("cpu")
    for _ in range(4):
        for window in windows(by_hand.tng_dataloader, size):
            for batch in window:
                with torch.autocast("cpu", torch.float16):
                    loss = by_hand.loss(batch)
                scaler.scale(loss / len(window)).backward()  # type: ignore[no-untyped-call]
            if clip:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(by_hand.parameters(), clip)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()

    options: Any = {"precision": "16", "accumulate_grad_batches": size, "gradient_clip": clip, "nb_epochs": 4}
    assert_same(by_hand, fit(tmp_path, Classifier(optimize, norm=True), **options))
    assert_same(by_hand, fit(tmp_path, Classifier(optimize, norm=True), **{**options, "precision": None}, use_amp=True))


def test_a_gan_in_16_shares_one_scaler(tmp_path: Path) -> None:
    by_hand = Gan()
    optimizers, scaler = by_hand.configure_optimizers(), torch.amp.GradScaler("cpu")
    for _ in range(3):
        for batch in by_hand.tng_dataloader:
            for i, optimizer in enumerate(optimizers):
                with torch.autocast("cpu", torch.float16):
                    loss = by_hand.loss(batch, i)
                scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                scaler.step(optimizer)
                by_hand.zero_grad()
            scaler.update()  # once a batch, after both

    assert_same(by_hand, fit(tmp_path, Gan(), precision="16"))


@each_optimizer
@pytest.mark.parametrize(("precision", "dtype"), [("64", torch.float64), ("bf16-true", torch.bfloat16)])
def test_one_dtype_for_weights_and_batches(tmp_path: Path, optimize: Any, precision: str, dtype: Any) -> None:
    by_hand = Classifier(optimize, norm=True).to(dtype)
    optimizer = optimize(by_hand.parameters())
    for _ in range(3):
        for x, y in by_hand.tng_dataloader:
            by_hand.loss((x.to(dtype), y)).backward()
            optimizer.step()
            optimizer.zero_grad()

    assert_same(by_hand, fit(tmp_path, Classifier(optimize, norm=True), precision=precision))


def test_16_true_with_plain_sgd(tmp_path: Path) -> None:
    by_hand = Classifier().half()
    optimizer = SGD(by_hand.parameters(), 0.1)
    for _ in range(3):
        for x, y in by_hand.tng_dataloader:
            by_hand.loss((x.half(), y)).backward()
            optimizer.step()
            optimizer.zero_grad()

    assert_same(by_hand, fit(tmp_path, Classifier(), precision="16-true"))


@pytest.mark.parametrize("precision", ["64", "bf16"])
def test_lbfgs_in_other_precisions(tmp_path: Path, precision: str) -> None:
    def optimize(parameters: Any) -> Any:
        return LBFGS(parameters, 0.1, max_iter=3)

    by_hand = Classifier(optimize)
    if precision == "64":
        by_hand.double()
    optimizer = optimize(by_hand.parameters())
    for x, y in by_hand.tng_dataloader:

        def evaluate(x: Any = x, y: Any = y) -> torch.Tensor:
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss = by_hand.loss((x.to(by_hand.dtype), y))
            loss.backward()
            return loss

        optimizer.step(evaluate)

    assert_same(by_hand, fit(tmp_path, Classifier(optimize), nb_epochs=1, precision=precision))
