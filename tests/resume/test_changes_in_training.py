"""What user code changes while training runs is trained right, and is there after a resume."""

import collections
import dataclasses
import enum
import threading
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, TensorDataset

from pytorch_lightning import LightningModule
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.errors import CheckpointError, FitError, MisconfigurationException
from tests.recorder import quiet_trainer

NB_EPOCHS, NB_BATCHES = 4, 5
CUTS = (7, 10, 12)
"""Steps after which a run is cut: inside an epoch, and at the end of one."""


class Point(NamedTuple):
    x: float
    y: float


@dataclasses.dataclass
class Level:
    height: float = 0.0


class Phase(enum.Enum):
    WARM = 1
    LATE = 2


class Small(nn.Module):
    """A part whose attribute changes."""

    def __init__(self) -> None:
        super().__init__()
        self.level = 0


class Model(LightningModule):
    """One layer on ten samples, in order."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.body, self.norm, self.head = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.body(x)))  # type: ignore[no-any-return]

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return (self.head(self.norm(self.body(data_batch))) - 1).pow(2).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.05)

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(points(), batch_size=2)


def points() -> Tensor:
    return torch.arange(40.0).reshape(10, 4).sin()


def cut_and_resumed(tmp_path: Path, kind: Any, cut: int, **options: Any) -> tuple[Any, Any, Any]:
    """A model that was never cut, one that was cut after ``cut`` steps, and one that was resumed from there."""
    whole, first, again = kind(), kind(), kind()
    quiet_trainer(tmp_path / "whole", max_nb_epochs=NB_EPOCHS, **options).fit(whole)
    trainer = quiet_trainer(tmp_path / "first", max_nb_epochs=NB_EPOCHS, max_nb_steps=cut, **options)
    trainer.fit(first)
    trainer.save_checkpoint(tmp_path / "cut.ckpt")
    resumed = quiet_trainer(tmp_path / "again", max_nb_epochs=NB_EPOCHS, resume=tmp_path / "cut.ckpt", **options)
    resumed.fit(again)
    assert resumed.global_step == whole.trainer.global_step
    return whole, first, again


def assert_same(whole: Any, again: Any) -> None:
    for name, value in whole.state_dict().items():
        assert value.equal(again.state_dict()[name]), name


# ---------------------------------------------------------------------------------------------- attributes
class Everything(Model):
    """Attributes of every kind, each of which takes part in the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.counter, self.word, self.phase = 0, "a", Phase.WARM
        self.outputs: list[Tensor] = []
        self.same = self.outputs
        self.recent: Any = collections.deque(maxlen=3)
        self.by_name: Any = collections.defaultdict(list)
        self.ordered: Any = collections.OrderedDict(a=0, b=0)
        self.tally: Any = collections.Counter()
        self.frozen = frozenset[Any]()
        self.level = Level()
        self.met = {1}
        self.array, self.tensor, self.half = np.zeros((2, 2)), torch.zeros(2), np.float16(0.5)
        self.space, self.args = SimpleNamespace(level=0), Namespace(level=0)
        self.points = [Point(0.0, 1.0)]
        self.nested = {"deep": [{"er": (1, 2.0)}]}
        self.inner = Small()
        self.register_buffer("shift", torch.zeros(1), persistent=False)
        self.gone = 3

    def on_batch_end(self) -> None:
        step = self.global_step
        self.counter += 1
        self.word += "b"
        self.phase = Phase.LATE if step > 4 else Phase.WARM
        self.outputs.append(torch.tensor(float(step)))
        self.recent.append(step)
        self.by_name[step % 2].append(step)
        self.met.add(step % 4)
        self.ordered[f"{step}"] = step
        self.ordered.move_to_end("a")
        self.tally.update([step % 2])
        self.frozen = self.frozen | {(step, "x")}
        self.level.height += 1.0
        self.array[0, step % 2] += 1
        self.tensor += 1
        self.half = np.float16(step)
        self.space.level = self.args.level = step
        self.points.append(Point(step, 2.0))
        self.nested["deep"].append({"er": (step, 1.0)})
        self.inner.level += 1
        self.shift = self.shift + 1
        if step == 3:
            del self.gone
            self.new = np.array(["x", "y"])

    def on_epoch_end(self) -> None:
        self.outputs.clear()

    def values(self) -> list[Any]:
        return [
            self.counter, self.word, self.phase, self.outputs, self.recent, self.recent.maxlen, dict(self.by_name),
            self.by_name.default_factory, self.met, self.array.tolist(), self.array.dtype, self.tensor, self.half,
            type(self.half), self.space, self.args, self.points, type(self.points[-1]), self.nested, self.inner.level,
            [*self.ordered.items()], self.tally, type(self.frozen), self.frozen == {(i, "x") for i in range(20)},
            self.level, self.shift, hasattr(self, "gone"), self.new.tolist(), self.outputs is self.same,
        ]  # fmt: skip


