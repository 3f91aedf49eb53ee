"""The user's own ``optimizer_step``: a step less often is one step of a larger window."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from pytorch_lightning import LightningModule
from pytorch_lightning.errors import FitError
from tests.recorder import quiet_trainer

EVERY = 4
BATCHES = [torch.tensor([[float(n), 1.0]]) for n in (3, -1, 4, 1, -5, 9, 2, 6)]


class LessOften(LightningModule):
    """Steps at every fourth batch."""

    rate = 0.1

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor([0.5]))
        self.seen: list[Any] = []

    def loss(self, batch: Any) -> Any:
        return ((batch * self.a).sum() - 3).pow(2) + (self.b * batch.sum() - 1).pow(2)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return self.loss(data_batch)

    def optimizer_step(self, epoch_nb: int, batch_nb: int, optimizer: Any, optimizer_i: int) -> None:
        if self.global_step % EVERY == EVERY - 1:
            self.step(optimizer, optimizer_i)

    def step(self, optimizer: Any, optimizer_i: int) -> None:
        optimizer.step()

    def configure_optimizers(self) -> Any:
        self.own = SGD(self.parameters(), self.rate)
        return self.own

    @property
    def tng_dataloader(self) -> Any:
        return BATCHES


def by_hand(
    clip: Callable[[Any], object], chunks: Any = None, weights: Any = None, nb_epochs: int = 2
) -> dict[str, Any]:
    """A loop of plain torch: each chunk of batches is one step on the mean of their losses."""
    model = LessOften()
    optimizer = SGD(model.parameters(), model.rate)
    for _ in range(nb_epochs):
        for chunk in chunks or [range(4), range(4, 8)]:
            optimizer.zero_grad()
            each = [1.0 if weights is None else weights[n] for n in chunk]
            torch.stack([w * model.loss(BATCHES[n]) for n, w in zip(chunk, each, strict=True)]).sum().div(
                sum(each)
            ).backward()
            clip([*model.parameters()])
            optimizer.step()
    return dict(model.named_parameters())


def assert_close(model: Any, expected: dict[str, Any]) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(dict(model.named_parameters())[name], value, rtol=1e-5, atol=1e-6)


class OwnOptimizer(LessOften):
    """Steps the optimizer that it kept for itself."""

    def step(self, optimizer: Any, optimizer_i: int) -> None:
        self.own.step()


@pytest.mark.parametrize("kind", [LessOften, OwnOptimizer])
@pytest.mark.parametrize("clip", [0.0, 0.7])
@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2}, {"virtual_ranks": 2}], ids=str)
def test_a_step_less_often_is_a_step_of_a_larger_window(tmp_path: Path, kind: Any, clip: float, options: Any) -> None:
    class Model(kind):  # type: ignore[misc]
        def optimizer_step(self, epoch_nb: int, batch_nb: int, optimizer: Any, optimizer_i: int) -> None:
            steps_of_four = EVERY // options.get("virtual_ranks", 1)
            if self.global_step % steps_of_four == steps_of_four - 1:
                self.step(optimizer, optimizer_i)

    model = Model()
    trainer = quiet_trainer(tmp_path, max_nb_epochs=2, gradient_clip=clip, **options)
    trainer.fit(model)
    limit = (lambda p: nn.utils.clip_grad_norm_(p, clip)) if clip else (lambda p: None)
    assert_close(model, by_hand(limit))
    assert trainer.progress.nb_optimizer_steps == 4


@pytest.mark.parametrize("options", [{}, {"virtual_ranks": 2}], ids=str)
def test_waiting_gradients_are_weighed_by_the_items_of_each_loss(tmp_path: Path, options: Any) -> None:
    counts = [2, 1, 4, 3, 1, 1, 8, 2]

    class Counted(LessOften):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            n = next(i for i, batch in enumerate(BATCHES) if torch.equal(batch, data_batch))
            return {"loss": self.loss(data_batch), "loss_count": counts[n]}

        def optimizer_step(self, epoch_nb: int, batch_nb: int, optimizer: Any, optimizer_i: int) -> None:
            if batch_nb % 2:
                optimizer.step()

    model = Counted()
    quiet_trainer(tmp_path, max_nb_epochs=2, gradient_clip=1.0, **options).fit(model)
    size = 2 * options.get("virtual_ranks", 1)
    chunks = [range(n, n + size) for n in range(0, 8, size)]
    assert_close(model, by_hand(lambda p: nn.utils.clip_grad_norm_(p, 1.0), chunks, counts))


def test_a_norm_is_that_of_the_mean(tmp_path: Path) -> None:
    norms = []

    class Model(LessOften):
        rate = 0.0

        def on_batch_end(self) -> None:
            norms.append(self.trainer._run.metrics.grad_norms.get("grad_2_norm_total"))

    quiet_trainer(tmp_path, track_grad_norm=2).fit(Model())
    model = LessOften()
    for n in range(4):
        (model.loss(BATCHES[n]) / 4).backward()
    expected = torch.stack([p.grad.norm() for p in model.parameters()]).norm().item()  # type: ignore[union-attr]
    assert norms[:3] == [None] * 3
    assert norms[3] == pytest.approx(expected, rel=1e-5)


def test_gradients_that_the_user_clears_do_not_wait(tmp_path: Path) -> None:
    class Dropping(LessOften):
        def optimizer_step(self, epoch_nb: int, batch_nb: int, optimizer: Any, optimizer_i: int) -> None:
            if batch_nb == 3:
                optimizer.zero_grad()
            elif batch_nb == 7:
                optimizer.step()

    model = Dropping()
    quiet_trainer(tmp_path).fit(model)
    assert_close(model, by_hand(lambda p: None, [range(4, 8)], nb_epochs=1))


class Two(LessOften):
    """Two optimizers of one loss, of which the second one steps less often."""

    def optimizer_step(self, epoch_nb: int, batch_nb: int, optimizer: Any, optimizer_i: int) -> None:
        if optimizer_i == 0 or batch_nb % 2:
            optimizer.step()

    def configure_optimizers(self) -> Any:
        return [SGD([self.a], self.rate), SGD([self.b], self.rate)]


class TwoTurns(Two):
    """The same with a loss for each."""

    def training_step(self, data_batch: Any, batch_nb: int, optimizer_i: int) -> Any:  # type: ignore[override]
        return self.loss(data_batch)


@pytest.mark.parametrize("kind", [Two, TwoTurns])
@pytest.mark.parametrize("clip", [0.0, 0.7])
def test_one_of_two_optimizers_steps_less_often(tmp_path: Path, kind: Any, clip: float) -> None:
    model = kind()
    quiet_trainer(tmp_path, gradient_clip=clip, gradient_clip_algorithm="value").fit(model)
    reference = LessOften()
    first, second = SGD([reference.a], 0.1), SGD([reference.b], 0.1)
    kept = torch.zeros(1)
    for n, batch in enumerate(BATCHES):
        reference.zero_grad()
        reference.loss(batch).backward()
        if clip:
            nn.utils.clip_grad_value_([reference.a], clip)
        kept = kept + reference.b.grad  # type: ignore[operator]
        first.step()
        if n % 2:
            reference.b.grad = kept / 2
            if clip:
                nn.utils.clip_grad_value_([reference.b], clip)
            second.step()
            kept = torch.zeros(1)
    assert_close(model, dict(reference.named_parameters()))


@pytest.mark.parametrize("length", [6, 3])
def test_a_resume_in_between_keeps_the_weights_of_what_waits(tmp_path: Path, length: int) -> None:
    limit = {"max_nb_epochs": 2}  # no clipping, which would hide a factor
    whole = LessOften()
    quiet_trainer(tmp_path, **limit).fit(whole)
    cut = LessOften()
    trainer = quiet_trainer(tmp_path, **limit)
    path = tmp_path / "cut.ckpt"
    cut.on_batch_end = lambda: trainer.save_checkpoint(path) if cut.global_step == length - 1 else None  # type: ignore
    trainer.fit(cut)
    resumed = LessOften()
    quiet_trainer(tmp_path, resume=path, **limit).fit(resumed)
    for mine, theirs in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_in_16_bit_a_step_of_the_optimizer_itself_is_refused(tmp_path: Path) -> None:
    class Half(OwnOptimizer):
        def optimizer_step(self, *_: Any) -> None:
            self.own.step()

    with pytest.raises(FitError, match=r"optimizer_step didn't call optimizer\.step\(\)"):
        quiet_trainer(tmp_path, precision="16").fit(Half())
