"""``find_lr`` and ``find_batch_size``: what they find, by a loop by hand, and that nothing is left of them."""

import copy
import hashlib
import os
import random
import threading
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.errors import MisconfigurationException
from pytorch_lightning.seeding import order_scope


class Line(LightningModule):
    """One layer on data that a line explains; a quarter of it is held out."""

    def __init__(self, batch_size: int = 8) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.net = nn.Linear(4, 1)
            self.x = torch.randn(200, 4)
        self.y = self.x.sum(dim=1, keepdim=True)
        self.batch_size = batch_size
        self.nb_calls, self.total = 0, torch.zeros(())

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        x, y = data_batch
        self.nb_calls += 1
        self.total += 1
        return {"loss": (self.net(x) - y).pow(2).mean()}

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        raise AssertionError("a trial validates nothing")

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.net.parameters(), 0.01)

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(TensorDataset(self.x, self.y), self.batch_size, shuffle=True)

    @property
    def val_dataloader(self) -> Any:
        return [(self.x, self.y)]


class Dropping(Line):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))  # type: ignore[assignment]

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.net.parameters(), 0.01)
        return [optimizer], [torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=5)]


class Counted(Dataset[Any]):
    """Data of the program's own, with a count and a generator."""

    def __init__(self) -> None:
        self.nb_fetched, self.draws = 0, torch.Generator().manual_seed(4)

    def __len__(self) -> int:
        return 64

    def __getitem__(self, i: int) -> Any:
        self.nb_fetched += 1
        x = torch.full((4,), float(i % 7)) + torch.rand(4, generator=self.draws)
        return x, x.sum().reshape(1)


DATA = Counted()


class OfTheProgram(Line):
    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(DATA, self.batch_size)


class Cached(Line):
    @property
    def tng_dataloader(self) -> Any:
        if self._tng_dataloader is None:
            self._tng_dataloader = DataLoader(TensorDataset(self.x, self.y), self.batch_size, shuffle=True)
        return self._tng_dataloader


class Holding(Line):
    """Holds its data, a result with a graph, and an optimizer that it has stepped."""

    def __init__(self) -> None:
        super().__init__()
        self.data = Counted()
        self.result = self.net(self.x).mean()
        self.own = torch.optim.Adam(self.net.parameters())
        self.net(self.x).sum().backward()
        self.own.step()

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(self.data, self.batch_size)


MODELS = [Line, Dropping, OfTheProgram, Cached, Holding]


def trainer_in(folder: Path, **options: Any) -> Trainer:
    """One whose own options must not matter to a trial."""
    return Trainer(
        default_save_path=folder,
        seed=3,
        max_nb_epochs=1,
        progress_bar=False,
        checkpoint_callback=ModelCheckpoint(folder / "kept"),
        early_stop_callback=EarlyStopping("val_loss"),
        resume="auto",
        save_every_nb_batches=1,
        **options,
    )


def digest(value: Any) -> str:
    """Everything reachable in ``value``, to the bit."""
    if isinstance(value, Tensor):
        return f"{value.dtype}{tuple(value.shape)}{hashlib.sha1(value.detach().numpy().tobytes()).hexdigest()}"
    if isinstance(value, dict):
        return str({str(k): digest(v) for k, v in value.items()})
    if isinstance(value, (list, tuple)):
        return str([digest(v) for v in value])
    if isinstance(value, torch.Generator):
        return digest(value.get_state())
    if isinstance(value, (nn.Module, Dataset, DataLoader)):
        return digest({k: v for k, v in vars(value).items() if not k.startswith("__")})
    if isinstance(value, torch.optim.Optimizer):
        return digest(value.state_dict())
    return repr(value)


def everything(model: Any, trainer: Trainer, folder: Path) -> Any:
    streams = [digest(torch.get_rng_state()), random.getstate(), digest(np.random.get_state()[1:])]  # type: ignore[index]
    files = sorted(os.listdir(folder))
    gradients = [p.grad if p.grad is None else digest(p.grad) for p in model.parameters()]
    options = {name: repr(value) for name, value in trainer.options.items()}
    return digest(model), gradients, digest(DATA), streams, files, options, trainer.module, trainer.optimizers


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("finder", ["find_lr", "find_batch_size"])
@pytest.mark.parametrize("kind", MODELS)
def test_nothing_is_left(tmp_path: Path, kind: Any, finder: str, fails: bool) -> None:
    model, trainer = kind(), trainer_in(tmp_path)
    before = everything(model, trainer, tmp_path)
    options: dict[str, Any] = {"nb_steps": 6} if finder == "find_lr" else {"most": 8}
    if fails:
        model.__class__ = type("Broken", (kind,), {"training_step": broken})
        with pytest.raises(KeyError, match="broken"):
            getattr(trainer, finder)(model, **options)
        model.__class__ = kind
    else:
        found = getattr(trainer, finder)(model, **options)
        assert found.rows
    assert everything(model, trainer, tmp_path) == before


