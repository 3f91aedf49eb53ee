"""A ``training_step`` that makes its own steps, against loops of plain torch."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import LBFGS, SGD
from torch.optim.lr_scheduler import StepLR

from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.errors import FitError, MisconfigurationException
from tests.recorder import quiet_trainer, rows_of
from tests.steps.manual_models import ActorCritic, ClosureSam, PlainWgan, Points, Sam, Wgan, train_by_hand

MODELS = [Wgan, PlainWgan, Sam, ClosureSam, ActorCritic]
STEPS = {Wgan: 6 * 8, PlainWgan: 6 * 8, Sam: 8, ClosureSam: 8, ActorCritic: 12}
"""The optimizer steps of an epoch."""


def same(mine: Any, theirs: Any) -> bool:
    return all(map(torch.equal, mine.state_dict().values(), theirs.state_dict().values()))


@pytest.mark.parametrize("kind", MODELS)
def test_its_weights_are_those_of_a_loop_by_hand(tmp_path: Path, kind: Any) -> None:
    model = kind()
    trainer = quiet_trainer(tmp_path, max_nb_epochs=2)
    trainer.fit(model)
    assert same(model, train_by_hand(kind, 2))
    assert trainer.progress.nb_optimizer_steps == 2 * STEPS[kind]
    assert trainer.global_step == 16


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("step", [1, 6, 11])
def test_a_resume_has_the_same_bits(tmp_path: Path, kind: Any, step: int) -> None:
    options: dict[str, Any] = {"max_nb_epochs": 2, "val_check_interval": 1.0}
    whole, cut, resumed, path = kind(), kind(), kind(), tmp_path / "cut.ckpt"
    quiet_trainer(tmp_path, **options).fit(whole)
    trainer = quiet_trainer(tmp_path, **options)
    cut.on_batch_end = lambda: trainer.save_checkpoint(path) if trainer.global_step == step - 1 else None
    trainer.fit(cut)
    again = quiet_trainer(tmp_path, resume=path, **options)
    again.fit(resumed)
    assert same(whole, resumed)
    assert again.progress.nb_optimizer_steps == 2 * STEPS[kind]


def test_a_run_that_is_trained_further_has_the_gradients_that_waited(tmp_path: Path) -> None:
    class Odd(ActorCritic):
        nb_batches = 7

    whole, first, further, path = Odd(), Odd(), Odd(), tmp_path / "end.ckpt"
    quiet_trainer(tmp_path, max_nb_epochs=2).fit(whole)
    trainer = quiet_trainer(tmp_path, max_nb_epochs=1)
    trainer.fit(first)
    trainer.save_checkpoint(path)
    quiet_trainer(tmp_path, resume=path, max_nb_epochs=2).fit(further)
    assert same(whole, further)


def test_a_validation_leaves_gradients_that_wait(tmp_path: Path) -> None:
    class Validated(ActorCritic):
        def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
            return {"val_loss": 1.0}

        @property
        def val_dataloader(self) -> Any:
            return self.tng_dataloader

    model = Validated()
    quiet_trainer(tmp_path, max_nb_epochs=2, val_check_interval=3).fit(model)
    assert same(model, train_by_hand(ActorCritic, 2))


class Line(Points):
    """One step a batch, of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.zeros(1))

    def loss(self, batch: Any) -> Any:
        return ((batch[0] * self.a).sum(1) + self.b - 1).pow(2).mean()

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        loss = self.loss(data_batch)
        self.take_step(loss)
        return {"loss": loss, "prog": {"twice": 2 * loss}}

    def take_step(self, loss: Any) -> None:
        self.manual_step(loss=loss)

    def configure_optimizers(self) -> Any:
        return SGD(self.parameters(), 0.1)


class PlainLine(Line):
    def take_step(self, loss: Any) -> None:
        (optimizer,) = self.trainer.optimizers
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def line_by_hand(ready: Any = lambda parameters: None, nb_epochs: int = 1, dtype: Any = None) -> Line:
    model = Line()
    optimizer = model.configure_optimizers()
    if dtype is torch.float64:
        model.double()
    for _ in range(nb_epochs):
        for (x,) in model.tng_dataloader:
            optimizer.zero_grad()
            model.loss([x if dtype is not torch.float64 else x.double()]).backward()
            ready(list(model.parameters()))
            optimizer.step()
    return model


