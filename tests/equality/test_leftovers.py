"""Leftover gradients change nothing: a window begins without any."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from pytorch_lightning.errors import FitError
from tests.equality.models import Classifier, Validated, assert_same, fit
from tests.recorder import quiet_trainer, rows_of


def by_hand(model: Any, nb_epochs: int = 3, before_epoch: Callable[[int, Any], None] = lambda epoch, o: None) -> Any:
    optimizer = model.configure_optimizers()
    for epoch in range(nb_epochs):
        before_epoch(epoch, optimizer)
        for batch in model.tng_dataloader:
            model.zero_grad()
            model.loss(batch).backward()
            optimizer.step()
    return model


def first_batch(model: Any) -> Any:
    return next(iter(model.tng_dataloader))


@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2}, {"virtual_ranks": 2}], ids=str)
def test_a_backward_before_the_fit(tmp_path: Path, options: Any) -> None:
    left = Classifier()
    left.loss(first_batch(left)).backward()
    assert_same(fit(tmp_path, Classifier(), **options), fit(tmp_path, left, **options))


def test_a_backward_in_a_validation(tmp_path: Path) -> None:
    class Saliency(Validated):
        def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
            assert batch_nb or all(p.grad is None for p in self.parameters())  # there they are freed
            with torch.enable_grad():
                self.loss(data_batch).backward()
            return self.loss(data_batch)

    assert_same(by_hand(Validated()), fit(tmp_path, Saliency(), val_check_interval=2))


@pytest.mark.parametrize("hook", ["on_epoch_start", "on_batch_start", "on_batch_end", "on_epoch_end"])
def test_a_backward_in_a_hook(tmp_path: Path, hook: str) -> None:
    class Hooked(Classifier):
        pass

    def leave(self: Any, *_: Any) -> None:
        self.loss(first_batch(self)).backward()

    setattr(Hooked, hook, leave)
    assert_same(by_hand(Classifier()), fit(tmp_path, Hooked()))


def test_hooks_see_the_gradients_of_the_step_that_was_made(tmp_path: Path) -> None:
    class Looking(Classifier):
        def on_batch_end(self) -> None:
            self.seen = [None if p.grad is None else p.grad.clone() for p in self.parameters()]

    model = fit(tmp_path, Looking(lambda parameters: SGD(parameters, 0.0)), nb_epochs=1)
    twin = Classifier()
    twin.loss(list(twin.tng_dataloader)[-1]).backward()
    for seen, parameter in zip(model.seen, twin.parameters(), strict=True):
        assert seen.equal(parameter.grad)
    assert all(p.grad is None for p in model.parameters())  # and after the fit their memory is free


@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2}, {"virtual_ranks": 2}], ids=str)
def test_layers_that_are_given_to_the_optimizer_later(tmp_path: Path, options: Any) -> None:
    def thaw(model: Any, epoch: int, optimizer: Any) -> None:
        if epoch == 1:
            optimizer.add_param_group({"params": list(model.layers[0].parameters())})

    class Thawing(Classifier):
        outside = True

        def configure_optimizers(self) -> Any:
            self.sgd = SGD(self.layers[4].parameters(), 0.1)
            return self.sgd

        def on_epoch_start(self) -> None:
            thaw(self, self.current_epoch, self.sgd)
            if not self.outside:
                self.zero_grad()

    class Clean(Thawing):
        outside = False

    options = {**options, "silence": ("unused-parameter", "not-shuffled", "no-validation")}
    trained = fit(tmp_path, Thawing(), **options)
    assert_same(fit(tmp_path, Clean(), **options), trained)
    if len(options) == 1:
        model = Thawing()
        assert_same(by_hand(model, before_epoch=lambda epoch, o: thaw(model, epoch, o)), trained)


def test_the_norm_of_layers_in_no_optimizer_is_one_steps(tmp_path: Path) -> None:
    class Still(Classifier):
        def configure_optimizers(self) -> Any:
            return SGD(self.layers[4].parameters(), 0.0)

    fit(tmp_path, Still(), nb_epochs=2, track_grad_norm=2, add_log_row_interval=1, silence=("unused-parameter",))
    norms = [row["grad_2_norm_total"] for row in rows_of(tmp_path, "Still")]
    assert len(norms) == 10
    assert norms[:5] == norms[5:]  # nothing moved


def test_a_fit_after_one_that_raised_within_a_window(tmp_path: Path) -> None:
    class Failing(Classifier):
        fails = True

        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            loss = self.loss(data_batch)
            return loss * float("nan") if self.fails and batch_nb == 1 else loss

    for options in ({"accumulate_grad_batches": 3}, {"virtual_ranks": 2}, {"virtual_ranks": 3}):
        model: Any = Failing()
        with pytest.raises(FitError, match="isn't finite"):
            quiet_trainer(tmp_path, **{"accumulate_grad_batches": 2, **options}).fit(model)
        if "virtual_ranks" in options:  # it is noticed before the backward pass
            assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
        model.fails = False
        assert_same(fit(tmp_path, Classifier(), **options), fit(tmp_path, model, **options))


def test_a_backward_within_training_step_adds_to_the_windows(tmp_path: Path) -> None:
    class InHalves(Classifier):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            (self.loss(data_batch) / 2).backward()
            return self.loss(data_batch) / 2

    assert_same(by_hand(Classifier()), fit(tmp_path, InHalves()))


# ---------------------------------------------------------------------------------------------- gradients that wait
class EverySecond(Classifier):
    """Steps in every second window; ``counts`` says how many items each loss is a mean over."""

    counts: tuple[Any, ...] = (None,)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return {"loss": self.loss(data_batch), "loss_count": self.counts[batch_nb % len(self.counts)]}

    def optimizer_step(self, epoch_nb: int, batch_nb: int, optimizer: Any, optimizer_i: int) -> None:
        self.turns = getattr(self, "turns", 0) + 1
        if self.turns % 2 == 0:
            optimizer.step()


@pytest.mark.parametrize("counts", [(None,), (1, 5, 2)], ids=["uncounted", "counted"])
@pytest.mark.parametrize("size", [1, 2])
def test_gradients_that_wait_become_one_mean(tmp_path: Path, counts: Any, size: int) -> None:
    class Waiting(EverySecond):
        pass

    Waiting.counts = counts
    model = Classifier().double()
    optimizer, turns, weight = model.configure_optimizers(), 0, 0.0
    for _ in range(3):
        batches = [(n, (x.double(), y)) for n, (x, y) in enumerate(model.tng_dataloader)]
        for start in range(0, len(batches), size):
            for n, batch in batches[start : start + size]:
                weight += counts[n % len(counts)] or 1
                (model.loss(batch) * (counts[n % len(counts)] or 1)).backward()
            turns += 1
            if turns % 2 == 0:
                for parameter in model.parameters():
                    parameter.grad /= weight
                optimizer.step()
                optimizer.zero_grad()
                weight = 0.0
    trained = fit(tmp_path, Waiting(), precision="64", accumulate_grad_batches=size)
    for mine, theirs in zip(model.parameters(), trained.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_what_was_stepped_does_not_wait_in_a_checkpoint(tmp_path: Path) -> None:
    for steps, waits in ((2, False), (3, True)):
        model = EverySecond()
        trainer = quiet_trainer(tmp_path, fast_dev_run=False, max_nb_epochs=1)
        model.on_batch_end = lambda n=steps, t=trainer, m=model: (
            t.save_checkpoint(tmp_path / f"{n}.ckpt") if m.global_step == n - 1 else None
        )  # type: ignore[method-assign, misc]
        trainer.fit(model)
        saved = torch.load(tmp_path / f"{steps}.ckpt", weights_only=True)["parts"]["gradients"]["waiting"]
        assert bool(saved[0]) is waits


def test_one_optimizer_may_not_wait_for_a_gradient_that_another_one_has_used(tmp_path: Path) -> None:
    class Torn(EverySecond):
        def configure_optimizers(self) -> Any:
            return [SGD(self.parameters(), 0.1), SGD(self.layers[4].parameters(), 0.1)]

        def optimizer_step(self, epoch_nb: int, batch_nb: int, optimizer: Any, optimizer_i: int) -> None:
            if optimizer_i == 0:
                optimizer.step()

    with pytest.raises(FitError, match="can't both wait and be cleared"):
        quiet_trainer(tmp_path, silence=("shared-parameter",)).fit(Torn())


def test_clearing_keeps_the_module_of_the_optimizer_apart(tmp_path: Path) -> None:
    """A parameter that isn't the module's is cleared with the optimizer that has it."""
    outside = nn.Parameter(torch.zeros(3))

    class Outside(Classifier):
        def configure_optimizers(self) -> Any:
            return SGD([*self.parameters(), outside], 0.1)

        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            return self.loss(data_batch) + (outside - 1).sum()

    outside.grad = torch.full((3,), 100.0)
    fit(tmp_path, Outside(), nb_epochs=1)
    torch.testing.assert_close(outside.detach(), torch.full((3,), -0.5))  # five steps of 0.1
