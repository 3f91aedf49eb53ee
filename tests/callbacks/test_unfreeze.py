"""Layers that are frozen first, beside loops written by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import lr_scheduler as schedules
from torch.optim.swa_utils import SWALR
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule
from pytorch_lightning.callbacks import Callback, Unfreeze
from pytorch_lightning.errors import MisconfigurationException
from tests.recorder import QUIET, quiet_trainer

NB_EPOCHS, NB_BATCHES, FACTOR = 5, 6, 0.25
EPOCHS = {"backbone.top": 1, "backbone": 3}


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bottom = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.top = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Tanh())

    def forward(self, x: Any) -> Any:
        return self.top(self.bottom(x))


class Net(LightningModule):
    """A backbone and a head; ``make(optimizer)`` gives the schedule."""

    def __init__(self, make: Any = lambda optimizer: schedules.StepLR(optimizer, 1, 0.5), **how: Any) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.backbone, self.head = Backbone(), nn.Linear(8, 3)
        self.make, self.how = make, how

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return F.cross_entropy(self.head(self.backbone(data_batch[0])), data_batch[1])

    def configure_optimizers(self) -> Any:
        trained = [p for p in self.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, 0.02, weight_decay=0.1, **self.how)
        return [optimizer], [self.make(optimizer)] if self.make else []

    @property
    def tng_dataloader(self) -> Any:
        x = torch.randn(8 * NB_BATCHES, 6, generator=torch.Generator().manual_seed(1))
        return DataLoader(TensorDataset(x, x[:, :3].argmax(1)), batch_size=8)


def by_hand(train_bn: bool, *, cut_rates: bool = True) -> tuple[Any, list[list[float]]]:
    """Groups are added in their epochs, with a quarter of the rate that the head has then."""
    model, rates, bn = Net(), list[list[float]](), nn.BatchNorm1d
    top, bottom = model.backbone.top, model.backbone.bottom
    for part in (top, bottom):
        for layer in part:
            is_trained = train_bn and isinstance(layer, bn)
            layer.requires_grad_(is_trained)
            layer.train(is_trained or not isinstance(layer, bn))
    optimizer = torch.optim.AdamW(model.head.parameters(), 0.02, weight_decay=0.1)
    norms = [p for part in (top, bottom) for layer in part if isinstance(layer, bn) for p in layer.parameters()]
    if train_bn:
        optimizer.add_param_group({"params": norms})  # as configure_optimizers finds them: at the whole rate
    for epoch in range(NB_EPOCHS):
        base = 0.02 * 0.5**epoch if cut_rates else 0.02
        for when, part in ((1, top), (3, bottom)):
            if epoch == when:
                part.requires_grad_(True).train()
                own = [p for p in part.parameters() if not any(p is q for q in norms) or not train_bn]
                optimizer.add_param_group({"params": own, "base": FACTOR})
        for group in optimizer.param_groups:
            group["lr"] = base * group.get("base", 1.0)
        for batch in model.tng_dataloader:
            optimizer.zero_grad()
            model.training_step(batch, 0).backward()
            optimizer.step()
        rates.append([group["lr"] for group in optimizer.param_groups])
    return model, rates


class Watcher(Callback):
    """The rates of each epoch."""

    def reset(self) -> None:
        self.rates: list[list[float]] = []

    def on_batch_end(self, run: Any) -> None:
        if not run.progress.batch_nb:
            groups = run.module.trainer.optimizers[0].param_groups
            self.rates.append([float(group["lr"]) for group in groups])


def assert_same(model: Any, other: Any) -> None:
    for (name, one), two in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(one, two), name


@pytest.mark.parametrize("train_bn", [False, True])
def test_it_trains_as_a_loop_written_by_hand(tmp_path: Path, train_bn: bool) -> None:
    hand, rates = by_hand(train_bn)
    model, watcher = Net(), Watcher()
    unfreeze = Unfreeze(EPOCHS, lr_factor=FACTOR, train_bn=train_bn)
    trainer = quiet_trainer(tmp_path, callbacks=[unfreeze, watcher], max_nb_epochs=NB_EPOCHS)
    trainer.fit(model)
    assert_same(model, hand)
    assert [each[0] for each in watcher.rates] == [each[0] for each in rates]
    assert all(each[1:] == [each[0] * FACTOR] * 2 for each in watcher.rates)
    assert all(p.requires_grad for p in model.parameters())
    assert all(layer.training for layer in model.modules())


def lambdas(optimizer: Any) -> Any:
    return schedules.LambdaLR(optimizer, lambda epoch: (epoch + 1) / 7)


SCHEDULES: dict[str, Any] = {
    "steps": lambda o: schedules.StepLR(o, 2, 0.3),
    "cosine": lambda o: schedules.CosineAnnealingLR(o, 5, eta_min=0.001),
    "restarts": lambda o: schedules.CosineAnnealingWarmRestarts(o, 2, eta_min=0.001),
    "lambda": lambdas,
    "multiplicative": lambda o: schedules.MultiplicativeLR(o, lambda epoch: 0.9),
    "linear": lambda o: schedules.LinearLR(o, 0.2, 1.0, 4),
    "one cycle": lambda o: schedules.OneCycleLR(o, 0.02, total_steps=NB_EPOCHS + 1),
    "cyclic": lambda o: schedules.CyclicLR(o, 0.02, 0.1, 2, cycle_momentum=False),
    "warm-up": lambda o: schedules.SequentialLR(
        o, [schedules.LinearLR(o, 0.2, 1.0, 2), schedules.CosineAnnealingLR(o, 3, eta_min=0.001)], [2]
    ),
    "chained": lambda o: schedules.ChainedScheduler([schedules.ExponentialLR(o, 0.9), schedules.LinearLR(o, 0.5)]),
    "averages": lambda o: SWALR(o, 0.005, anneal_epochs=3),
    "plateau": lambda o: schedules.ReduceLROnPlateau(o, factor=0.5, patience=0, min_lr=0.003),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_group_has_the_rates_that_it_would_have_had_from_the_start(tmp_path: Path, name: str) -> None:
    """The oracle is torch: a schedule of an optimizer that has all groups from the start."""
    make = SCHEDULES[name]
    watcher, model = Watcher(), Net(make)
    plateau = name == "plateau"
    if plateau:
        model.make = lambda o: {"scheduler": make(o), "monitor": "tng_loss"}
    unfreeze = Unfreeze(EPOCHS, lr_factor=FACTOR)
    trainer = quiet_trainer(tmp_path, callbacks=[unfreeze, watcher], max_nb_epochs=NB_EPOCHS)
    trainer.fit(model)
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(3)]
    groups: Any = [{"params": [w], "lr": 0.02 * f} for w, f in zip(weights, (1.0, FACTOR, FACTOR), strict=True)]
    optimizer = torch.optim.AdamW(groups, 0.02)
    one = make(optimizer) if name not in ("one cycle", "cyclic", "averages") else None
    if name == "one cycle":
        one = schedules.OneCycleLR(optimizer, [0.02, 0.02 * FACTOR, 0.02 * FACTOR], total_steps=NB_EPOCHS + 1)
    if name == "cyclic":
        top = [0.1, 0.1 * FACTOR, 0.1 * FACTOR]
        base = [0.02, 0.02 * FACTOR, 0.02 * FACTOR]
        one = schedules.CyclicLR(optimizer, base, top, 2, cycle_momentum=False)
    if name == "averages":
        one = SWALR(optimizer, [0.005, 0.005 * FACTOR, 0.005 * FACTOR], anneal_epochs=3)
    rates = []
    for epoch in range(NB_EPOCHS):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        if plateau:
            one.step(1.0 if watcher.rates[min(epoch + 1, NB_EPOCHS - 1)] == watcher.rates[epoch] and epoch == 0 else 0)
        else:
            one.step()
    if plateau:  # which epochs improve is the loss's business
        assert all(each[1] == max(each[0] * FACTOR, 0.003) or each[1] >= 0.003 for each in watcher.rates)
        return
    torch.testing.assert_close(watcher.rates, rates, rtol=1e-12, atol=0)


@pytest.mark.parametrize("at", [1, 6, 7, 13, 18, 20, 25])
@pytest.mark.parametrize("name", ["lambda", "one cycle", "cosine"])
def test_a_cut_at_any_batch_changes_nothing(tmp_path: Path, name: str, at: int) -> None:
    class Cut(Net):
        at: int | None = None

        def on_batch_end(self) -> None:
            if self.global_step == self.at:
                raise KeyboardInterrupt

    def run(folder: Path, cut: int | None = None) -> Any:
        model = Cut(SCHEDULES[name])
        model.at = cut
        trainer = quiet_trainer(
            folder,
            callbacks=[Unfreeze(EPOCHS, lr_factor=FACTOR)],
            max_nb_epochs=NB_EPOCHS,
            save_every_nb_batches=1,
            resume="auto",
        )
        trainer.fit(model)
        return model, trainer.optimizers[0].state_dict()

    whole, state = run(tmp_path / "whole")
    run(tmp_path / "cut", at)
    again, resumed = run(tmp_path / "cut")
    assert_same(again, whole)
    assert str(state) == str(resumed)
    assert [layer.training for layer in again.modules()] == [layer.training for layer in whole.modules()]


def test_a_second_fit_freezes_again(tmp_path: Path) -> None:
    seen: list[bool] = []

    class Seen(Callback):
        def on_batch_start(self, run: Any, data_batch: Any) -> None:
            seen.append(run.module.backbone.bottom[0].weight.requires_grad)

    model = Net()
    for nb in (1, 5):
        trainer = quiet_trainer(tmp_path, callbacks=[Unfreeze(EPOCHS), Seen()], max_nb_epochs=nb)
        trainer.fit(model)
    assert seen == [False] * (1 + 3) * NB_BATCHES + [True] * 2 * NB_BATCHES


def test_what_a_program_froze_itself(tmp_path: Path) -> None:
    class Own(Net):
        def __init__(self) -> None:
            super().__init__()
            self.backbone.bottom[0].bias.requires_grad_(False)  # a part of it stays frozen
            self.backbone.top.requires_grad_(False)  # all of it: its epoch comes

    model = Own()
    quiet_trainer(tmp_path, callbacks=[Unfreeze({"backbone.bottom": 1, "backbone.top": 1})], max_nb_epochs=2).fit(model)
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert frozen == ["backbone.bottom.0.bias"]


@pytest.mark.parametrize(
    ("arguments", "make", "text"),
    [
        (({"backbone.tops": 1},), SCHEDULES["steps"], "'backbone.tops' isn't there.*Did you mean 'backbone.top'"),
        (({"backbon": 1},), SCHEDULES["steps"], "Did you mean 'backbone'"),
        (({"backbone.top.2": 1},), SCHEDULES["steps"], "has no parameters of its own"),
        (({"backbone": 1}, 0.1, False, 1), SCHEDULES["steps"], "optimizer_i=1"),
        (({"backbone": 1},), lambda o: schedules.LambdaLR(o, [lambda n: 0.5**n]), None),
        (({"backbone": 1},), lambda o: Strange(o), "Strange isn't one of torch's schedules"),
    ],
)
def test_mistakes_are_named_before_the_first_batch(tmp_path: Path, arguments: Any, make: Any, text: Any) -> None:
    trainer = quiet_trainer(tmp_path, callbacks=[Unfreeze(*arguments)], max_nb_epochs=1)
    if text is None:
        trainer.fit(Net(make))
        return
    with pytest.raises(MisconfigurationException, match=text):
        trainer.fit(Net(make))
    assert not list(tmp_path.rglob("metrics.csv"))


class Strange:
    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer

    def step(self) -> None: ...


def test_a_list_of_functions_and_layers_that_are_given_already(tmp_path: Path) -> None:
    class Two(Net):
        def configure_optimizers(self) -> Any:
            groups = [{"params": [self.head.weight]}, {"params": [self.head.bias]}]
            optimizer = torch.optim.SGD(groups, 0.1)
            return [optimizer], [schedules.LambdaLR(optimizer, [lambda n: 1.0, lambda n: 0.5])]

    class All(Net):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    class Newton(Net):
        def configure_optimizers(self) -> Any:
            return torch.optim.LBFGS(self.head.parameters())

    for model, text in ((Two(), "a list of functions"), (All(), "Give it the others"), (Newton(), "LBFGS")):
        with pytest.raises(MisconfigurationException, match=text):
            quiet_trainer(tmp_path, callbacks=[Unfreeze({"backbone": 1})]).fit(model)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"epochs": ["backbone"]}, "a dict of epochs by name"),
        ({"epochs": {"backbone": 0}}, "at least 1"),
        ({"epochs": {"backbone": 1}, "lr_factor": 0}, "above 0"),
        ({"epochs": {"backbone": 1}, "unfreeze_backbone_at_epoch": 1}, "of the backbone"),
    ],
)
def test_wrong_arguments_are_named(arguments: Any, text: str) -> None:
    with pytest.raises(MisconfigurationException, match=text):
        Unfreeze(**arguments)


def test_groups_with_names(tmp_path: Path) -> None:
    class Named(Net):
        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW([(n, p) for n, p in self.named_parameters() if p.requires_grad], 0.02)

    trainer = quiet_trainer(tmp_path, callbacks=[Unfreeze({"backbone.top": 1, "backbone": 1})], max_nb_epochs=2)
    trainer.fit(Named())
    names = [group["param_names"] for group in trainer.optimizers[0].param_groups]
    assert names[0] == ["head.weight", "head.bias"]
    assert names[1][0] == "backbone.top.0.weight"


@pytest.mark.slow
def test_in_processes_of_its_own_the_optimizer_is_whole_afterwards(tmp_path: Path) -> None:
    from pytorch_lightning import Trainer

    alone = Net(None)
    one = quiet_trainer(tmp_path, callbacks=[Unfreeze(EPOCHS)], max_nb_epochs=NB_EPOCHS, virtual_ranks=2)
    one.fit(alone)
    model = Net(None)
    options = {**QUIET, "default_save_path": tmp_path / "two", "max_nb_epochs": NB_EPOCHS}
    two = Trainer(callbacks=[Unfreeze(EPOCHS)], nb_processes=2, **options)
    two.fit(model)
    for p, q in zip(model.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(p, q)
    state, other = two.optimizers[0].state_dict(), one.optimizers[0].state_dict()
    assert [len(group["params"]) for group in state["param_groups"]] == [2, 4, 4]
    assert set(state["state"]) == set(other["state"])


class Replacing(Net):
    """Momentum is lost in the third epoch, where a new optimizer comes: by hand, the same."""

    how_to: Any = None

    def configure_optimizers(self) -> Any:
        later = self.trainer.current_epoch > 0
        trained = self.head.parameters() if later else [p for p in self.parameters() if p.requires_grad]
        return torch.optim.SGD(trained, 0.02, momentum=0.9)

    def on_epoch_start(self) -> None:
        if self.current_epoch == 2:
            self.how_to(self)


def replaced_by_hand(nb_epochs: int, when: int | None) -> Any:
    model = Net()
    halves = {model.backbone.top: 1, model.backbone.bottom: 3}
    model.backbone.requires_grad_(False)
    for half in halves:
        half[1].eval()
    groups = [{"params": list(model.head.parameters())}]
    optimizer = torch.optim.SGD(groups, 0.02, momentum=0.9)
    for epoch in range(nb_epochs):
        for half, first in halves.items():
            if epoch == first:
                half.requires_grad_(True).train()
                optimizer.add_param_group({"params": list(half.parameters()), "lr": 0.02 * FACTOR})
        if epoch == when:
            optimizer.state.clear()
        for batch in model.tng_dataloader:
            optimizer.zero_grad()
            model.training_step(batch, 0).backward()
            optimizer.step()
    return model


def by_a_list(model: Any) -> None:
    model.trainer.optimizers = [torch.optim.SGD(model.head.parameters(), 0.02, momentum=0.9)]


def by_the_same(model: Any) -> None:
    model.trainer.optimizers = list(model.trainer.optimizers)


@pytest.mark.parametrize(
    ("how", "when"), [(by_a_list, 2), (lambda m: m.trainer.reconfigure_optimizers(), 2), (by_the_same, None)]
)
def test_an_optimizer_that_comes_later_gets_the_groups(tmp_path: Path, how: Any, when: int | None) -> None:
    model = Replacing(None)
    model.how_to = how
    trainer = quiet_trainer(tmp_path, callbacks=[Unfreeze(EPOCHS, lr_factor=FACTOR)], max_nb_epochs=NB_EPOCHS)
    trainer.fit(model)
    assert_same(model, replaced_by_hand(NB_EPOCHS, when))
    assert [group["lr"] for group in trainer.optimizers[0].param_groups] == [0.02, 0.02 * FACTOR, 0.02 * FACTOR]


def test_layers_that_are_trained_already_are_no_others(tmp_path: Path) -> None:
    def all_of_them(model: Any) -> None:
        trained = [p for p in model.parameters() if p.requires_grad]
        model.trainer.optimizers = [torch.optim.SGD(trained, 0.02)]

    model = Replacing(None)
    model.how_to = all_of_them
    with pytest.raises(MisconfigurationException, match=r"given 4 parameters that Unfreeze adds \(backbone\.top\.0"):
        quiet_trainer(tmp_path, callbacks=[Unfreeze(EPOCHS)], max_nb_epochs=3).fit(model)


@pytest.mark.parametrize("how", [by_a_list, lambda m: m.trainer.reconfigure_optimizers()])
@pytest.mark.parametrize("cut", [8, 14, 20])
def test_it_is_resumed_with_the_groups(tmp_path: Path, how: Any, cut: int) -> None:
    class Saving(Replacing):
        how_to = staticmethod(how)
        at: int | None = None

        def on_batch_end(self) -> None:
            if self.global_step == self.at:
                self.trainer.save_checkpoint(path)

    path, models = tmp_path / "cut.ckpt", list[Any]()
    for at, resume in ((None, None), (cut, None), (None, path)):
        models.append(Saving(None))
        models[-1].at = at
        unfreeze = Unfreeze(EPOCHS, lr_factor=FACTOR)
        quiet_trainer(tmp_path, callbacks=[unfreeze], max_nb_epochs=NB_EPOCHS, resume=resume).fit(models[-1])
    assert_same(models[2], models[0])