@pytest.mark.parametrize("cut", CUTS)
def test_attributes_of_every_kind_are_there_again(tmp_path: Path, cut: int) -> None:
    whole, _, again = cut_and_resumed(tmp_path, Everything, cut)
    for one, other in zip(whole.values(), again.values(), strict=True):
        assert repr(one) == repr(other)
    assert again.outputs is again.same


def test_what_the_program_changed_between_two_starts_stays_and_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Counting(Model):
        first = 0

        def __init__(self) -> None:
            super().__init__()
            self.counter, self.rate = self.first, 1.0

        def on_batch_end(self) -> None:
            self.counter += 1

    trainer = quiet_trainer(tmp_path, max_nb_epochs=2, max_nb_steps=7)
    trainer.fit(Counting())
    trainer.save_checkpoint(tmp_path / "cut.ckpt")
    Counting.first = 100
    again = Counting()
    again.rate = 2.0
    quiet_trainer(tmp_path, max_nb_epochs=2, resume=tmp_path / "cut.ckpt").fit(again)
    assert (again.counter, again.rate) == (103, 2.0)
    said = capsys.readouterr().err
    assert "module.counter" in said
    assert "module.rate  [other-attributes]" in said


def test_an_object_that_counts_goes_on_over_several_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Counting(Model):
        def __init__(self) -> None:
            super().__init__()
            self.level = Level()

        def on_batch_end(self) -> None:
            self.level.height += 1

    resume = None
    for nb_steps in (2, 4, 7, 9):  # each start makes the object of the save before
        trainer, model = quiet_trainer(tmp_path, max_nb_epochs=3, max_nb_steps=nb_steps, resume=resume), Counting()
        trainer.fit(model)
        assert model.level.height == Level().height + nb_steps
        resume = tmp_path / f"{nb_steps}.ckpt"
        trainer.save_checkpoint(resume)
    assert "other-attributes" not in capsys.readouterr().err


def test_what_cannot_be_kept_is_said_with_the_hooks_to_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Opened(Model):
        def __init__(self) -> None:
            super().__init__()
            self.handle: Any = None
            self.waiting: Any = iter(range(1000))
            self.large: Any = None

        def on_batch_end(self) -> None:
            if self.handle is None:
                self.handle = threading.Lock()
                self.large = torch.zeros(20_000_000, dtype=torch.uint8)
            next(self.waiting)

    trainer = quiet_trainer(tmp_path, max_nb_steps=3)
    trainer.fit(Opened())
    trainer.save_checkpoint(tmp_path / "cut.ckpt")
    said = capsys.readouterr().err
    for part in ("module.handle", "module.waiting (an iterator)", "module.large", "on_load_checkpoint"):
        assert part in said
    assert (tmp_path / "cut.ckpt").stat().st_size < 1_000_000


