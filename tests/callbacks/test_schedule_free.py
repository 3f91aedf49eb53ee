"""Optimizers with a train and an eval mode."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pytorch_lightning.callbacks import Callback, ModelCheckpoint, ScheduleFree, WeightAveraging
from pytorch_lightning.errors import MisconfigurationException
from tests.callbacks.test_weight_averaging import Net, Watcher, assert_same
from tests.recorder import quiet_trainer

NB_EPOCHS = 3


class Averaged(torch.optim.Optimizer):
    """SGD at ``y``, between ``z``, which it steps, and ``x``, the mean of all ``z``, which is for evaluation."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr, "train_mode": False, "nb": 0})

    def _move(self, train: bool) -> None:
        for group in self.param_groups:
            if group["train_mode"] != train:
                for p in group["params"]:
                    if "z" in self.state[p]:
                        x, z = self.state[p]["x"], self.state[p]["z"]
                        p.data.copy_(0.1 * z + 0.9 * x if train else x)
                group["train_mode"] = train

    def train(self) -> None:
        self._move(True)

    def eval(self) -> None:
        self._move(False)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            if not group["train_mode"]:
                raise RuntimeError("in eval mode")
            group["nb"] += 1
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["x"], state["z"] = p.clone(), p.clone()
                state["z"].sub_(p.grad, alpha=group["lr"])
                state["x"].lerp_(state["z"], 1 / group["nb"])
                p.copy_(0.1 * state["z"] + 0.9 * state["x"])


class Rounding(Averaged):
    """The same, which keeps ``z`` alone, as those of the package do: what it computes back isn't quite what was."""

    def _move(self, train: bool) -> None:
        for group in self.param_groups:
            if group["train_mode"] != train:
                for p in group["params"]:
                    if "z" in self.state[p]:
                        z = self.state[p]["z"]
                        p.data.copy_(0.1 * z + 0.9 * p if train else (p - 0.1 * z) / 0.9)
                group["train_mode"] = train

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            if not group["train_mode"]:
                raise RuntimeError("in eval mode")
            group["nb"] += 1
            for p in group["params"]:
                z = self.state[p].setdefault("z", p.clone())
                x = (p - 0.1 * z) / 0.9
                z.sub_(p.grad, alpha=group["lr"])
                p.copy_(0.1 * z + 0.9 * x.lerp(z, 1 / group["nb"]))


class Free(Net):
    make: Any = staticmethod(lambda parameters: Averaged(parameters, 0.3))

    def configure_optimizers(self) -> Any:
        return self.make(self.parameters())


def by_hand(make: Any) -> tuple[Any, list[float], Any]:
    """The model for evaluation, what validations give, and the weights of training."""
    model, values = Free(), list[float]()
    optimizer = make(model.parameters())
    for _ in range(NB_EPOCHS):
        optimizer.train()
        for batch in model.tng_dataloader:
            optimizer.zero_grad()
            model.training_step(batch, 0).backward()
            optimizer.step()
        own = [p.detach().clone() for p in model.parameters()]
        optimizer.eval()
        model.eval()
        with torch.no_grad():
            each = [model.validation_step(batch, 0) for batch in model.val_dataloader]
        values.append(float(model.validation_end(each)["val_loss"]))
        model.train()
        if len(values) < NB_EPOCHS:
            optimizer.train()
            for p, q in zip(model.parameters(), own, strict=True):
                p.data.copy_(q)
    return model, values, own


def makers() -> list[Any]:
    made = [
        pytest.param(lambda p: Averaged(p, 0.3), id="own"),
        pytest.param(lambda p: Rounding(p, 0.3), id="rounding"),
    ]
    try:
        import schedulefree
    except ImportError:
        skip = pytest.mark.skip('schedulefree isn\'t installed: pip install -e ".[neighbours]"')
        return [*made, pytest.param(None, id="schedulefree", marks=[pytest.mark.neighbours, skip])]
    real = [
        pytest.param(lambda p: schedulefree.AdamWScheduleFree(p, lr=0.02, warmup_steps=3), id="AdamW"),
        pytest.param(lambda p: schedulefree.SGDScheduleFree(p, lr=0.3), id="SGD"),
    ]
    return [*made, *(pytest.param(*one.values, id=one.id, marks=pytest.mark.neighbours) for one in real)]


@pytest.mark.parametrize("make", makers())
def test_it_is_in_the_right_mode(tmp_path: Path, make: Any) -> None:
    hand, values, own = by_hand(make)
    model, watcher = Free(), Watcher()
    model.make = make
    keep = ModelCheckpoint(tmp_path / "best", save_top_k=1)
    free = ScheduleFree()
    trainer = quiet_trainer(
        tmp_path, callbacks=[free, watcher], checkpoint_callback=keep, max_nb_epochs=NB_EPOCHS, nb_sanity_val_steps=1
    )
    trainer.fit(model)
    assert watcher.values == values
    assert_same(model.state_dict(), hand.state_dict())
    for p, q in zip(free.state_dict()["own"].values(), own, strict=True):
        assert torch.equal(p, q)
    assert not all(torch.equal(p, q) for p, q in zip(model.parameters(), own, strict=True))
    best = min(values)
    assert keep.best == best
    assert trainer.test()["val_loss"] == values[-1]
    assert trainer.test(ckpt="best")["val_loss"] == best
    loaded = Free.load_from_checkpoint(keep.best_path)
    assert trainer.validate(loaded)["val_loss"] == best
    assert not trainer.optimizers[0].param_groups[0]["train_mode"]


