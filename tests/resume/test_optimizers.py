"""Every kind of optimizer is resumed: each of torch's, and users' own, cut anywhere, ends with the weights of a loop by
hand that nothing cut."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule
from pytorch_lightning.errors import CheckpointError
from tests.recorder import quiet_trainer

NB_BATCHES, NB_EPOCHS = 4, 3
X = torch.randn(NB_BATCHES * 2, 4, generator=torch.Generator().manual_seed(1))
SILENCE = ("not-shuffled", "no-validation", "first-save")


class Signs(Optimizer):
    """Its groups hold nothing but a rate."""

    def __init__(self, parameters: Any, lr: float = 0.01) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                total = self.state[p].setdefault("total", torch.zeros_like(p))
                p.sub_(group["lr"] * total.mul_(0.9).add_(p.grad).sign())


class ScheduleFree(Optimizer):
    """Trains at one point and is validated at another: ``train`` and ``eval`` swap them, and a group says which."""

    def __init__(self, parameters: Any, lr: float = 0.05) -> None:
        super().__init__(parameters, {"lr": lr, "beta": 0.9, "k": 0, "train_mode": True})

    @torch.no_grad()
    def _to(self, mode: bool) -> None:
        for group in self.param_groups:
            if group["train_mode"] != mode:
                for p in group["params"]:
                    if "z" in self.state[p]:
                        p.lerp_(self.state[p]["z"], 1 - group["beta"] if mode else 1 - 1 / group["beta"])
                group["train_mode"] = mode

    def train(self) -> None:
        self._to(True)

    def eval(self) -> None:
        self._to(False)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        for group in self.param_groups:
            assert group["train_mode"]
            group["k"] += 1
            for p in group["params"]:
                z = self.state[p].setdefault("z", p.detach().clone())
                p.lerp_(z, 1 / group["k"])
                p.add_(p.grad, alpha=group["lr"] * (group["beta"] * (1 - 1 / group["k"]) - 1))
                z.sub_(p.grad, alpha=group["lr"])


TORCHS = {name: kind for name, kind in vars(torch.optim).items() if isinstance(kind, type)}
KINDS: dict[str, Any] = {
    name: kind for name, kind in TORCHS.items() if issubclass(kind, Optimizer) and kind is not Optimizer
}
OPTIONS: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9, "nesterov": True},
    "LBFGS": {"lr": 0.1, "max_iter": 3},
    "Adam": {"amsgrad": True},
    "RMSprop": {"momentum": 0.5, "centered": True},
}
OWN: dict[str, Any] = {kind.__name__: kind for kind in (Signs, ScheduleFree)}


class Net(LightningModule):
    """Matrices alone, which Muon needs; sparse gradients for the one that takes no others."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first = nn.Linear(4, 5, bias=False)
            self.last = nn.Linear(5, 2, bias=False)
            self.table = nn.Embedding(6, 5, sparse=True)

    def loss(self, x: Tensor) -> Tensor:
        if self.name == "SparseAdam":
            return self.last(self.table(x[:, 0].gt(0).long())).pow(2).sum(1).mean()
        return (self.last(torch.tanh(self.first(x))) - 1.0).pow(2).mean()

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return self.loss(data_batch[0])

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        return self.loss(data_batch[0])

    def validation_end(self, outputs: Any) -> Any:
        return {"val_loss": torch.stack(outputs).mean()}

    def on_pre_performance_check(self) -> None:
        for optimizer in self.trainer.optimizers if self.name == "ScheduleFree" else ():
            optimizer.eval()

    def on_post_performance_check(self) -> None:
        for optimizer in self.trainer.optimizers if self.name == "ScheduleFree" else ():
            optimizer.train()

    def configure_optimizers(self) -> Any:
        kind = {**KINDS, **OWN}[self.name]
        if self.name == "SparseAdam":
            return kind(list(self.table.parameters()))
        return kind([*self.first.parameters(), *self.last.parameters()], **OPTIONS.get(self.name, {}))

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(TensorDataset(X), 2)

    val_dataloader = tng_dataloader


def by_hand(name: str) -> dict[str, Tensor]:
    model = Net(name)
    optimizer = model.configure_optimizers()
    for _ in range(NB_EPOCHS):
        for (x,) in model.tng_dataloader:

            def closure(x: Tensor = x) -> Tensor:
                optimizer.zero_grad()
                loss = model.loss(x)
                loss.backward()
                return loss

            if name == "LBFGS":
                optimizer.step(closure)
            else:
                closure()
                optimizer.step()
        if name == "ScheduleFree":
            optimizer.eval()
            optimizer.train()
    return model.state_dict()


def fit(folder: Path, model: Net, **options: Any) -> Any:
    settings = {"max_nb_epochs": NB_EPOCHS, "seed": 1, "nb_sanity_val_steps": 0, "silence": SILENCE}
    trainer = quiet_trainer(folder, **{**settings, **options})
    trainer.fit(model)
    return trainer


def is_same(model: Net, name: str) -> bool:
    expected = by_hand(name)
    start = Net(name).state_dict()
    assert any(not torch.equal(expected[key], start[key]) for key in start)
    return all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", sorted({**KINDS, **OWN}))
def test_every_kind_of_optimizer_is_resumed(tmp_path: Path, name: str) -> None:
    whole = Net(name)
    fit(tmp_path / "whole", whole)
    assert is_same(whole, name)
    for cut in (0, 5, 8):
        first = fit(tmp_path / str(cut), Net(name), resume="auto", max_nb_steps=cut) if cut else None
        if first is not None:
            first.save_checkpoint(tmp_path / "a.ckpt")
        for options in ({"resume": "auto"}, {"resume": tmp_path / "a.ckpt"}) if cut else ():
            model = Net(name)
            fit(tmp_path / f"{cut}", model, **options)
            assert is_same(model, name), (cut, options)


@pytest.mark.parametrize(("before", "now"), [("Adam", "AdamW"), ("Signs", "SGD"), ("Muon", "Signs"), ("SGD", "Muon")])
def test_another_kind_is_refused_before_a_step(tmp_path: Path, before: str, now: str) -> None:
    fit(tmp_path, Net(before), max_nb_steps=5).save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=f"a different optimizer, {before}, not {now}"):
        fit(tmp_path, Net(now), resume=tmp_path / "a.ckpt")


def test_other_groups_are_refused_before_a_step(tmp_path: Path) -> None:
    class Two(Net):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD([{"params": [self.first.weight]}, {"params": [self.last.weight]}], lr=0.1)

    fit(tmp_path, Net("SGD"), max_nb_steps=5).save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="doesn't fit"):
        fit(tmp_path, Two("SGD"), resume=tmp_path / "a.ckpt")