@pytest.mark.parametrize("kind", [Line, PlainLine])
@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_its_gradients_are_clipped(tmp_path: Path, kind: Any, algorithm: str) -> None:
    model = kind()
    quiet_trainer(tmp_path, gradient_clip=0.3, gradient_clip_algorithm=algorithm).fit(model)
    clip = nn.utils.clip_grad_norm_ if algorithm == "norm" else nn.utils.clip_grad_value_
    assert same(model, line_by_hand(lambda parameters: clip(parameters, 0.3)))
    assert not same(model, line_by_hand())


def test_a_closure_is_clipped_each_time(tmp_path: Path) -> None:
    clipped: list[float] = []

    class Model(ClosureSam):
        def on_batch_end(self) -> None:
            clipped.append(float(torch.stack([p.grad.norm() for p in self.parameters()]).norm()))  # type: ignore

    quiet_trainer(tmp_path, gradient_clip=0.01).fit(Model())
    assert clipped == pytest.approx([0.01] * 8, rel=1e-3)


@pytest.mark.parametrize("kind", [Line, PlainLine])
@pytest.mark.parametrize("precision", ["64", "bf16-true"])
def test_in_other_dtypes(tmp_path: Path, kind: Any, precision: str) -> None:
    model = kind()
    quiet_trainer(tmp_path, precision=precision).fit(model)
    assert model.a.dtype == {"64": torch.float64, "bf16-true": torch.bfloat16}[precision]
    if precision == "64":
        assert same(model, line_by_hand(dtype=torch.float64))


class Autocast(Points):
    """Two steps a batch: the second one must see the weights that the first one made."""

    plain = False

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(7)
            self.net = nn.Linear(2, 3)

    def loss(self, x: Any) -> Any:
        return (self.net(x).float() - 1).pow(2).mean()

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        for _ in range(2):
            loss = self.loss(data_batch[0])
            if self.plain:
                (optimizer,) = self.trainer.optimizers
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            else:
                self.manual_step(loss=loss)

    def configure_optimizers(self) -> Any:
        return SGD(self.parameters(), 0.1)


@pytest.mark.parametrize(("precision", "plain"), [("bf16", False), ("bf16", True), ("16", False)])
def test_under_autocast_each_forward_pass_sees_the_weights_of_now(tmp_path: Path, precision: str, plain: bool) -> None:
    model, hand = Autocast(), Autocast()
    model.plain = plain
    quiet_trainer(tmp_path, precision=precision).fit(model)
    optimizer = hand.configure_optimizers()
    scaler = torch.amp.GradScaler("cpu", enabled=precision == "16")
    for (x,) in hand.tng_dataloader:
        for _ in range(2):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16 if precision == "bf16" else torch.float16):
                loss = hand.loss(x)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    assert same(model, hand)


def test_gradients_that_wait_follow_the_scale(tmp_path: Path) -> None:
    """The first optimizer's gradient isn't finite, so the scale is halved while the second one's gradients wait."""

    class Model(Points):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))

        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            self.manual_backward((self.b * data_batch[0]).sum())
            self.manual_backward((self.a * data_batch[0]).sum() * (1e36 if batch_nb == 0 else 1.0))
            self.manual_step(0)
            self.manual_step(1)

        def configure_optimizers(self) -> Any:
            return [SGD([self.a], 0.1), SGD([self.b], 0.1)]

    model, steps = Model(), []
    model.on_batch_end = lambda: steps.append(model.trainer.progress.nb_optimizer_steps)  # type: ignore
    quiet_trainer(tmp_path, precision="16").fit(model)
    b = torch.ones(2)
    for (x,) in model.tng_dataloader:
        b -= 0.1 * x.sum(0)
    torch.testing.assert_close(model.b.detach(), b)
    assert steps == [1, 3, 5, 7, 9, 11, 13, 15], "a step that was skipped isn't counted"