def broken(self: Any, data_batch: Any, batch_nb: int) -> Any:
    if self.nb_calls == 2:
        raise KeyError("broken")
    self.nb_calls += 1
    return {"loss": self.net(data_batch[0]).mean()}


def test_a_passed_loader_is_left_too(tmp_path: Path) -> None:
    data = Counted()
    loader = DataLoader(data, 4, shuffle=True, generator=torch.Generator().manual_seed(1))
    before = digest([data, loader.generator])
    found = trainer_in(tmp_path).find_lr(Line(), loader, nb_steps=5)
    assert len(found.rows) == 5
    assert digest([data, loader.generator]) == before


DRAWS = torch.Generator().manual_seed(3)


class DrawnByItsLoader(Line):
    """Only the code of the property draws from this generator."""

    @property
    def tng_dataloader(self) -> Any:
        data = TensorDataset(torch.randn(24, 4, generator=DRAWS), torch.zeros(24, 1))
        return DataLoader(data, batch_size=self.batch_size)


@pytest.mark.parametrize("finder", ["find_lr", "find_batch_size"])
def test_what_the_code_of_a_loader_draws_from_is_left(tmp_path: Path, finder: str) -> None:
    before = DRAWS.get_state()
    trainer = Trainer(False, default_save_path=tmp_path, progress_bar=False, print_weights_summary=False)
    getattr(trainer, finder)(DrawnByItsLoader(), nb_steps=2)
    assert torch.equal(DRAWS.get_state(), before)


def test_the_range_is_that_of_a_loop_by_hand(tmp_path: Path) -> None:
    model, nb = Line(), 20
    found = trainer_in(tmp_path).find_lr(model, min_lr=1e-4, max_lr=1e-1, nb_steps=nb)
    twin, rows = copy.deepcopy(model), []
    optimizer = twin.configure_optimizers()
    batches: list[Any] = []
    for epoch in range(2):
        with order_scope(3, epoch):
            batches += list(twin.tng_dataloader)
    for i in range(nb):
        rate = 1e-4 * (1e-1 / 1e-4) ** (i / (nb - 1))
        optimizer.param_groups[0]["lr"] = rate
        loss = twin.training_step(batches[i], i)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rows.append((rate, loss.item()))
    assert [row["lr"] for row in found.rows] == pytest.approx([rate for rate, _ in rows], rel=1e-9)
    assert [row["loss"] for row in found.rows] == pytest.approx([loss for _, loss in rows], rel=1e-5)
    mean, expected = 0.0, []
    for i, (_, loss) in enumerate(rows):
        mean = 0.9 * mean + 0.1 * loss
        expected.append(mean / (1 - 0.9 ** (i + 1)))
    assert [row["smoothed"] for row in found.rows] == pytest.approx(expected, rel=1e-5)


def test_the_suggestion_trains_and_a_rate_that_diverges_ends_the_test(tmp_path: Path) -> None:
    model = Line()
    found = trainer_in(tmp_path).find_lr(model, min_lr=1e-5, max_lr=100.0)
    assert len(found.rows) < 100  # it went up before
    assert found.suggestion is not None
    assert 1e-3 < found.suggestion < 0.5  # gradient descent on this diverges above about 1
    losses = []
    for rate in (found.suggestion, found.rows[0]["lr"]):
        twin = copy.deepcopy(model)
        optimizer = torch.optim.SGD(twin.net.parameters(), rate)
        for _ in range(50):
            loss = twin.training_step((twin.x, twin.y), 0)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[0] < 0.5 * losses[1]


def test_groups_keep_their_ratios_and_windows_are_steps(tmp_path: Path) -> None:
    class Two(Line):
        rates: list[Any] = []

        def configure_optimizers(self) -> Any:
            groups = [{"params": [self.net.weight], "lr": 0.1}, {"params": [self.net.bias], "lr": 0.02}]
            return {"optimizer": torch.optim.SGD(groups), "lr_scheduler": None}

        def on_batch_end(self) -> None:
            self.rates.append([group["lr"] for group in self.trainer.optimizers[0].param_groups])

    found = trainer_in(tmp_path, accumulate_grad_batches=3).find_lr(Two(), nb_steps=4, min_lr=1e-3)
    assert len(found.rows) == 4
    assert len(Two.rates) == 12
    assert [rate[0] for rate in Two.rates[::3]] == pytest.approx([row["lr"] for row in found.rows])
    assert all(second == pytest.approx(0.2 * first) for first, second in Two.rates)