def test_a_callback_without_a_state_dict_counts_on(tmp_path: Path) -> None:
    class Counting(Callback):
        def __init__(self) -> None:
            self.seen = 0

        def on_batch_end(self, run: Any) -> None:
            self.seen += 1

    callbacks = [Counting(), Counting()]
    trainer = quiet_trainer(tmp_path, max_nb_epochs=2, max_nb_steps=7, callbacks=callbacks[:1])
    trainer.fit(Model())
    trainer.save_checkpoint(tmp_path / "cut.ckpt")
    quiet_trainer(tmp_path, max_nb_epochs=2, resume=tmp_path / "cut.ckpt", callbacks=callbacks[1:]).fit(Model())
    assert [c.seen for c in callbacks] == [7, 10]


def test_an_exception_in_a_step_that_changed_an_attribute_costs_the_batches_since_the_last_save(tmp_path: Path) -> None:
    class Failing(Model):
        fails = False

        def __init__(self) -> None:
            super().__init__()
            self.counter = 0

        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            self.counter += 1
            if self.fails and self.counter == 9:
                raise KeyError("failed")
            return super().training_step(data_batch, batch_nb) * (1 + 0.01 * self.counter)

    whole = Failing()
    quiet_trainer(tmp_path / "whole", max_nb_epochs=3).fit(whole)
    Failing.fails = True
    options: Any = {"max_nb_epochs": 3, "save_every_nb_batches": 3, "resume": "auto"}
    with pytest.raises(KeyError):
        quiet_trainer(tmp_path, **options).fit(Failing())
    Failing.fails = False
    again = Failing()
    quiet_trainer(tmp_path, **options).fit(again)
    assert again.counter == 15
    assert_same(whole, again)


