"""``loss_count`` means one thing in every mode: the loops here are written by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from pytorch_lightning.errors import MisconfigurationException
from tests.equality.models import Classifier, assert_same, fit, windows
from tests.recorder import quiet_trainer


class Counted(Classifier):
    """Batch n returns ``counts[n % len(counts)]``; the loss of one that counts 0 is NaN, as a mean over nothing is."""

    counts: tuple[float, ...] = (1,)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        count = self.counts[batch_nb % len(self.counts)]
        loss = self.loss(data_batch)
        return {"loss": loss if count else loss * float("nan"), "loss_count": count}


def counted(*counts: float) -> Counted:
    model = Counted(lambda parameters: SGD(parameters, 0.1, weight_decay=0.5))
    model.counts = counts
    return model


@pytest.mark.parametrize("counts", [(1, 5000, 5000), (5000, 5000, 1), (8192,), (0.25, 3, 1e5)], ids=str)
def test_as_many_steps_in_16_bit_as_by_hand(tmp_path: Path, counts: Any) -> None:
    by_hand, nb_steps = counted(*counts), 0
    optimizer, scaler = by_hand.configure_optimizers(), torch.amp.GradScaler("cpu")
    for _ in range(6):
        for window in windows(enumerate(by_hand.tng_dataloader), 3):
            total = sum(counts[n % len(counts)] for n, _ in window)
            optimizer.zero_grad()
            for n, batch in window:
                with torch.autocast("cpu", torch.float16):
                    loss = by_hand.loss(batch)
                scaler.scale(loss * (counts[n % len(counts)] / total)).backward()  # type: ignore[no-untyped-call]
            before = scaler.get_scale()
            scaler.step(optimizer)
            scaler.update()
            nb_steps += scaler.get_scale() >= before
    trainer = quiet_trainer(tmp_path, precision="16", accumulate_grad_batches=3, max_nb_epochs=6)
    model = counted(*counts)
    trainer.fit(model)
    assert trainer.progress.nb_optimizer_steps == nb_steps
    for mine, theirs in zip(by_hand.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-3)


@pytest.mark.parametrize("options", [{}, {"virtual_ranks": 2}, {"accumulate_grad_batches": 2}], ids=str)
def test_large_counts_in_16_true(tmp_path: Path, options: Any) -> None:
    large = fit(tmp_path, counted(8192), nb_epochs=1, precision="16-true", **options)
    small = fit(tmp_path, counted(1), nb_epochs=1, precision="16-true", **options)
    for mine, theirs in zip(large.parameters(), small.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-3)


EACH_MODE: list[dict[str, Any]] = [{}, {"accumulate_grad_batches": 2}, {"virtual_ranks": 2}]


@pytest.mark.parametrize("options", EACH_MODE, ids=str)
@pytest.mark.parametrize("precision", ["32", "16"])
def test_windows_that_count_nothing_make_no_step(tmp_path: Path, options: Any, precision: str) -> None:
    trainer = quiet_trainer(tmp_path, precision=precision, **options)
    model = counted(0)
    assert trainer.fit(model) == 1
    assert trainer.progress.nb_optimizer_steps == 0
    assert_same(counted(0), model)


def test_lbfgs_makes_no_step_of_nothing(tmp_path: Path) -> None:
    for options in EACH_MODE:
        model = Counted(lambda parameters: torch.optim.LBFGS(parameters, 0.1))
        model.counts = (0,)
        trainer = quiet_trainer(tmp_path, **options)
        assert trainer.fit(model) == 1
        assert trainer.progress.nb_optimizer_steps == 0
        assert_same(Counted(), model)


@pytest.mark.parametrize("options", EACH_MODE, ids=str)
def test_a_batch_that_counts_0_contributes_nothing(tmp_path: Path, options: Any) -> None:
    counts = (2, 0, 1, 0, 4)
    by_hand = counted(*counts).double()
    optimizer = by_hand.configure_optimizers()
    for _ in range(2):
        for window in windows(enumerate(by_hand.tng_dataloader), 2 if options else 1):
            present = [(counts[n], (x.double(), y)) for n, (x, y) in window if counts[n]]
            if present:
                optimizer.zero_grad()
                for count, batch in present:
                    (by_hand.loss(batch) * (count / sum(c for c, _ in present))).backward()
                optimizer.step()
    trainer = quiet_trainer(tmp_path, max_nb_epochs=2, precision="64", **options)
    model = counted(*counts)
    if options.get("virtual_ranks"):  # there batch_nb counts rounds
        numbers = iter([0, 1, 2, 3, 4] * 2)
        step = model.training_step
        model.training_step = lambda data_batch, batch_nb: step(data_batch, next(numbers))  # type: ignore[method-assign]
    trainer.fit(model)
    assert all(loss == loss for loss in trainer._run.metrics.read_losses())  # type: ignore[union-attr]
    for mine, theirs in zip(by_hand.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_a_resumed_run_in_16_bit_has_the_references_of_the_run(tmp_path: Path) -> None:
    options: Any = {"precision": "16", "virtual_ranks": 2}
    whole = fit(tmp_path, counted(5000, 3, 900), nb_epochs=8, **options)
    trainer = quiet_trainer(tmp_path, **options, max_nb_epochs=8, max_nb_steps=5, seed=11)
    trainer.fit(counted(5000, 3, 900))
    trainer.save_checkpoint(tmp_path / "cut.ckpt")
    assert torch.load(tmp_path / "cut.ckpt", weights_only=True)["parts"]["gradients"]["references"] > [1000]
    assert_same(whole, fit(tmp_path, counted(5000, 3, 900), nb_epochs=8, resume=tmp_path / "cut.ckpt", **options))


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_a_schedule_that_watches_the_loss_waits_for_one(tmp_path: Path, interval: str) -> None:
    class Watched(Counted):
        def configure_optimizers(self) -> Any:
            optimizer = SGD(self.parameters(), 0.1)
            self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
            return [optimizer], [{"scheduler": self.plateau, "interval": interval, "monitor": "tng_loss"}]

    for options in EACH_MODE:
        model = Watched()
        model.counts = (0, 0, 3, 1, 1)
        assert quiet_trainer(tmp_path, add_log_row_interval=1, **options).fit(model) == 1
        assert 0 < model.plateau.best < 5


# ---------------------------------------------------------------------------------------------- shared parameters
@pytest.mark.parametrize("precision", ["32", "16"])
@pytest.mark.parametrize("size", [1, 2])
def test_one_loss_for_optimizers_with_parameters_in_common(tmp_path: Path, precision: str, size: int) -> None:
    class Common(Classifier):
        def configure_optimizers(self) -> Any:
            return [SGD(self.parameters(), 0.05), SGD(self.layers[4].parameters(), 0.1)]

    by_hand = Common()
    optimizers = by_hand.configure_optimizers()
    for _ in range(3):
        for window in windows(by_hand.tng_dataloader, size):
            by_hand.zero_grad()
            for batch in window:
                with torch.autocast("cpu", torch.float16, enabled=precision == "16"):
                    loss = by_hand.loss(batch)
                scale = 65536.0 if precision == "16" else 1.0
                (loss / len(window) * scale).backward()
            for parameter in by_hand.parameters():
                assert parameter.grad is not None
                parameter.grad.div_(scale)
            for optimizer in optimizers:
                optimizer.step()
    options: Any = {"precision": precision, "accumulate_grad_batches": size, "silence": ("shared-parameter",)}
    assert_same(by_hand, fit(tmp_path, Common(), **options))


class Heads(Classifier):
    """A trunk and two heads, one optimizer for the trunk and each head."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self.other = nn.Linear(8, 3)

    def loss_of(self, batch: Any, i: int) -> Any:
        x, y = batch
        trunk = self.layers[:4](x)
        return nn.functional.cross_entropy((self.layers[4], self.other)[i](trunk), y)

    def training_step(self, data_batch: Any, batch_nb: int, optimizer_i: int) -> Any:  # type: ignore[override]
        return self.loss_of(data_batch, optimizer_i)

    def configure_optimizers(self) -> Any:
        trunk = list(self.layers[:4].parameters())
        heads = self.layers[4], self.other
        return [SGD([*trunk, *head.parameters()], rate) for head, rate in zip(heads, (0.1, 0.05), strict=True)]


