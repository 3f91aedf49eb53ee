"""Windows of a number of samples or tokens: as by hand, as one large batch, and the same through a cut."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import GradientAccumulationScheduler
from pytorch_lightning.errors import FitError, MisconfigurationException
from tests.equality.models import Classifier, Gan, assert_same, fit, samples
from tests.equality.test_resume import Killed, SaveAt, comparable, differences
from tests.faults import warm
from tests.faults.killing import digest, result_of, train_counted
from tests.recorder import quiet_trainer

SIZES = (3, 5, 2, 7, 1, 4, 2, 6, 30, 2)
"""Of the batches; with windows of 8 samples: 3 + 5, 2 + 7, 1 + 4 + 2 + 6, 30, 2."""
NB_STEPS = 5


def batches() -> list[Any]:
    x, y = samples(sum(SIZES))
    return list(zip(x.split(SIZES), y.split(SIZES), strict=True))


class Uneven(Classifier):
    tng_dataloader = property(lambda self: batches())  # type: ignore[assignment]


class Counted(Uneven):
    """Each loss is a mean over twice as many items as there are samples."""

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        loss = self.loss(data_batch)
        return {"loss": loss, "loss_count": torch.tensor(2 * len(data_batch[1]))}


def windows(size: int, virtual_ranks: int = 1) -> list[list[Any]]:
    """By hand: lists of batches that have ``size`` samples; a round of several virtual ranks is taken whole."""
    made, window = list[list[Any]](), list[Any]()
    for n, batch in enumerate(batches(), 1):
        window.append(batch)
        if n % virtual_ranks == 0 and sum(len(y) for _, y in window) >= size:
            made.append(window)
            window = []
    return made + [window] * bool(window)


def by_hand(model: Any, size: int, virtual_ranks: int = 1, nb_epochs: int = 3) -> Any:
    optimizer = model.configure_optimizers()
    for _ in range(nb_epochs):
        for window in windows(size, virtual_ranks):
            optimizer.zero_grad()
            for batch in window:
                (model.loss(batch) * len(batch[1])).backward()
            for parameter in model.parameters():
                parameter.grad.mul_(1 / sum(len(y) for _, y in window))
            optimizer.step()
    return model


@pytest.mark.parametrize("size", [1, 8, 9, 13, 1000])
def test_bit_for_bit_the_loop_by_hand(tmp_path: Path, size: int) -> None:
    expected = by_hand(Uneven(), size)
    assert_same(fit(tmp_path, Uneven(), accumulate_nb_samples=size), expected)
    assert_same(fit(tmp_path, Counted(), accumulate_nb_samples=2 * size), expected)


@pytest.mark.parametrize("size", [8, 20])
@pytest.mark.parametrize("virtual_ranks", [2, 4])
def test_over_all_virtual_ranks(tmp_path: Path, size: int, virtual_ranks: int) -> None:
    model = fit(tmp_path, Uneven(), accumulate_nb_samples=size, virtual_ranks=virtual_ranks)
    assert model.trainer.progress.nb_optimizer_steps == 3 * len(windows(size, virtual_ranks))
    expected = by_hand(Uneven(), size, virtual_ranks)
    for one, other in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_as_one_large_batch(tmp_path: Path) -> None:
    class Large(Classifier):
        @property
        def tng_dataloader(self) -> Any:
            each = [[torch.cat(parts) for parts in zip(*window, strict=True)] for window in windows(8)]
            assert [len(y) for _, y in each] == [8, 9, 13, 30, 2]
            return each

    expected = fit(tmp_path, Large())
    model = fit(tmp_path, Uneven(), accumulate_nb_samples=8)
    for one, other in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert model.trainer.progress.nb_optimizer_steps == 3 * NB_STEPS


def trained(folder: Path, **options: Any) -> Any:
    trainer = quiet_trainer(folder, max_nb_epochs=2, accumulate_nb_samples=8, **options)
    assert trainer.fit(Uneven(dropout=0.2)) == 1
    trainer.save_checkpoint(folder / "end.ckpt")
    found = comparable(torch.load(folder / "end.ckpt", weights_only=True))
    found["parts"].pop("callbacks")
    return found


@pytest.mark.parametrize("virtual_ranks", [1, 2])
@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5, 8, 9])
def test_the_same_through_a_cut(tmp_path: Path, cut: int, virtual_ranks: int) -> None:
    whole = trained(tmp_path / "whole", virtual_ranks=virtual_ranks)
    path = tmp_path / "cut.ckpt"
    cut = cut if virtual_ranks == 1 else cut // 2
    with pytest.raises(Killed):
        trained(tmp_path / "first", callbacks=[SaveAt(path, cut, kill=True)], virtual_ranks=virtual_ranks)
    torch.manual_seed(12345)
    assert differences(whole, trained(tmp_path / "rest", resume=path, virtual_ranks=virtual_ranks)) == []


def test_one_turn_per_optimizer(tmp_path: Path) -> None:
    class Two(Gan):
        tng_dataloader = property(lambda self: batches())  # type: ignore[assignment]

    model, expected = fit(tmp_path, Two(), nb_epochs=1, accumulate_nb_samples=8), Two()
    optimizers = expected.configure_optimizers()
    for window in windows(8):
        for i, optimizer in enumerate(optimizers):
            expected.zero_grad()
            for batch in window:
                (expected.loss(batch, i) * len(batch[1])).backward()
            gradients = [p.grad.clone() for p in optimizer.param_groups[0]["params"]]
            optimizer.param_groups[0]["given"] = gradients
        for optimizer in optimizers:
            group = optimizer.param_groups[0]
            for parameter, gradient in zip(group["params"], group.pop("given"), strict=True):
                parameter.grad = gradient.mul_(1 / sum(len(y) for _, y in window))
            optimizer.step()
    assert_same(model, expected)


def test_a_batch_that_ends_the_epoch_ends_the_window(tmp_path: Path) -> None:
    class Ends(Uneven):
        def on_batch_start(self, data_batch: Any) -> int | None:
            return -1 if self.trainer.batch_nb == 3 else None

    model = fit(tmp_path, Ends(), nb_epochs=2, accumulate_nb_samples=8)
    assert (model.trainer.progress.nb_optimizer_steps, model.trainer.global_step) == (4, 6)


def test_how_many_steps_is_not_known(tmp_path: Path) -> None:
    class Asking(Uneven):
        def configure_optimizers(self) -> Any:
            self.told = self.trainer.nb_total_steps
            return super().configure_optimizers()

    assert fit(tmp_path, Asking(), accumulate_nb_samples=8).told is None
    assert fit(tmp_path, Asking(), accumulate_nb_samples=8, max_nb_steps=4).told == 4


def test_rows_and_the_mean_loss_count_samples(tmp_path: Path) -> None:
    model = fit(tmp_path, Uneven(lambda p: torch.optim.SGD(p, 0.0)), nb_epochs=1, accumulate_nb_samples=8)
    assert model.trainer.global_step == len(SIZES)


def test_samples_are_counted_in_any_batch(tmp_path: Path) -> None:
    class Named(Uneven):
        @property
        def tng_dataloader(self) -> Any:
            return [{"id": torch.tensor(1), "of": {"x": x, "y": y}} for x, y in batches()]

        def loss(self, batch: Any) -> Tensor:
            return super().loss((batch["of"]["x"], batch["of"]["y"]) if isinstance(batch, dict) else batch)

    assert_same(fit(tmp_path, Named(), accumulate_nb_samples=8), by_hand(Uneven(), 8))

    class Packed(Uneven):
        tng_dataloader = property(lambda self: [pack_sequence([torch.ones(n, 6) for n in (4, 3)])] * 4)  # type: ignore[assignment]

        def loss(self, batch: Any) -> Tensor:
            return self(batch.data).pow(2).mean()

    model = fit(tmp_path, Packed(), nb_epochs=1, accumulate_nb_samples=4)
    assert model.trainer.progress.nb_optimizer_steps == 2

    class Words(Uneven):
        tng_dataloader = property(lambda self: [["a", "b"]] * 4)  # type: ignore[assignment]

        def loss(self, batch: Any) -> Tensor:
            return self(torch.ones(1, 6)).sum()

    with pytest.raises(FitError, match=r"can't count its samples\. Return their number"):
        fit(tmp_path, Words(), accumulate_nb_samples=4)


def test_some_counts_and_others_not_are_an_error(tmp_path: Path) -> None:
    class Mixed(Uneven):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            loss = self.loss(data_batch)
            return {"loss": loss, "loss_count": 3} if batch_nb == 3 else loss

    with pytest.raises(FitError, match="for some batches of a window and not for others"):
        fit(tmp_path, Mixed(), accumulate_nb_samples=8)


def test_what_it_does_not_work_with_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match="accumulate_grad_batches=2 both say when to step"):
        Trainer(accumulate_nb_samples=8, accumulate_grad_batches=2)
    with pytest.raises(MisconfigurationException, match="both say when to step"):
        Trainer(accumulate_nb_samples=8, callbacks=[GradientAccumulationScheduler({1: 2})])
    with pytest.raises(MisconfigurationException, match="accumulate_nb_samples doesn't work with LBFGS"):
        fit(tmp_path, Uneven(torch.optim.LBFGS), accumulate_nb_samples=8)

    class ByHand(Uneven):
        automatic_optimization = False

    with pytest.raises(MisconfigurationException, match="doesn't work with automatic_optimization=False"):
        fit(tmp_path, ByHand(), accumulate_nb_samples=8)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"uneven_batches": "repeat"}, {"distributed_backend": "fsdp"}], ids=str)
def test_what_it_does_not_work_with_in_several_processes_is_refused(tmp_path: Path, options: Any) -> None:
    ((name, value),) = options.items()
    with pytest.raises(MisconfigurationException, match=f"accumulate_nb_samples doesn't work with {name}={value!r}"):
        quiet_trainer(tmp_path, nb_processes=2, accumulate_nb_samples=8, **options).fit(Shuffled())


@pytest.mark.slow
def test_a_killed_run_ends_as_the_loop_by_hand(tmp_path: Path) -> None:
    options = {"accumulate_nb_samples": 8, "save_every_nb_batches": 1, "max_nb_epochs": 3}

    def run(folder: Path, fault: str) -> int | None:
        folder.mkdir(exist_ok=True)
        ended = warm.run(train_counted, str(folder), {"options": options}, output=folder / "said", fault=fault)
        assert ended.code in (0, -signal.SIGKILL), ended.said
        return ended.code

    assert run(tmp_path / "whole", "") == 0
    whole = result_of(tmp_path / "whole")
    hand = by_hand(Uneven(), 8)
    assert whole.state == digest([hand.state_dict(), hand.configure_optimizers().state_dict()])
    for fault in ("batch.run:2", "update.end:3", "batch.run:14", "writer.copied:5"):
        assert run(tmp_path / fault, fault) == -signal.SIGKILL
        run(tmp_path / fault, "update.begin:2")
        assert run(tmp_path / fault, "") == 0
        assert result_of(tmp_path / fault) == whole, fault


def sgd(parameters: Any) -> Any:
    return torch.optim.SGD(parameters, 0.1)


class Shuffled(Classifier):
    def __init__(self) -> None:
        super().__init__(sgd, dropout=0.2)

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(TensorDataset(*samples()), batch_size=2, shuffle=True)


@pytest.mark.slow
def test_two_processes_give_the_bits_of_one(tmp_path: Path) -> None:
    options: dict[str, Any] = {"accumulate_nb_samples": 7, "virtual_ranks": 2, "max_nb_epochs": 3, "seed": 4}
    one, two = Shuffled(), Shuffled()
    quiet_trainer(tmp_path, **options).fit(one)
    trainer = quiet_trainer(tmp_path, nb_processes=2, **options)
    trainer.fit(two)
    assert trainer.progress.nb_optimizer_steps == 3 * 3  # windows of 8, 8 and 2 samples
    assert_same(one, two)
