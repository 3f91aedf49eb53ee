"""Steps of three arguments: what a turn may keep for the next one, and who gets a third argument."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule
from pytorch_lightning.errors import FitError
from tests.recorder import quiet_trainer

BATCHES = [torch.randn(4, 3, generator=torch.Generator().manual_seed(n)) for n in range(6)]


class Gan(LightningModule):
    """The critic's turn makes the samples; the generator's turn uses them, and their graph."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.generator, self.critic = nn.Linear(3, 3), nn.Linear(3, 1)
        self.fake: Any = None

    def loss(self, batch: Any, optimizer_i: int) -> Any:
        if optimizer_i == 0:
            self.fake = self.generator(batch)
            return self.critic(self.fake.detach()).mean() - self.critic(batch).mean().tanh()
        return -self.critic(self.fake).mean() + (self.fake - batch).pow(2).mean()

    def training_step(self, data_batch: Any, batch_nb: int, optimizer_i: int) -> Any:
        return {"loss": self.loss(data_batch, optimizer_i)}

    def configure_optimizers(self) -> Any:
        return [SGD(self.critic.parameters(), 0.1), SGD(self.generator.parameters(), 0.1)]

    @property
    def tng_dataloader(self) -> Any:
        return BATCHES


class Backwards(Gan):
    """The generator comes first, and the critic doesn't detach what it made: its graph is used up by then."""

    def loss(self, batch: Any, optimizer_i: int) -> Any:
        if optimizer_i == 0:
            self.fake = self.generator(batch)
            return -self.critic(self.fake).mean() + (self.fake - batch).pow(2).mean()
        return self.critic(self.fake).mean() - self.critic(batch).mean().tanh()

    def configure_optimizers(self) -> Any:
        return super().configure_optimizers()[::-1]


def by_hand(kind: Any, size: int = 1) -> Any:
    """Plain torch: the gradients of each loss for the parameters of its optimizer alone."""
    model = kind()
    optimizers = model.configure_optimizers()
    for start in range(0, len(BATCHES), size):
        total: dict[Any, Any] = {}
        for batch in BATCHES[start : start + size]:
            for i, optimizer in enumerate(optimizers):
                own = optimizer.param_groups[0]["params"]
                gradients = torch.autograd.grad(model.loss(batch, i) / size, own, retain_graph=True)
                for parameter, gradient in zip(own, gradients, strict=True):
                    total[parameter] = total.get(parameter, 0) + gradient
                    parameter.grad = total[parameter]
                if size == 1:
                    optimizer.step()
        if size > 1:
            for optimizer in optimizers:
                optimizer.step()
    return model


def assert_close(model: Any, expected: Any) -> None:
    for (name, value), (_, other) in zip(model.named_parameters(), expected.named_parameters(), strict=True):
        torch.testing.assert_close(value, other, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("kind", [Gan, Backwards])
@pytest.mark.parametrize("size", [1, 3])
def test_a_turn_may_use_the_graph_of_the_one_before(tmp_path: Path, kind: Any, size: int) -> None:
    model = kind()
    quiet_trainer(tmp_path, accumulate_grad_batches=size).fit(model)
    assert_close(model, by_hand(kind, size))


@pytest.mark.parametrize("options", [{"virtual_ranks": 2}, {"nb_processes": 2}], ids=str)
@pytest.mark.parametrize("size", [1, 3])
def test_each_virtual_rank_keeps_its_own(tmp_path: Path, options: Any, size: int) -> None:
    model = Gan()
    quiet_trainer(tmp_path, accumulate_grad_batches=size, **options).fit(model)
    reference = Gan()
    optimizers = reference.configure_optimizers()
    for start in range(0, len(BATCHES), 2 * size):
        window = BATCHES[start : start + 2 * size]
        kept: dict[int, Any] = {}
        for i, optimizer in enumerate(optimizers):
            own = optimizer.param_groups[0]["params"]
            losses = []
            for n, batch in enumerate(window):
                reference.fake = kept.get(n)
                losses.append(reference.loss(batch, i))
                kept[n] = reference.fake
            for parameter, gradient in zip(own, torch.autograd.grad(sum(losses) / len(window), own), strict=True):
                parameter.grad = gradient
            if size == 1:
                optimizer.step()
        for optimizer in optimizers if size > 1 else ():
            optimizer.step()
    assert_close(model, reference)


def test_a_loss_that_cannot_train_its_optimizer_is_refused(tmp_path: Path) -> None:
    class Detached(Gan):
        def loss(self, batch: Any, optimizer_i: int) -> Any:
            return self.critic(batch).mean()

    with pytest.raises(FitError, match=r"loss for optimizer 1 that depends on none of its parameters.*batch_nb 0"):
        quiet_trainer(tmp_path).fit(Detached())


def test_what_is_frozen_between_two_epochs_stays(tmp_path: Path) -> None:
    class Partly(Gan):
        def on_epoch_start(self) -> None:
            self.generator.bias.requires_grad = self.current_epoch != 1
            self.before = self.generator.bias.detach().clone()

        def on_epoch_end(self) -> None:
            moved.append(not torch.equal(self.before, self.generator.bias))

    moved: list[bool] = []
    quiet_trainer(tmp_path, max_nb_epochs=3).fit(Partly())
    assert moved == [True, False, True]


# ---------------------------------------------------------------------------------------------- the third argument
class Layers(LightningModule):
    nb_optimizers, nb_loaders = 1, 1

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 1), nn.Linear(3, 1)
        self.seen: list[Any] = []

    def note(self, *arguments: Any) -> Any:
        self.seen.append(arguments)
        return self.a(arguments[1][0]).mean() + self.b(arguments[1][0]).mean()

    def configure_optimizers(self) -> Any:
        return [SGD(layer.parameters(), 0.1) for layer in (self.a, self.b)[: self.nb_optimizers]]

    def loader(self) -> Any:
        return DataLoader(TensorDataset(torch.ones(4, 3)), batch_size=2)

    @property
    def tng_dataloader(self) -> Any:
        return self.loader()

    @property
    def val_dataloader(self) -> Any:
        loaders = [self.loader() for _ in range(self.nb_loaders)]
        return loaders if self.nb_loaders > 1 else loaders[0]

    def validation_end(self, outputs: Any) -> Any:
        self.seen.append(("end", [isinstance(output, list) for output in outputs]))
        return {}