WRITES: dict[str, Any] = {
    "torch": lambda tensor: tensor.add_(1.0),
    "data": lambda tensor: tensor.data.add_(1.0),
    "numpy": lambda tensor: np.add(tensor.numpy(), 1.0, out=tensor.numpy()),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("hook", ["on_batch_end", "on_fit_start"])
def test_one_of_many_tensors_that_is_written_to_is_kept(tmp_path: Path, hook: str, write: str) -> None:
    class Many(Model):
        def __init__(self) -> None:
            super().__init__()
            self.batches = [[torch.zeros(2), torch.zeros(())] for _ in range(100)]

        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            return super().training_step(data_batch, batch_nb) * (1 + 0.01 * self.batches[70][0].sum())

        def on_epoch_end(self) -> None:
            WRITES[write](self.batches[70][0])

    setattr(Many, hook, lambda self: WRITES[write](self.batches[70][1]))
    whole, _, again = cut_and_resumed(tmp_path, Many, 7)
    assert_same(whole, again)
    assert again.batches[70][0].tolist() == [NB_EPOCHS, NB_EPOCHS]
    assert float(again.batches[70][1]) == (1 if hook == "on_fit_start" else NB_EPOCHS * NB_BATCHES)


# ---------------------------------------------------------------------------------------------- data
class Staged(Dataset[Any]):
    """What it gives depends on attributes that hooks change."""

    def __init__(self) -> None:
        self.stage, self.noise = 0, SimpleTransform()

    def __len__(self) -> int:
        return 10

    def __getitem__(self, i: int) -> Tensor:
        return torch.full((4,), float(i)).sin() * (1 + self.stage) + self.noise.strength


class SimpleTransform:
    strength = 0.0


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("hook", ["on_epoch_start", "on_batch_end"])
def test_a_curriculum_that_a_hook_sets_is_resumed(tmp_path: Path, hook: str, workers: int, cut: int) -> None:
    class Curriculum(Model):
        def __init__(self) -> None:
            super().__init__()
            self.data = Staged()

        @property
        def tng_dataloader(self) -> Any:
            return DataLoader(self.data, batch_size=2, num_workers=workers)

    def change(self: Any) -> None:
        self.data.stage += 1
        self.data.noise.strength += 0.1

    setattr(Curriculum, hook, change)
    whole, _, again = cut_and_resumed(tmp_path, Curriculum, cut)
    assert_same(whole, again)
    assert again.data.stage == whole.data.stage


def test_other_workers_are_said_where_an_attribute_changed_inside_the_epoch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Curriculum(Model):
        workers = 0

        def __init__(self) -> None:
            super().__init__()
            self.data = Staged()

        def on_batch_end(self) -> None:
            self.data.stage += 1

        @property
        def tng_dataloader(self) -> Any:
            return DataLoader(self.data, batch_size=2, num_workers=self.workers)

    trainer = quiet_trainer(tmp_path, max_nb_epochs=2, max_nb_steps=7)
    trainer.fit(Curriculum())
    trainer.save_checkpoint(tmp_path / "cut.ckpt")
    Curriculum.workers = 2
    quiet_trainer(tmp_path, max_nb_epochs=2, resume=tmp_path / "cut.ckpt").fit(Curriculum())
    assert "training dataset.stage changed inside an epoch" in capsys.readouterr().err


class Counts(Sampler[int]):
    """Counts its epochs: when one begins, or when it is at its end."""

    def __init__(self, first: bool) -> None:
        self.first, self.epoch = first, 0

    def __len__(self) -> int:
        return 10

    def __iter__(self) -> Iterator[int]:
        self.epoch += self.first
        yield from torch.randperm(10, generator=torch.Generator().manual_seed(self.epoch)).tolist()
        self.epoch += not self.first


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("first", [True, False], ids=["at the start", "at the end"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_sampler_that_counts_its_epochs(tmp_path: Path, workers: int, first: bool, cut: int) -> None:
    class Sampled(Model):
        def __init__(self) -> None:
            super().__init__()
            self.order: list[Any] = []

        def on_batch_start(self, data_batch: Any) -> None:
            self.order.append(data_batch)

        @property
        def tng_dataloader(self) -> Any:
            return DataLoader(points(), batch_size=2, sampler=Counts(first), num_workers=workers)

    whole, _, again = cut_and_resumed(tmp_path, Sampled, cut)
    assert_same(whole, again)
    by_hand = [batch for _ in [Counts(first)] for epoch in range(NB_EPOCHS) for batch in _order(epoch + first)]
    assert torch.stack(again.order).equal(torch.stack(by_hand))


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("hook", ["on_epoch_start", "on_epoch_end"])
def test_workers_that_live_on_see_the_data_of_the_first_epoch_also_after_a_resume(
    tmp_path: Path, hook: str, cut: int
) -> None:
    class Curriculum(Model):
        def __init__(self) -> None:
            super().__init__()
            self.data = Staged()
            self.data.noise.strength = 0.0

        @property
        def tng_dataloader(self) -> Any:
            return DataLoader(self.data, 2, sampler=Counts(first=True), num_workers=1, persistent_workers=True)

    def change(self: Any) -> None:
        self.data.stage += 1
        self.data.noise.strength = 0.1 * self.current_epoch

    setattr(Curriculum, hook, change)
    whole, _, again = cut_and_resumed(tmp_path, Curriculum, cut)
    assert_same(whole, again)
    assert again.data.stage == whole.data.stage


class Appears(Dataset[Any]):
    """What it gives depends on which attributes it has."""

    def __init__(self) -> None:
        self.base = 0.5

    def __len__(self) -> int:
        return 10

    def __getitem__(self, i: int) -> Tensor:
        return torch.full((4,), float(i)).sin() + getattr(self, "base", 0.0) + getattr(self, "late", 0.0)


@pytest.mark.parametrize("cut", [1, *CUTS])
@pytest.mark.parametrize("hook", ["on_epoch_start", "on_batch_end", "on_epoch_end"])
@pytest.mark.parametrize("workers", ["none", "two", "that live on"])
def test_attributes_of_the_data_that_appear_and_vanish(tmp_path: Path, workers: str, hook: str, cut: int) -> None:
    class Changing(Model):
        def __init__(self) -> None:
            super().__init__()
            self.data = Appears()

        @property
        def tng_dataloader(self) -> Any:
            nb = 0 if workers == "none" else 2
            return DataLoader(self.data, 2, num_workers=nb, persistent_workers=workers == "that live on")

    def change(self: Any) -> None:
        if self.current_epoch:
            self.data.late = 0.1 * self.global_step
            vars(self.data).pop("base", None)

    setattr(Changing, hook, change)
    whole, _, again = cut_and_resumed(tmp_path, Changing, cut)
    assert_same(whole, again)
    assert vars(again.data) == vars(whole.data)


def _order(epoch: int) -> list[Tensor]:
    order = torch.randperm(10, generator=torch.Generator().manual_seed(epoch)).tolist()
    return [points()[order[i : i + 2]] for i in range(0, 10, 2)]


HIDDEN = {"epoch": 0}


class Hidden(Sampler[int]):
    """Counts in a place that no search reaches."""

    def __len__(self) -> int:
        return 10

    def __iter__(self) -> Iterator[int]:
        HIDDEN["epoch"] += 1
        return iter(torch.randperm(10, generator=torch.Generator().manual_seed(HIDDEN["epoch"])).tolist())


@pytest.mark.parametrize("cut", CUTS)
def test_an_order_that_is_another_is_an_error_also_at_the_end_of_an_epoch(tmp_path: Path, cut: int) -> None:
    class Sampled(Model):
        @property
        def tng_dataloader(self) -> Any:
            return DataLoader(points(), batch_size=2, sampler=Hidden())

    HIDDEN["epoch"] = 0
    trainer = quiet_trainer(tmp_path, max_nb_epochs=4, max_nb_steps=cut)
    trainer.fit(Sampled())
    trainer.save_checkpoint(tmp_path / "cut.ckpt")
    HIDDEN["epoch"] = 0  # another process
    with pytest.raises(FitError, match="the order of the training data differs"):
        quiet_trainer(tmp_path, max_nb_epochs=4, resume=tmp_path / "cut.ckpt").fit(Sampled())


class Grows(Sampler[int]):
    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return 2 * (self.epoch + 1)

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(len(self)).tolist())


@pytest.mark.parametrize("cut", [2, 3, 5])
def test_a_sampler_that_grows_is_trained_whole(tmp_path: Path, cut: int) -> None:
    class Sampled(Model):
        def __init__(self) -> None:
            super().__init__()
            self.seen: Any = collections.Counter()

        def on_batch_start(self, data_batch: Any) -> None:
            self.seen[self.current_epoch] += len(data_batch)

        @property
        def tng_dataloader(self) -> Any:
            return DataLoader(points(), batch_size=2, sampler=Grows())

    whole, _, again = cut_and_resumed(tmp_path, Sampled, cut)
    assert again.seen == whole.seen == {0: 2, 1: 4, 2: 6, 3: 8}
    assert_same(whole, again)


def test_a_stream_whose_attribute_a_hook_changes(tmp_path: Path) -> None:
    class Flowing(IterableDataset[Any]):
        stage = 0

        def __iter__(self) -> Iterator[Any]:
            for row in points():
                yield row + self.stage

    class Streamed(Model):
        def __init__(self) -> None:
            super().__init__()
            self.data = Flowing()

        def on_batch_end(self) -> None:
            self.data.stage += 1

        @property
        def tng_dataloader(self) -> Any:
            return DataLoader(self.data, batch_size=2)

    for cut in CUTS:
        whole, _, again = cut_and_resumed(tmp_path / str(cut), Streamed, cut)
        assert_same(whole, again)


# ---------------------------------------------------------------------------------------------- modes
@pytest.mark.parametrize("cut", CUTS)
def test_layers_that_are_unfrozen_and_fixed_while_training_stay_so(tmp_path: Path, cut: int) -> None:
    class Unfreezing(Model):
        def __init__(self) -> None:
            super().__init__()
            self.body.requires_grad_(False)

        def on_epoch_start(self) -> None:
            if self.current_epoch == 1:
                self.body.requires_grad_(True)
                self.norm.eval()

    whole, first, again = cut_and_resumed(tmp_path, Unfreezing, cut)
    assert_same(whole, again)
    assert again.body.weight.requires_grad
    assert not again.norm.training
    assert not first.body.weight.equal(again.body.weight)


def test_a_layer_in_eval_mode_stays_so_and_a_module_in_eval_mode_is_trained_with_a_notice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Model()
    model.norm.eval()
    before = model.norm.running_mean.clone()
    quiet_trainer(tmp_path).fit(model)
    assert not model.norm.training
    assert model.norm.running_mean.equal(before)
    assert "[train-mode]" not in capsys.readouterr().err
    model.eval()
    quiet_trainer(tmp_path).fit(model)
    assert model.norm.training
    assert "[train-mode]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rate", "frozen", "train", "is_said"),
    [(0.1, False, False, True), (0.0, False, False, False), (0.1, True, False, False), (0.1, False, True, False)],
)
def test_a_pretrained_layer_that_would_train_without_its_dropout_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rate: float, frozen: bool, train: bool, is_said: bool
) -> None:
    class Pretrained(Model):
        def __init__(self) -> None:
            super().__init__()
            block = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Sequential(torch.nn.Dropout(rate)))
            self.pretrained = block.requires_grad_(not frozen).train(train)

    model = Pretrained()
    quiet_trainer(tmp_path).fit(model)
    said = capsys.readouterr().err
    assert said.count("[eval-mode]") == is_said
    assert ("without dropout: pretrained." in said) == is_said, "not each layer of it"
    assert model.pretrained.training == train


