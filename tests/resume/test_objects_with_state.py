"""Objects of a user's own with ``state_dict`` and ``load_state_dict``, held by the module: their state is kept."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pytorch_lightning.errors import CheckpointError
from tests.recorder import quiet_trainer
from tests.resume.test_changes_in_training import CUTS, Model, assert_same, cut_and_resumed, points


class Curriculum:
    def __init__(self) -> None:
        self.level, self.seen = 0, list[int]()

    def next(self) -> float:
        self.level += 1
        self.seen.append(self.level % 3)
        return 1 + 0.1 * ((self.level + sum(self.seen)) % 5)

    def state_dict(self) -> dict[str, Any]:
        return {"level": self.level, "seen": list(self.seen)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.level, self.seen = state["level"], list(state["seen"])


class Shadow:
    """An average of weights that keeps its tensors itself; ``extra`` are there to be many."""

    def __init__(self, model: Any, extra: int = 0) -> None:
        self.model, self.extra = [model], torch.zeros(extra)
        self.weights = [parameter.detach().clone() for parameter in model.parameters()]

    def update(self) -> None:
        for kept, parameter in zip(self.weights, self.model[0].parameters(), strict=True):
            kept.lerp_(parameter.detach(), 0.1)

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights, "extra": self.extra}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weights = [weight.clone() for weight in state["weights"]]


class Holds(Model):
    def __init__(self) -> None:
        super().__init__()
        self.curriculum, self.more = Curriculum(), {"a": [Curriculum(), 0]}

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        factor = self.curriculum.next() + 0.1 * self.more["a"][0].next()  # type: ignore[attr-defined]
        return super().training_step(data_batch, batch_nb) * factor


class HoldsShadow(Model):
    """The average pulls the weights; its tensors are more than attributes may be."""

    def __init__(self) -> None:
        super().__init__()
        self.shadow = Shadow(self, extra=2**23)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        pull = sum((p - kept).pow(2).sum() for p, kept in zip(self.parameters(), self.shadow.weights, strict=True))
        return super().training_step(data_batch, batch_nb) + 0.1 * pull

    def on_batch_end(self) -> None:
        self.shadow.update()


class StepsItsOwn(Model):
    """A schedule, and an optimizer of a temperature, that the Trainer isn't given."""

    def __init__(self) -> None:
        super().__init__()
        self.heat = torch.ones(1, requires_grad=True)
        self.own = torch.optim.Adam([self.heat], 0.1)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return super().training_step(data_batch, batch_nb) * self.heat.detach()

    def on_batch_end(self) -> None:
        self.own.zero_grad()
        (self.heat - 0.3).pow(2).sum().backward()
        self.own.step()
        self.schedule.step()

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), 0.05)
        self.schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.7)
        return optimizer


class Outer(torch.optim.Optimizer):
    """Steps by the groups and the state of another optimizer."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        super().__init__(inner.param_groups, inner.defaults)
        self.inner, self.param_groups, self.state = inner, inner.param_groups, inner.state

    def step(self, closure: Any = None) -> Any:
        return self.inner.step(closure)


class Wraps(Model):
    """The module holds the inner one of its optimizer, and a part of its schedule."""

    def configure_optimizers(self) -> Any:
        self.inner = torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)
        outer = Outer(self.inner)
        self.first = torch.optim.lr_scheduler.LinearLR(outer, 0.1, 1.0, 4)
        self.second = torch.optim.lr_scheduler.StepLR(outer, 2, 0.7)
        schedule = torch.optim.lr_scheduler.SequentialLR(outer, [self.first, self.second], [4])
        return [outer], [{"scheduler": schedule, "interval": "step"}]


class WrapsOutside(Model):
    """The other way round: the module holds one that steps by the groups of the Trainer's."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)
        self.outer = Outer(optimizer)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.7)]

    def on_batch_end(self) -> None:
        for group in self.outer.param_groups:
            group["momentum"] *= 0.9


class Buffer:
    """What was met so far, to be drawn from again."""

    def __init__(self) -> None:
        self.items: list[Tensor] = []

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Any:
        return iter(self.items)

    def state_dict(self) -> dict[str, Any]:
        return {"items": self.items}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.items = list(state["items"])


class Replays(Model):
    def __init__(self) -> None:
        super().__init__()
        self.buffer = Buffer()

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        self.buffer.items.append(data_batch[0].clone())
        return super().training_step(torch.cat([data_batch, torch.stack([*self.buffer])]), batch_nb)


class Staged(Dataset[Any]):
    """Training data with a state of its own that changes inside of an epoch."""

    def __init__(self) -> None:
        self.stage = 0

    def __len__(self) -> int:
        return 10

    def __getitem__(self, i: int) -> Any:
        return points()[i] * (1 + 0.1 * self.stage)

    def state_dict(self) -> dict[str, Any]:
        return {"stage": self.stage}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.stage = state["stage"]