class Star(Layers):
    def training_step(self, *args: Any) -> Any:
        return {"loss": self.note("train", *args)}

    def validation_step(self, *args: Any) -> Any:
        self.note("val", *args)


class Default(Layers):
    def training_step(self, b: Any, i: int, third: Any = "own") -> Any:
        return {"loss": self.note("train", b, i, third)}

    def validation_step(self, b: Any, i: int, third: Any = "own") -> Any:
        self.note("val", b, i, third)


class Rest(Layers):
    def training_step(self, b: Any, i: int, *rest: Any, flag: bool = False) -> Any:
        return {"loss": self.note("train", b, i, *rest)}

    def validation_step(self, b: Any, i: int, *rest: Any) -> Any:
        self.note("val", b, i, *rest)


@pytest.mark.parametrize(("kind", "alone"), [(Star, ()), (Default, ("own",)), (Rest, ())])
@pytest.mark.parametrize("nb", [1, 2])
def test_a_third_argument_that_is_optional_is_filled_where_there_are_several(
    tmp_path: Path, kind: Any, alone: Any, nb: int
) -> None:
    class Model(kind):  # type: ignore[misc]
        nb_optimizers = nb_loaders = nb

    model = Model()
    quiet_trainer(tmp_path, nb_sanity_val_steps=0).fit(model)
    third = [alone] if nb == 1 else [(0,), (1,)]
    train = [(batch_nb, *extra) for batch_nb in range(2) for extra in third]
    val = [(batch_nb, *extra) for extra in third for batch_nb in range(2)]
    assert [call[2:] for call in model.seen if call[0] == "train"] == train
    assert [call[2:] for call in model.seen if call[0] == "val"] == val
    assert ("end", [nb > 1] * 2) in model.seen


def test_a_list_of_batches_is_one_loader_for_a_step_with_a_parameter_of_its_own(tmp_path: Path) -> None:
    class Listed(Default):
        @property
        def val_dataloader(self) -> Any:
            return [[torch.ones(2, 3)], [torch.ones(2, 3)]]

    model = Listed()
    quiet_trainer(tmp_path, nb_sanity_val_steps=0).fit(model)
    assert [call[2:] for call in model.seen if call[0] == "val"] == [(0, "own"), (1, "own")]


def test_a_second_optimizer_that_comes_later_gets_its_number(tmp_path: Path) -> None:
    class Growing(Star):
        def on_epoch_end(self) -> None:
            self.nb_optimizers = 2
            if self.current_epoch == 0:
                self.trainer.reconfigure_optimizers()

    model = Growing()
    quiet_trainer(tmp_path, max_nb_epochs=2, nb_sanity_val_steps=0).fit(model)
    numbers = [call[2:] for call in model.seen if call[0] == "train"]
    assert numbers == [(0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1)]