# ---------------------------------------------------------------------------------------------- optimizers
class Growing(Model):
    """Its body is trained by a group that is added later."""

    def __init__(self) -> None:
        super().__init__()
        self.body.requires_grad_(False)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.head.parameters(), 0.01)

    def on_epoch_start(self) -> None:
        if self.current_epoch == 1:
            self.body.requires_grad_(True)
            self.trainer.optimizers[0].add_param_group({"params": list(self.body.parameters()), "lr": 0.001})


@pytest.mark.parametrize("cut", CUTS)
def test_a_group_that_was_added_is_made_again(tmp_path: Path, cut: int) -> None:
    whole, _, again = cut_and_resumed(tmp_path, Growing, cut)
    assert_same(whole, again)
    assert [g["lr"] for g in again.trainer.optimizers[0].param_groups] == [0.01, 0.001]


def test_a_group_of_parameters_outside_the_module_is_an_error(tmp_path: Path) -> None:
    class Foreign(Growing):
        def on_epoch_start(self) -> None:
            self.trainer.optimizers[0].add_param_group({"params": [torch.zeros(2, requires_grad=True)]})

    trainer = quiet_trainer(tmp_path, save_every_nb_batches=2)
    with pytest.raises(FitError, match=r"holds 1 parameters that aren't Foreign's"):
        trainer.fit(Foreign())