class OnStages(Model):
    def __init__(self) -> None:
        super().__init__()
        self.data, self.other = Staged(), Staged()

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return super().training_step(data_batch, batch_nb) * (1 + 0.1 * self.other.stage)

    def on_batch_end(self) -> None:
        self.data.stage = (self.data.stage + 1) % 4
        self.other.stage = (self.other.stage + 1) % 3

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(self.data, 2)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("kind", [Holds, HoldsShadow, StepsItsOwn, Wraps, WrapsOutside, Replays, OnStages])
def test_their_state_goes_on(tmp_path: Path, capsys: Any, kind: Any, cut: int) -> None:
    whole, _, again = cut_and_resumed(tmp_path, kind, cut)
    assert_same(whole, again)
    assert "lost-attributes" not in capsys.readouterr().err


def test_what_the_fit_steps_is_saved_once(tmp_path: Path, capsys: Any) -> None:
    class KeepsIt(Model):
        def __init__(self) -> None:
            super().__init__()
            self.optimizer = torch.optim.Adam(self.parameters(), 0.01)
            self.both = [self.optimizer]

        def configure_optimizers(self) -> Any:
            self.schedule = torch.optim.lr_scheduler.StepLR(self.optimizer, 2, 0.5)
            return [self.optimizer], [self.schedule]

    whole, _, again = cut_and_resumed(tmp_path, KeepsIt, 7)
    assert_same(whole, again)
    kept = torch.load(tmp_path / "cut.ckpt", weights_only=False)["parts"]["attributes"]
    assert not any(isinstance(part, Tensor) for node in kept["nodes"] for part in node)
    assert "lost-attributes" not in capsys.readouterr().err


class NotPlain(Curriculum):
    def state_dict(self) -> dict[str, Any]:
        return {"level": self.level, "how": self.next}


class Fails(Curriculum):
    def state_dict(self) -> dict[str, Any]:
        raise KeyError("how")


@pytest.mark.parametrize("kind", [NotPlain, Fails])
def test_a_state_that_a_file_cannot_hold_is_a_notice(tmp_path: Path, capsys: Any, kind: Any) -> None:
    class Cannot(Holds):
        def __init__(self) -> None:
            super().__init__()
            self.curriculum = kind()

    trainer = quiet_trainer(tmp_path, max_nb_steps=3)
    trainer.fit(Cannot())
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    assert "lost-attributes" in (said := capsys.readouterr().err)
    assert "module.curriculum (its state_dict() isn't plain data)" in said


class Reader:
    """Another library's reader of data: to ask for its state begins to read."""

    __module__ = "torch.reader"
    nb_asked = 0

    def __iter__(self) -> Any:
        return iter([1, 2])

    def state_dict(self) -> dict[str, Any]:
        Reader.nb_asked += 1
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        Reader.nb_asked += 1


def test_a_reader_of_another_library_is_not_asked(tmp_path: Path) -> None:
    class Reads(Model):
        def __init__(self) -> None:
            super().__init__()
            self.reader = Reader()

    trainer = quiet_trainer(tmp_path, max_nb_steps=3)
    trainer.fit(Reads())
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    assert Reader.nb_asked == 0


def test_another_object_in_its_place_is_left_alone(tmp_path: Path, capsys: Any) -> None:
    class Other(Holds):
        def __init__(self) -> None:
            super().__init__()
            self.curriculum = Curriculum()
            self.curriculum.level = 5

    first, again = Holds(), Other()
    trainer = quiet_trainer(tmp_path / "first", max_nb_epochs=2, max_nb_steps=7)
    trainer.fit(first)
    trainer.save_checkpoint(tmp_path / "cut.ckpt")
    quiet_trainer(tmp_path / "again", max_nb_epochs=2, resume=tmp_path / "cut.ckpt").fit(again)
    assert again.curriculum.level == 5 + 3
    assert "other-attributes" in capsys.readouterr().err


def test_a_state_that_is_not_taken_back_is_an_error(tmp_path: Path) -> None:
    class Refuses(Curriculum):
        def load_state_dict(self, state: dict[str, Any]) -> None:
            raise KeyError("height")

    class Model(Holds):
        def __init__(self) -> None:
            super().__init__()
            self.curriculum = Refuses()

    trainer = quiet_trainer(tmp_path / "first", max_nb_epochs=2, max_nb_steps=7)
    trainer.fit(Model())
    trainer.save_checkpoint(tmp_path / "cut.ckpt")
    with pytest.raises(CheckpointError, match="attributes"):
        quiet_trainer(tmp_path / "again", max_nb_epochs=2, resume=tmp_path / "cut.ckpt").fit(Model())


def test_several_processes_keep_it_too(tmp_path: Path) -> None:
    options = {"nb_processes": 2, "process_timeout_minutes": 0.5}
    whole, _, again = cut_and_resumed(tmp_path, Holds, 4, **options)
    assert_same(whole, again)
    assert whole.curriculum.level == again.curriculum.level