def test_schedules_hooks_and_norms_follow_each_step(tmp_path: Path) -> None:
    seen: list[str] = []

    class Model(Line):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            for _ in range(batch_nb % 3):
                self.manual_step(1, loss=self.loss(data_batch))
            self.manual_step(0, loss=self.loss(data_batch))

        def on_after_backward(self) -> None:
            seen.append("ready")

        def on_before_zero_grad(self, optimizer: Any) -> None:
            seen.append("stepped")
            assert optimizer.param_groups[0]["params"][0].grad is not None

        def configure_optimizers(self) -> Any:
            one, other = SGD([self.a], 1e-3), SGD([self.b], 1e-3)
            first = {"scheduler": StepLR(one, 1, 0.5), "interval": "step"}
            return [one, other], [first, {"scheduler": StepLR(other, 1, 0.5), "interval": "step", "frequency": 2}]

    model = Model()
    trainer = quiet_trainer(tmp_path, track_grad_norm=2, add_log_row_interval=1)
    trainer.fit(model)
    nb_other = sum(n % 3 for n in range(8))
    assert trainer.progress.nb_optimizer_steps == 8 + nb_other
    assert [o.param_groups[0]["lr"] for o in trainer.optimizers] == [1e-3 / 2**8, 1e-3 / 2 ** (nb_other // 2)]
    assert seen == ["ready", "stepped"] * (8 + nb_other)
    rows = rows_of(tmp_path, "Model")
    assert all(row["grad_2_norm_0"] for row in rows)
    assert [bool(row["grad_2_norm_1"]) for row in rows] == [n % 3 > 0 for n in range(8)]


def test_what_it_returns_is_shown(tmp_path: Path) -> None:
    class Model(Line):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            self.manual_step(loss=self.loss(data_batch))
            if batch_nb < 3:
                return None
            loss = torch.tensor(float(batch_nb))
            return loss if batch_nb == 3 else {"loss": float(loss), "prog": {"twice": 2 * loss}, "loss_count": 2}

    trainer = quiet_trainer(tmp_path, add_log_row_interval=1)
    trainer.fit(Model())
    rows = rows_of(tmp_path, "Model")
    assert [row["tng_loss"] for row in rows[:3]] == [""] * 3
    assert float(rows[-1]["tng_loss"]) == 5.0
    assert [row["twice"] for row in rows[4:]] == ["8.0", "10.0", "12.0", "14.0"]


def test_max_nb_steps_counts_every_step(tmp_path: Path) -> None:
    trainer = quiet_trainer(tmp_path, max_nb_epochs=3, max_nb_steps=13)
    trainer.fit(Wgan())
    assert (trainer.progress.nb_optimizer_steps, trainer.global_step) == (18, 3)


def test_lbfgs_steps_by_its_closure(tmp_path: Path) -> None:
    class Model(Line):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            self.trainer.optimizers[0].step(lambda: self.evaluate(self.trainer.optimizers[0], data_batch))

        def evaluate(self, optimizer: Any, batch: Any) -> Any:
            optimizer.zero_grad()
            loss = self.loss(batch)
            loss.backward()
            return loss

        def configure_optimizers(self) -> Any:
            return LBFGS(self.parameters(), 0.5)

    model, hand = Model(), Model()
    trainer = quiet_trainer(tmp_path)
    trainer.fit(model)
    optimizer = hand.configure_optimizers()
    for batch in hand.tng_dataloader:
        optimizer.step(lambda batch=batch: hand.evaluate(optimizer, batch))
    assert same(model, hand)
    assert trainer.progress.nb_optimizer_steps == 8

    class ByStep(Model):
        training_step = Line.training_step

    with pytest.raises(FitError, match=r"LBFGS evaluates the loss itself.*optimizers\[0\]\.step\(closure\)"):
        quiet_trainer(tmp_path).fit(ByStep())


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (lambda m, x: m.manual_step(), r"manual_step\(0\): no parameter of that SGD has a gradient"),
        (lambda m, x: m.manual_step(2, m.loss(x)), "optimizer_i=2, and there are 1"),
        (lambda m, x: m.manual_backward(m.loss(x).detach()), "without a graph"),
        (lambda m, x: m.manual_backward(1.0), r"1\.0 \(float\)"),
        (lambda m, x: m.manual_backward(m.a * 2), r"shape \(2,\); expected one element"),
        (lambda m, x: m.manual_backward(m.loss(x) * float("nan")), "isn't finite"),
        (lambda m, x: m.loss(x) * float("inf"), "isn't finite"),
        (lambda m, x: "x", r"returned 'x' \(str\); expected None"),
    ],
)
def test_what_a_step_may_not_do(tmp_path: Path, step: Any, words: str) -> None:
    class Model(Line):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            return step(self, data_batch)

    with pytest.raises(FitError, match=words) as caught:
        quiet_trainer(tmp_path).fit(Model())
    assert "(epoch 0, batch_nb 0)" in "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])


def test_in_16_bit_plain_steps_say_what_to_write(tmp_path: Path) -> None:
    class Mixed(Line):
        def take_step(self, loss: Any) -> None:
            loss.backward()
            self.manual_step()

    for kind in (PlainLine, Mixed):
        with pytest.raises(FitError, match=r"Write self\.manual_backward\(loss\) and self\.manual_step\(0\)"):
            quiet_trainer(tmp_path, precision="16").fit(kind())


