"""Programs whose ``training_step`` makes its own steps: killed by SIGKILL, between steps too, and on two processes."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning.errors import FitError, MisconfigurationException
from tests.faults import warm
from tests.faults.killing import result_of, train_manual
from tests.recorder import quiet_trainer
from tests.steps.manual_models import ActorCritic, Points, Sam, Wgan, train_by_hand

OPTIONS = {"options": {"save_every_nb_batches": 1, "max_nb_epochs": 2}}
FAULTS = ("update.end:3", "update.begin:20", "batch.run:6", "batch.run:9", "epoch.end:1", "writer.copied:4")


def killed(folder: Path, kind: Any, fault: str) -> int:
    folder.mkdir(exist_ok=True)
    ended = warm.run(train_manual, str(folder), OPTIONS, kind.__name__, output=folder / "said", fault=fault)
    assert ended.code in (0, -signal.SIGKILL), ended.said
    return ended.code


@pytest.mark.parametrize("kind", [Wgan, Sam, ActorCritic])
def test_a_killed_run_ends_with_the_same_bits(tmp_path: Path, kind: Any) -> None:
    assert killed(tmp_path / "whole", kind, "") == 0
    whole, nb_killed = result_of(tmp_path / "whole"), 0
    for n, fault in enumerate(FAULTS):
        folder = tmp_path / str(n)
        nb_killed += killed(folder, kind, fault) != 0
        nb_killed += killed(folder, kind, FAULTS[n - 1]) != 0
        while killed(folder, kind, "") != 0:
            pass
        assert result_of(folder) == whole, fault
    assert nb_killed >= 8


def two(folder: Path, model: Any, **options: Any) -> Any:
    few: dict[str, Any] = {"nb_processes": 2, "process_timeout_minutes": 0.5, "max_nb_epochs": 2}
    trainer = quiet_trainer(folder, **{**few, **options})
    trainer.fit(model)
    return trainer


@pytest.mark.parametrize("kind", [Wgan, Sam, ActorCritic])
def test_two_processes_are_a_loop_of_two_replicas(tmp_path: Path, kind: Any) -> None:
    model, expected = kind(), train_by_hand(kind, 2, nb=2)
    trainer = two(tmp_path, model)
    assert all(map(torch.equal, model.parameters(), expected.parameters()))
    assert trainer.global_step == 8


class Stops(ActorCritic):
    """The actor steps once an epoch, and a checkpoint is asked for where its gradients wait."""

    nb_batches = 10

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        value_loss, policy_loss = self.play(data_batch[0])
        self.manual_step(1, loss=value_loss)
        self.manual_backward(policy_loss / 5)
        if batch_nb == 1:
            self.manual_step(0)

    def on_batch_end(self) -> None:
        if self.global_step == 2 and self.trainer.resume is None:
            self.trainer.save_checkpoint("cut.ckpt")


def test_gradients_that_wait_in_two_processes_are_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    whole, resumed = Stops(), Stops()
    two(tmp_path, whole)
    state = torch.load("cut.ckpt", weights_only=False)["parts"]["gradients"]["by_hand"]
    assert len(state) == 2
    assert not torch.equal(state[0][0], state[1][0]), "each process has its own"
    two(tmp_path, resumed, resume=tmp_path / "cut.ckpt")
    assert all(map(torch.equal, whole.parameters(), resumed.parameters()))
    with pytest.raises(MisconfigurationException, match="2 virtual ranks on 1 process"):
        quiet_trainer(tmp_path, resume=tmp_path / "cut.ckpt").fit(Stops())


class Uneven(Sam):
    """One process makes a step more."""

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        super().training_step(data_batch, batch_nb)
        if batch_nb == 1 and self.trainer.proc_rank == 1:
            self.manual_step(loss=self.loss(data_batch[0]))


class Crossed(Wgan):
    """The processes step different optimizers."""

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        i = self.trainer.proc_rank
        self.manual_step(i, loss=(self.critic_loss if i else self.generator_loss)(data_batch[0]))


class PlainSteps(Sam):
    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        self.loss(data_batch[0]).backward()
        self.trainer.optimizers[0].step()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Uneven, "process 0 is at the end of the batch, process 1 is at a step of optimizer 0"),
        (Crossed, "process 0 is at a step of optimizer 0, process 1 is at a step of optimizer 1"),
        (PlainSteps, "with several processes gradients must be exchanged"),
    ],
)
def test_processes_that_make_different_steps_get_an_error(tmp_path: Path, kind: Any, words: str) -> None:
    with pytest.raises(FitError, match=words):
        two(tmp_path, kind())


class Odd(Sam):
    nb_batches = 7


class Streamed(Odd):
    """The same without a length."""

    @property
    def tng_dataloader(self) -> Any:
        return iter(list(super().tng_dataloader))


def test_a_short_last_round(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match=r"7 batches for 2 processes.*uneven_batches='drop'"):
        two(tmp_path, Odd())
    with pytest.raises(MisconfigurationException, match="uneven_batches='repeat'"):
        two(tmp_path, Sam(), uneven_batches="repeat")
    model = Odd()
    two(tmp_path, model, uneven_batches="drop")
    expected = train_by_hand(Odd, 2, nb=2)
    assert all(map(torch.equal, model.parameters(), expected.parameters()))


class Partly(Points):
    """A layer that only process 1 uses, buffers, and weights that begin differently."""

    def __init__(self) -> None:
        super().__init__()
        self.always, self.sometimes, self.norm = nn.Linear(2, 1), nn.Linear(2, 1), nn.BatchNorm1d(2)

    def on_fit_start(self) -> None:
        self.rank = self.trainer.proc_rank

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        x = self.norm(data_batch[0])
        loss = self.always(x).pow(2).mean() + (self.sometimes(x).pow(2).mean() if self.rank else 0.0)
        self.manual_step(loss=loss)
        return {"loss": loss}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(TensorDataset(torch.arange(32.0).reshape(16, 2)), batch_size=4)


def test_a_gradient_that_one_process_has_is_half_of_it_in_both(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = Partly()
    twin = Partly()
    twin.load_state_dict(model.state_dict())
    trainer = two(tmp_path, model, max_nb_epochs=1)
    (x0,), (x1,), (x2,), (x3,) = twin.tng_dataloader
    optimizer, losses = twin.configure_optimizers(), []
    for first, second in ((x0, x1), (x2, x3)):
        optimizer.zero_grad()
        one = twin.norm(first)
        # each process has its own buffers, and those of the first one are kept
        other = nn.functional.batch_norm(second, None, None, twin.norm.weight, twin.norm.bias, training=True)
        loss = twin.always(one).pow(2).mean() + twin.always(other).pow(2).mean() + twin.sometimes(other).pow(2).mean()
        (loss / 2).backward()
        optimizer.step()
        losses.append(float(loss.detach()) / 2)
    for mine, theirs in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs)
    assert trainer.metrics["tng_loss"] == pytest.approx(sum(losses) / 2, rel=1e-5)


class Centred(Points):
    """The loss depends on a buffer, which each process changes by its own batch."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.ones(2))
        self.register_buffer("mean", torch.zeros(2))

    def loss(self, x: Any) -> Any:
        return ((x - self.mean) * self.a - 1).pow(2).mean()

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        (x,) = data_batch
        self.manual_step(loss=self.loss(x))
        self.mean.lerp_(x.mean(0), 0.5)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([self.a], 0.1)


