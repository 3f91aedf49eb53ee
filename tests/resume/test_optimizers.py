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


class Counting(Optimizer):
    """Keeps what it counts in attributes, among them what belongs to each parameter."""

    def __init__(self, parameters: Any, lr: float = 0.02) -> None:
        super().__init__(parameters, {"lr": lr})
        self.nb_steps, self.beta = 0, 0.9
        self.slow: dict[Tensor, Tensor] = {p: p.detach().clone() for g in self.param_groups for p in g["params"]}
        self.parameters = [p for g in self.param_groups for p in g["params"]]

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        self.nb_steps += 1
        for p in self.parameters:
            p.sub_(self.param_groups[0]["lr"] / self.nb_steps**0.5 * p.grad)
            if self.nb_steps % 3 == 0:
                self.slow[p].lerp_(p, 1 - self.beta)
                p.copy_(self.slow[p])


class Wrapping(Optimizer):
    """Another one inside of it makes the steps, with the same groups and its own state; as SAM's second half does."""

    def __init__(self, parameters: Any, lr: float = 0.02) -> None:
        super().__init__(parameters, {"lr": lr, "rho": 0.05})
        self.base = torch.optim.SGD(self.param_groups, lr=lr, momentum=0.9)
        self.param_groups = self.base.param_groups

    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        self.base.step()


class Lazy(Optimizer):
    """Makes what it keeps in its first step."""

    def __init__(self, parameters: Any, lr: float = 0.02) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        self.nb_steps = getattr(self, "nb_steps", 0) + 1
        for p in self.param_groups[0]["params"]:
            if not hasattr(self, "largest"):
                self.largest: dict[Tensor, Tensor] = {}
            self.largest[p] = torch.maximum(self.largest.get(p, p.grad.abs()), p.grad.abs())
            p.sub_(self.param_groups[0]["lr"] / self.nb_steps**0.5 * p.grad / (self.largest[p] + 0.1))


class Several(Optimizer):
    """A list of others, one of which keeps attributes of its own, and an average that is a module."""

    def __init__(self, parameters: Any, lr: float = 0.02) -> None:
        first, *others = parameters
        super().__init__([first, *others], {"lr": lr})
        self.each = [Counting([first]), torch.optim.Adam(others, lr)]
        self.average = nn.Linear(4, 5, bias=False)
        self.average.load_state_dict({"weight": first.detach()})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        for one in self.each:
            one.step()
        first = self.param_groups[0]["params"][0]
        self.average.weight.lerp_(first, 0.5)
        first.lerp_(self.average.weight, 0.5)


class Sharing(Optimizer):
    """The groups are the inner one's too, and another name for its state: what is changed here counts there."""

    def __init__(self, parameters: Any, lr: float = 0.2) -> None:
        super().__init__(parameters, {"lr": lr})
        self.base = torch.optim.SGD(self.param_groups, lr=lr, momentum=0.9)
        self.fast_state = self.base.state

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        self.base.step()
        self.param_groups[0]["lr"] *= 0.9
        for state in self.fast_state.values():
            state["momentum_buffer"].mul_(0.7)


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
OWN: dict[str, Any] = {
    kind.__name__: kind for kind in (Signs, Counting, Wrapping, Lazy, Several, Sharing, ScheduleFree)
}


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


def test_values_that_only_a_program_sets_are_those_of_this_start(tmp_path: Path) -> None:
    first = fit(tmp_path, Net("Counting"), max_nb_steps=5)
    first.save_checkpoint(tmp_path / "a.ckpt")

    class Other(Net):
        def configure_optimizers(self) -> Any:
            optimizer = super().configure_optimizers()
            optimizer.beta = 0.5
            return optimizer

    again = fit(tmp_path, Other("Counting"), resume=tmp_path / "a.ckpt").optimizers[0]
    assert (again.beta, again.nb_steps) == (0.5, NB_EPOCHS * NB_BATCHES)


def test_an_attribute_that_no_checkpoint_can_hold_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Opened(Signs):
        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters)
            self.batches: Any = iter(())

        def step(self, closure: Any = None) -> Any:  # type: ignore[override]
            super().step()
            self.batches = iter([1])

    class Own(Net):
        def configure_optimizers(self) -> Any:
            return Opened([*self.first.parameters(), *self.last.parameters()])

    fit(tmp_path, Own("Signs"), resume="auto")
    assert (
        "changed while training, and a checkpoint can't hold it: Opened.batches. A resumed" in capsys.readouterr().err
    )


class Meter:
    """No plain value, and changed in place."""

    total = 0.0

    def __init__(self) -> None:
        self.seen: list[float] = []


@pytest.mark.parametrize("changes", [True, False])
def test_an_object_that_changes_in_place_is_said_and_one_that_does_not_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: bool
) -> None:
    class Measured(Signs):
        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters)
            self.meter, self.draws, self.hook = Meter(), torch.Generator().manual_seed(0), lambda: None

        def step(self, closure: Any = None) -> Any:  # type: ignore[override]
            super().step()
            if changes:
                self.meter.seen.append(1.0)
                torch.rand(1, generator=self.draws)

    class Own(Net):
        def configure_optimizers(self) -> Any:
            return Measured([*self.first.parameters(), *self.last.parameters()])

    fit(tmp_path, Own("Signs"), resume="auto")
    expected = "can't hold it: Measured.draws, Measured.meter. A resumed" if changes else ""
    said = capsys.readouterr().err
    assert expected in said
    assert ("Measured" in said) == changes


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