class Switching(Model):
    """Other optimizers and a schedule from the second epoch on."""

    late = False

    def on_epoch_start(self) -> None:
        if self.current_epoch == 1:
            self.late = True
            self.trainer.reconfigure_optimizers()

    def configure_optimizers(self) -> Any:
        if not self.late:
            return torch.optim.Adam(self.parameters(), 0.01)
        first = torch.optim.SGD(self.head.parameters(), 0.05, momentum=0.9)
        second = torch.optim.SGD(self.body.parameters(), 0.02)
        return [first, second], [{"scheduler": torch.optim.lr_scheduler.StepLR(first, 3, 0.5), "interval": "step"}]


def switched_by_hand() -> Any:
    model = Switching()
    optimizers, schedulers = [model.configure_optimizers()], []
    for epoch in range(NB_EPOCHS):
        if epoch == 1:
            model.late = True
            optimizers, schedulers = model.configure_optimizers()
        for batch in model.tng_dataloader:
            model.training_step(batch, 0).backward()
            for optimizer in optimizers:
                optimizer.step()
            model.zero_grad()
            for schedule in schedulers:
                schedule["scheduler"].step()
    return model


@pytest.mark.parametrize("cut", CUTS)
def test_optimizers_that_are_made_anew_train_and_are_resumed(tmp_path: Path, cut: int) -> None:
    whole, _, again = cut_and_resumed(tmp_path, Switching, cut)
    assert_same(whole, switched_by_hand())
    assert_same(whole, again)