class ThreeArguments(Line):
    def training_step(self, data_batch: Any, batch_nb: int, optimizer_i: int) -> Any:  # type: ignore[override]
        raise AssertionError


class OwnOptimizerStep(Line):
    def optimizer_step(self, *_: Any) -> None:
        raise AssertionError


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        (ThreeArguments, {}, "takes three arguments"),
        (OwnOptimizerStep, {}, "optimizer_step is never called"),
        (Line, {"accumulate_grad_batches": 2}, "accumulate_grad_batches=2"),
        (Line, {"accumulate_grad_batches": {1: 1, 2: 4}}, "every n-th batch"),
        (Line, {"compile": True}, r"self\.net\.compile\(\)"),
        (Line, {"virtual_ranks": 2}, "2 virtual ranks on 1 process.*Start 2 processes"),
    ],
    ids=str,
)
def test_what_it_cannot_be_combined_with(tmp_path: Path, kind: Any, options: Any, words: str) -> None:
    with pytest.raises(MisconfigurationException, match=words):
        quiet_trainer(tmp_path, **options).fit(kind())


def test_dp_is_refused(tmp_path: Path) -> None:
    from pytorch_lightning.strategies import DataParallel

    with pytest.raises(MisconfigurationException, match="doesn't work with distributed_backend='dp'"):
        quiet_trainer(tmp_path, distributed_backend=DataParallel(places=2)).fit(Line())


def test_the_flag_is_read_wherever_it_is_set(tmp_path: Path) -> None:
    class ByInit(Line):
        automatic_optimization = True

        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

    model = ByInit()
    quiet_trainer(tmp_path).fit(model)
    assert same(model, line_by_hand())


def test_steps_elsewhere_say_where_they_belong(tmp_path: Path) -> None:
    class Automatic(Line):
        automatic_optimization = True

    with pytest.raises(MisconfigurationException, match="automatic_optimization = False in the class Automatic"):
        quiet_trainer(tmp_path).fit(Automatic())
    with pytest.raises(MisconfigurationException, match="in the class Line"):
        Line().manual_step()

    class InHook(Line):
        def on_batch_end(self) -> None:
            self.manual_step()

    with pytest.raises(MisconfigurationException, match="works in training_step only"):
        quiet_trainer(tmp_path).fit(InHook())


def test_optimizers_that_are_made_again_step_and_are_counted_once(tmp_path: Path) -> None:
    class Model(PlainLine):
        def on_epoch_end(self) -> None:
            if self.current_epoch == 0:
                self.trainer.reconfigure_optimizers()

    model = Model()
    trainer = quiet_trainer(tmp_path, max_nb_epochs=2)
    trainer.fit(model)
    assert same(model, line_by_hand(nb_epochs=2))
    assert trainer.progress.nb_optimizer_steps == 16


def test_an_optimizer_that_is_given_again_is_counted_once(tmp_path: Path) -> None:
    class Model(PlainLine):
        def configure_optimizers(self) -> Any:
            self.mine = getattr(self, "mine", None) or SGD(self.parameters(), 0.1)
            return self.mine

        def on_epoch_end(self) -> None:
            self.trainer.reconfigure_optimizers()

    model = Model()
    trainer = quiet_trainer(tmp_path, max_nb_epochs=3)
    trainer.fit(model)
    assert same(model, line_by_hand(nb_epochs=3))
    assert trainer.progress.nb_optimizer_steps == 24


def test_the_same_optimizer_in_a_second_fit_is_counted_once(tmp_path: Path) -> None:
    class Model(PlainLine):
        def configure_optimizers(self) -> Any:
            self.mine = getattr(self, "mine", None) or SGD(self.parameters(), 0.1)
            return self.mine

    model = Model()
    for _ in range(2):
        trainer = quiet_trainer(tmp_path)
        trainer.fit(model)
        assert trainer.progress.nb_optimizer_steps == 8


def test_gradients_from_before_a_fit_are_not_in_it(tmp_path: Path) -> None:
    class Model(Line):
        def take_step(self, loss: Any) -> None:
            self.manual_backward(loss)
            self.manual_step()

    model = Model()
    model.loss([torch.ones(4, 2)]).backward()
    quiet_trainer(tmp_path).fit(model)
    assert same(model, line_by_hand())