def test_all_processes_go_on_with_the_buffers_of_the_first(tmp_path: Path) -> None:
    model, hand = Centred(), Centred()
    two(tmp_path, model)
    optimizer, batches = hand.configure_optimizers(), [x for (x,) in hand.tng_dataloader]
    for first, second in 2 * list(zip(batches[::2], batches[1::2], strict=True)):
        optimizer.zero_grad()
        ((hand.loss(first) + hand.loss(second)) / 2).backward()
        optimizer.step()
        hand.mean.lerp_(first.mean(0), 0.5)
    torch.testing.assert_close(model.state_dict(), hand.state_dict())


COUNTS = (4, 1, 3, 0, 4, 2, 1, 3)
"""Of the batches. The sixth one gives no loss."""


class OfAnEpoch(Points):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.ones(2))

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        x, number = data_batch
        self.manual_step(loss=(x * self.a).pow(2).mean())
        given = {"loss_count": COUNTS[number], "prog_epoch": {"number": number, "x": x.mean(), "first": x[0, :1]}}
        return given if number == 5 else {**given, "loss": x.sum()}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([self.a], 0.1)

    @property
    def tng_dataloader(self) -> Any:
        return [(x, torch.tensor(n)) for n, (x,) in enumerate(super().tng_dataloader)]


@pytest.mark.parametrize("nb", [1, 2])
def test_metrics_of_an_epoch_are_weighted_by_what_each_process_counts(tmp_path: Path, nb: int) -> None:
    trainer = two(tmp_path, OfAnEpoch(), nb_processes=nb)
    each = [(COUNTS[n], x.double(), n) for x, n in OfAnEpoch().tng_dataloader]
    total = sum(COUNTS)
    assert trainer.metrics["number"] == sum(nb * n for nb, _, n in each) / total
    assert trainer.metrics["x"] == pytest.approx(sum(nb * float(x.mean()) for nb, x, _ in each) / total)
    assert trainer.metrics["first"] == pytest.approx(sum(nb * float(x[0, 0]) for nb, x, _ in each) / total)
    with_loss = [(nb, float(x.sum())) for nb, x, n in each if n != 5]
    expected = sum(nb * loss for nb, loss in with_loss) / sum(nb for nb, _ in with_loss)
    assert trainer.metrics["tng_loss_epoch"] == pytest.approx(expected, rel=1e-5)


def test_fsdp_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match="doesn't work with distributed_backend='fsdp'"):
        two(tmp_path, Sam(), distributed_backend="fsdp")