def test_an_optimizer_that_is_assigned_trains_and_is_refused_where_it_cannot_be_made_again(tmp_path: Path) -> None:
    class Assigning(Model):
        def on_epoch_start(self) -> None:
            if self.current_epoch == 1:
                self.trainer.optimizers[0] = torch.optim.Adam(self.head.parameters(), 0.01)

    whole, by_hand = Assigning(), Assigning()
    trainer = quiet_trainer(tmp_path, max_nb_epochs=2)
    trainer.fit(whole)
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    optimizer: Any = by_hand.configure_optimizers()
    for epoch in range(2):
        if epoch == 1:
            optimizer = torch.optim.Adam(by_hand.head.parameters(), 0.01)
        for batch in by_hand.tng_dataloader:
            by_hand.training_step(batch, 0).backward()
            optimizer.step()
            by_hand.zero_grad()
    assert_same(whole, by_hand)
    with pytest.raises(CheckpointError, match="reconfigure_optimizers"):
        quiet_trainer(tmp_path, max_nb_epochs=3, resume=tmp_path / "end.ckpt").fit(Assigning())


class Replacing(Model):
    """Takes other optimizers after the last batch of an epoch; a rate is halved with each epoch that trained with it"""

    by_assigning = False

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), 0.08)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]

    def on_batch_end(self) -> None:
        if self.global_step != NB_BATCHES - 1:
            return
        if self.by_assigning:
            self.trainer.optimizers.append(torch.optim.SGD(self.norm.parameters(), 0.001))
        else:
            self.trainer.reconfigure_optimizers()


@pytest.mark.parametrize(("by_assigning", "rate"), [(False, 0.04), (True, 0.02)])
def test_a_schedule_steps_where_its_own_optimizer_did(tmp_path: Path, by_assigning: bool, rate: float) -> None:
    model = type("Model", (Replacing,), {"by_assigning": by_assigning})()
    trainer = quiet_trainer(tmp_path, max_nb_epochs=2)
    trainer.fit(model)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(rate)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.lr_schedulers.append(3), "lr_schedulers can't be changed"),
        (lambda t: t.optimizers.clear(), "an empty list"),
        (lambda t: t.optimizers.append("Adam"), "'Adam'"),
    ],
)
def test_what_would_be_lost_is_refused(tmp_path: Path, change: Any, match: str) -> None:
    class Changing(Model):
        def on_epoch_start(self) -> None:
            change(self.trainer)

    with pytest.raises(MisconfigurationException, match=match):
        quiet_trainer(tmp_path).fit(Changing())


def test_optimizers_cannot_be_replaced_in_the_middle_of_a_step_or_outside_of_a_fit(tmp_path: Path) -> None:
    class Early(Model):
        def on_after_backward(self) -> None:
            self.trainer.reconfigure_optimizers()

    trainer = quiet_trainer(tmp_path)
    with pytest.raises(MisconfigurationException, match="in the middle of a step"):
        trainer.fit(Early())
    with pytest.raises(MisconfigurationException, match="a fit that is going on"):
        trainer.optimizers = []