def test_scaled_gradients_that_wait_are_resumed(tmp_path: Path) -> None:
    """In 16 bit over four batches, of which the first one's scale is halved by another optimizer."""

    class Model(Points):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))

        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            self.manual_backward((self.b * data_batch[0]).pow(2).mean() / 4)
            self.manual_step(0, loss=(self.a * data_batch[0]).sum() * (1e36 if batch_nb % 3 == 1 else 1.0))
            if batch_nb % 4 == 3:
                self.manual_step(1)

        def configure_optimizers(self) -> Any:
            return [SGD([self.a], 0.1), SGD([self.b], 0.1)]

    whole, cut, resumed, path = Model(), Model(), Model(), tmp_path / "cut.ckpt"
    quiet_trainer(tmp_path, precision="16").fit(whole)
    trainer = quiet_trainer(tmp_path, precision="16")
    cut.on_batch_end = lambda: trainer.save_checkpoint(path) if trainer.global_step == 1 else None  # type: ignore
    trainer.fit(cut)
    quiet_trainer(tmp_path, precision="16", resume=path).fit(resumed)
    assert same(whole, resumed)
    b = torch.ones(2)
    batches = [x for (x,) in whole.tng_dataloader]
    for start in (0, 4):
        b -= 0.1 * sum(2 * b * x.pow(2).sum(0) / 8 / 4 for x in batches[start : start + 4])
    torch.testing.assert_close(whole.b.detach(), b)


def test_optimizers_that_share_a_parameter_and_a_step_that_fails_and_is_caught(tmp_path: Path) -> None:
    class Broken(SGD):
        nb_calls = 0

        def step(self, closure: Any = None) -> Any:
            self.nb_calls += 1
            if self.nb_calls == 2:
                raise ValueError("once")
            return super().step(closure)

    class Model(Line):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            self.zero_grad()
            try:
                self.manual_step(0, loss=self.loss(data_batch))
            except ValueError:
                self.zero_grad()
            optimizer = self.trainer.optimizers[1]
            self.zero_grad()
            self.loss(data_batch).backward()
            optimizer.step()

        def configure_optimizers(self) -> Any:
            return [Broken(self.parameters(), 0.1), SGD([self.a], 0.1)]

    model, hand = Model(), Line()
    trainer = quiet_trainer(tmp_path)
    trainer.fit(model)
    one, other = SGD(hand.parameters(), 0.1), SGD([hand.a], 0.1)
    for n, batch in enumerate(hand.tng_dataloader):
        for optimizer in (one, other) if n != 1 else (other,):
            hand.zero_grad()
            hand.loss(batch).backward()
            optimizer.step()
    assert same(model, hand)
    assert trainer.progress.nb_optimizer_steps == 15


def test_a_copy_that_is_trained_inside_a_step(tmp_path: Path) -> None:
    """First-order meta-learning: a copy makes steps of its own, and its gradients are the model's."""

    def gradients(model: Any, batch: Any) -> list[Any]:
        twin = copy.deepcopy(model)
        inner = SGD(twin.parameters(), 0.05)
        for _ in range(2):
            inner.zero_grad()
            twin.loss(batch).backward()
            inner.step()
        return list(torch.autograd.grad(twin.loss(batch), list(twin.parameters())))

    class Meta(Line):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            for p, gradient in zip(self.parameters(), gradients(self, data_batch), strict=True):
                p.grad = gradient
            self.manual_step()

    model, hand = Meta(), Line()
    trainer = quiet_trainer(tmp_path)
    trainer.fit(model)
    optimizer = hand.configure_optimizers()
    for batch in hand.tng_dataloader:
        for p, gradient in zip(hand.parameters(), gradients(hand, batch), strict=True):
            p.grad = gradient
        optimizer.step()
    assert same(model, hand)
    assert trainer.progress.nb_optimizer_steps == 8


def test_an_average_of_weights_follows_each_step(tmp_path: Path) -> None:
    average = WeightAveraging("ema", decay=0.5)

    class Twice(Line):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            for _ in range(2):
                self.manual_step(loss=self.loss(data_batch))

    model, hand = Twice(), Line()
    quiet_trainer(tmp_path, callbacks=[average]).fit(model)
    optimizer, expected = hand.configure_optimizers(), None
    for batch in hand.tng_dataloader:
        for _ in range(2):
            optimizer.zero_grad()
            hand.loss(batch).backward()
            optimizer.step()
            now = hand.a.detach().clone()
            expected = now if expected is None else 0.5 * expected + 0.5 * now
    found = dict(average.average_for(model).module.by_name(True))["a"]
    torch.testing.assert_close(found.detach(), expected)