@pytest.mark.neighbours
def test_a_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason='matplotlib isn\'t installed: pip install -e ".[neighbours]"')
    found = trainer_in(tmp_path).find_lr(Line(), min_lr=1e-5, max_lr=10.0)
    found.plot().savefig(tmp_path / "range.png")
    assert (tmp_path / "range.png").stat().st_size > 5000


# ------------------------------------------------------------------------------------------ batch sizes
def test_sizes_double_up_to_the_data(tmp_path: Path) -> None:
    found = trainer_in(tmp_path).find_batch_size(Line())
    assert [row["batch_size"] for row in found.rows] == [2, 4, 8, 16, 32, 64, 128, 200]
    assert all(row["fits"] and row["samples_per_second"] > 0 for row in found.rows)
    assert found.suggestion == 200


class Large(Line):
    """Two megabytes for each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.batch_size = 4
        self.__dict__["tried"] = []

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        x, y = data_batch
        made = x.new_ones(len(x), 512 * 1024)  # held until the backward pass
        return {"loss": ((self.net(x) - y) * made).pow(2).mean()}

    @property
    def tng_dataloader(self) -> Any:
        x = torch.randn(4000, 4)
        return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), self.batch_size)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="for Linux")
def test_a_limit_of_memory_is_kept(tmp_path: Path) -> None:
    before = next(
        1024 * int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in line
    )
    limit = (before + 800e6) / 1e9
    found = trainer_in(tmp_path).find_batch_size(Large(), memory_gb=limit)
    assert found.suggestion is not None
    run = [row for row in found.rows if row["peak_bytes"] is not None]
    assert max(row["peak_bytes"] for row in run) < 1.1 * limit * 1e9  # none was run that would need much more
    refused = [row["batch_size"] for row in found.rows if not row["fits"]]
    assert found.suggestion < min(refused) <= 1.2 * found.suggestion + 2
    assert 16 <= found.suggestion <= 256  # 800 MB, of which a sample needs from 4 to 12


@pytest.mark.slow
def test_running_out_of_memory_is_a_size_that_does_not_fit(tmp_path: Path) -> None:
    class Limited(Line):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            if len(data_batch[0]) > 21:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return super().training_step(data_batch, batch_nb)

    found = trainer_in(tmp_path).find_batch_size(Limited())
    assert [(row["batch_size"], row["fits"]) for row in found.rows] == [
        (2, True), (4, True), (8, True), (16, True), (32, False), (24, False), (20, True), (22, False), (21, True),
    ]  # fmt: skip
    assert found.suggestion == 21


def test_hparams_hold_the_size(tmp_path: Path) -> None:
    class OfHparams(Line):
        def __init__(self, hparams: Any) -> None:
            super().__init__()
            del self.batch_size
            self.hparams = hparams

        @property
        def tng_dataloader(self) -> Any:
            size = self.hparams["size"] if isinstance(self.hparams, dict) else self.hparams.size
            return DataLoader(TensorDataset(self.x, self.y), size)

    for hparams in ({"size": 4}, Namespace(size=4)):
        found = trainer_in(tmp_path).find_batch_size(OfHparams(hparams), "size", most=16)
        assert found.suggestion == 16
        assert hparams in ({"size": 4}, Namespace(size=4))


# ------------------------------------------------------------------------------------------ refused
def test_what_cannot_be_tried(tmp_path: Path) -> None:
    class Idle(Line):
        @property
        def tng_dataloader(self) -> Any:
            return DataLoader(TensorDataset(self.x, self.y), 8)

    class ByHand(Line):
        automatic_optimization = False

    class Two(Line):
        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD([p], 0.1) for p in self.net.parameters()]

    class Open(Line):
        def __init__(self) -> None:
            super().__init__()
            self.lock = threading.Lock()

    trainer = trainer_in(tmp_path)
    cases: list[tuple[Any, str]] = [
        (lambda: trainer.find_batch_size(Line(), "size"), "attribute='size', which Line doesn't have"),
        (lambda: trainer.find_batch_size(Idle()), "set batch_size to 2, and a batch had 8 samples"),
        (lambda: trainer.find_lr(ByHand()), "find_lr steps the optimizer itself"),
        (lambda: trainer.find_lr(Two()), "find_lr tries one optimizer; received 2"),
        (lambda: trainer.find_lr(Line(), min_lr=1.0, max_lr=0.1), "0 < min_lr < max_lr"),
        (lambda: trainer.find_lr(Open()), "trains a copy of Open, which can't be copied"),
        (lambda: Trainer(nb_processes=2).find_lr(Line()), "find_lr runs in one process"),
    ]
    for call, words in cases:
        with pytest.raises(MisconfigurationException, match=words):
            call()