# ---------------------------------------------------------------------------------------------- nesting
def test_a_trainer_inside_a_hook_gives_the_trainer_back(tmp_path: Path) -> None:
    class Nested(Model):
        def __init__(self) -> None:
            super().__init__()
            self.places: list[Any] = []

        def on_epoch_end(self) -> None:
            quiet_trainer(tmp_path).predict(self, dataloader=[points()])
            quiet_trainer(tmp_path).fit(Model())
            self.places.append((self.current_epoch, self.global_step))

    model = Nested()
    trainer = quiet_trainer(tmp_path, max_nb_epochs=3)
    trainer.fit(model)
    assert model.places == [(0, 5), (1, 10), (2, 15)]
    assert model.trainer is trainer


def test_two_fits_in_two_threads_are_an_error(tmp_path: Path) -> None:
    raised: list[BaseException] = []

    class Beside(Model):
        def on_epoch_start(self) -> None:
            def fit() -> None:
                try:
                    quiet_trainer(tmp_path / "other").fit(Model())
                except MisconfigurationException as error:
                    raised.append(error)

            thread = threading.Thread(target=fit)
            thread.start()
            thread.join()

    assert quiet_trainer(tmp_path).fit(Beside()) == 1
    assert "Use processes" in str(raised[0])
    assert quiet_trainer(tmp_path).fit(Model()) == 1  # the thread has left


def test_tensors_of_a_dataset_that_a_hook_changes_in_place(tmp_path: Path) -> None:
    class InPlace(Model):
        def __init__(self) -> None:
            super().__init__()
            self.data = TensorDataset(points())

        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            return super().training_step(data_batch[0], batch_nb)

        def on_epoch_end(self) -> None:
            self.data.tensors[0].mul_(1.1)

        @property
        def tng_dataloader(self) -> Any:
            return DataLoader(self.data, batch_size=2, shuffle=True)

    for cut in CUTS:
        whole, _, again = cut_and_resumed(tmp_path / str(cut), InPlace, cut)
        assert_same(whole, again)


class Weighs(Sampler[int]):
    """In the order of its weights, as they are when an epoch begins."""

    def __init__(self) -> None:
        self.weights: Any = None

    def __len__(self) -> int:
        return 10

    def __iter__(self) -> Iterator[int]:
        return iter(self.weights.argsort(stable=True).tolist())


def weights_of(epoch: int) -> Tensor:
    return torch.arange(10.0).mul(epoch + 1).sin()


@pytest.mark.parametrize("between", ["views", "in place", "others"])
def test_what_an_epoch_began_with_stays_that_over_several_starts(tmp_path: Path, between: str) -> None:
    """The weights change after the first batch: to a tensor that can't be written to, or in their own memory."""

    class Weighed(Model):
        def __init__(self) -> None:
            super().__init__()
            self.sampler, self.order = Weighs(), list[Tensor]()

        def on_epoch_start(self) -> None:
            if between == "in place" and self.trainer.progress.epoch:
                self.sampler.weights.copy_(weights_of(self.trainer.progress.epoch))
            else:
                self.sampler.weights = weights_of(self.trainer.progress.epoch)

        def on_batch_start(self, data_batch: Any) -> None:
            self.order.append(data_batch)

        def on_batch_end(self) -> None:
            if between == "views":
                self.sampler.weights = torch.zeros(()).expand(10)
            elif between == "in place":
                self.sampler.weights.add_(1).mul_(-1)
            else:
                self.sampler.weights = torch.zeros(10)

        @property
        def tng_dataloader(self) -> Any:
            return DataLoader(points(), batch_size=2, sampler=self.sampler)

    save, resumed = tmp_path / "cut.ckpt", {}
    for cut in (7, 8, 9, 13, 14, None):
        model = Weighed()
        trainer = quiet_trainer(tmp_path / str(cut), max_nb_epochs=NB_EPOCHS, max_nb_steps=cut, **resumed)
        trainer.fit(model)
        trainer.save_checkpoint(save)
        resumed = {"resume": save}
    by_hand = [points()[weights_of(epoch).argsort(stable=True)].reshape(5, 2, 4) for epoch in range(NB_EPOCHS)]
    assert torch.stack(model.order).equal(torch.cat(by_hand))