@pytest.mark.parametrize("make", makers())
@pytest.mark.parametrize("at", [1, 4, 7, 12, 20])
def test_a_cut_at_any_batch_changes_nothing(tmp_path: Path, make: Any, at: int) -> None:
    class Cut(Free):
        at: int | None = None

        def on_batch_end(self) -> None:
            if self.global_step == self.at:
                raise KeyboardInterrupt

    def run(folder: Path, cut: int | None, every: int) -> tuple[Any, Any, list[float]]:
        model, watcher, free = Cut(), Watcher(), ScheduleFree()
        model.at, model.make = cut, make
        trainer = quiet_trainer(
            folder,
            callbacks=[free, watcher],
            max_nb_epochs=NB_EPOCHS,
            val_check_interval=0.5,
            save_every_nb_batches=every,
            resume="auto",
        )
        trainer.fit(model)
        return model.state_dict(), free.state_dict()["own"], watcher.values

    whole, own, values = run(tmp_path / "whole", None, 1000)  # saves change nothing either
    run(tmp_path / "cut", at, 1)
    again, resumed, rest = run(tmp_path / "cut", None, 1)
    assert_same(again, whole, ())
    assert_same(resumed, own, ())
    assert rest == values[len(values) - len(rest) :]


def test_what_is_computed_back_is_not_what_was(tmp_path: Path) -> None:
    """Else nothing above says that the weights of training are kept."""
    model = Free()
    optimizer = Rounding(model.parameters(), 0.3)
    optimizer.train()
    for batch in model.tng_dataloader:
        optimizer.zero_grad()
        model.training_step(batch, 0).backward()
        optimizer.step()
    own = [p.detach().clone() for p in model.parameters()]
    optimizer.eval()
    optimizer.train()
    assert not all(map(torch.equal, model.parameters(), own))
    for p, q in zip(model.parameters(), own, strict=True):
        torch.testing.assert_close(p.detach(), q)


@pytest.mark.parametrize("at", [0, 1, 2, 3, 4])
def test_a_cut_in_the_middle_of_a_window_changes_nothing(tmp_path: Path, at: int) -> None:
    """What waits for the step is of the weights of training; validations and saves come in between."""

    class Windows(Free):
        at: int | None = None

        def on_batch_end(self) -> None:
            if self.global_step == self.at:
                self.trainer.save_checkpoint(path)

    path, models = tmp_path / "cut.ckpt", list[Any]()
    options: dict[str, Any] = {"max_nb_epochs": NB_EPOCHS, "accumulate_grad_batches": 3, "val_every_nb_batches": 2}
    for cut, resume in ((None, None), (at, None), (None, path)):
        model = Windows()
        model.at, model.make = cut, lambda p: Rounding(p, 0.3)
        quiet_trainer(tmp_path, callbacks=[ScheduleFree()], resume=resume, **options).fit(model)
        models.append(model.state_dict())
    assert_same(models[1], models[0], ())
    assert_same(models[2], models[0], ())

    hand = Free()
    optimizer, batches = Rounding(hand.parameters(), 0.3), list(hand.tng_dataloader)
    optimizer.train()
    for _ in range(NB_EPOCHS):
        for first in range(0, len(batches), 3):
            window = batches[first : first + 3]
            optimizer.zero_grad()
            for batch in window:
                (hand.training_step(batch, 0) / len(window)).backward()
            optimizer.step()
    optimizer.eval()
    for name, p in hand.named_parameters():
        torch.testing.assert_close(p.detach(), models[0][name])


def test_weights_of_training_come_back_after_an_exception(tmp_path: Path) -> None:
    class Failing(Free):
        def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
            if self.current_epoch == 1 and batch_nb == 1:
                raise ZeroDivisionError
            return super().validation_step(data_batch, batch_nb)

    class Look(Callback):
        def on_evaluation_end(self, run: Any, stage: str) -> None:
            seen.append(run.module.trainer.optimizers[0].param_groups[0]["train_mode"])

    seen: list[bool] = []
    with pytest.raises(ZeroDivisionError):
        quiet_trainer(tmp_path, callbacks=[ScheduleFree(), Look()], max_nb_epochs=2).fit(Failing())
    assert seen == [True, True]


def test_it_needs_such_an_optimizer(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match=r"train\(\) and eval\(\); received Adam"):
        quiet_trainer(tmp_path, callbacks=[ScheduleFree()]).fit(Net())
    with pytest.raises(MisconfigurationException, match="both put averaged weights"):
        quiet_trainer(tmp_path, callbacks=[ScheduleFree(), WeightAveraging("ema")]).fit(Free())


def test_another_optimizer_may_come(tmp_path: Path) -> None:
    class Changing(Free):
        def on_epoch_start(self) -> None:
            if self.current_epoch == 1:
                self.trainer.reconfigure_optimizers()

    model = Changing()
    assert quiet_trainer(tmp_path, callbacks=[ScheduleFree()], max_nb_epochs=2).fit(model) == 1


def test_another_optimizer_may_be_put_in_its_place(tmp_path: Path) -> None:
    class Replacing(Free):
        def on_epoch_start(self) -> None:
            if self.current_epoch == 1:
                self.trainer.optimizers = [Averaged(self.parameters(), 0.3)]

    model, hand, watcher = Replacing(), Free(), Watcher()
    quiet_trainer(tmp_path, callbacks=[ScheduleFree(), watcher], max_nb_epochs=2).fit(model)
    for _ in range(2):  # the second one begins at the weights of training
        optimizer = Averaged(hand.parameters(), 0.3)
        optimizer.train()
        for batch in hand.tng_dataloader:
            optimizer.zero_grad()
            hand.training_step(batch, 0).backward()
            optimizer.step()
    optimizer.eval()
    for p, q in zip(model.parameters(), hand.parameters(), strict=True):
        assert torch.equal(p, q)