@pytest.mark.parametrize("precision", ["32", "64"])
@pytest.mark.parametrize("size", [2, 5])
def test_a_step_per_optimizer_over_a_common_trunk(tmp_path: Path, precision: str, size: int) -> None:
    by_hand = Heads().to(torch.float64 if precision == "64" else torch.float32)
    optimizers = by_hand.configure_optimizers()
    for _ in range(2):
        for window in windows(by_hand.tng_dataloader, size):
            each = []
            for i, optimizer in enumerate(optimizers):
                by_hand.zero_grad()
                for x, y in window:
                    (by_hand.loss_of((x.to(by_hand.dtype), y), i) / len(window)).backward()
                each.append([p.grad for p in optimizer.param_groups[0]["params"]])
            for optimizer, gradients in zip(optimizers, each, strict=True):
                for parameter, gradient in zip(optimizer.param_groups[0]["params"], gradients, strict=True):
                    parameter.grad = gradient
                optimizer.step()
    options: Any = {"precision": precision, "accumulate_grad_batches": size, "silence": ("shared-parameter",)}
    assert_same(by_hand, fit(tmp_path, Heads(), nb_epochs=2, **options))


def test_a_common_trunk_is_refused_where_ranks_accumulate(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match="parameters in common"):
        quiet_trainer(tmp_path, accumulate_grad_batches=2, virtual_ranks=2).fit(Heads())


# ---------------------------------------------------------------------------------------------- clipping
@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, float("inf")])
def test_clipping_by_torchs_norms(tmp_path: Path, norm_type: float) -> None:
    by_hand = Classifier()
    optimizer = by_hand.configure_optimizers()
    for _ in range(3):
        for batch in by_hand.tng_dataloader:
            optimizer.zero_grad()
            by_hand.loss(batch).backward()
            nn.utils.clip_grad_norm_(by_hand.parameters(), 0.05, norm_type)
            optimizer.step()
    assert_same(by_hand, fit(tmp_path, Classifier(), gradient_clip=0.05, gradient_clip_norm_type=norm_type))
