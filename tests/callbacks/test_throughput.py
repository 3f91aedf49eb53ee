"""ThroughputMonitor, against a clock and a count of its own."""

import csv
import pickle
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, Run, ThroughputMonitor
from tests.launchers.ranks import in_ranks

NB, SIZE, SECONDS = 24, 4, 0.02


class Net(LightningModule):
    """Each step takes at least ``SECONDS``, and each batch of the validation ten times that."""

    def __init__(self, counts: bool = False, fails: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.1), nn.Linear(16, 1))
        self.counts, self.fails = counts, fails

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        if self.fails:
            raise ValueError("as planned")
        time.sleep(SECONDS)
        loss = self.net(data_batch[0]).pow(2).mean()
        return {"loss": loss, "loss_count": 7} if self.counts else {"loss": loss}

    def validation_step(self, data_batch: Any, batch_nb: int) -> Tensor:
        time.sleep(10 * SECONDS)
        return self.net(data_batch[0]).mean()

    def validation_end(self, outputs: list[Tensor]) -> dict[str, Tensor]:
        return {"val_loss": torch.stack(outputs).mean()}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)

    @property
    def tng_dataloader(self) -> Any:
        x = torch.randn(NB * SIZE - 1, 8, generator=torch.Generator().manual_seed(1))
        return DataLoader(TensorDataset(x), batch_size=SIZE, shuffle=True)

    @property
    def val_dataloader(self) -> Any:
        return DataLoader(TensorDataset(torch.ones(6, 8)), batch_size=2)


class Clock(Callback):
    """Seconds of each epoch's training, without the validation."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_epoch_start(self, run: Run) -> None:
        self.began = time.perf_counter()

    def on_evaluation_start(self, run: Run, stage: str, nb_batches: int | None) -> None:
        self.paused = time.perf_counter()

    def on_evaluation_end(self, run: Run, stage: str) -> None:
        if stage == "validation":
            self.began += time.perf_counter() - self.paused

    def on_epoch_end(self, run: Run) -> None:
        self.seconds.append(time.perf_counter() - self.began)


def fit(folder: Path, model: Net, *callbacks: Callback, **options: Any) -> Trainer:
    trainer = Trainer(
        default_save_path=str(folder), callbacks=callbacks, max_nb_epochs=2, seed=1, progress_bar=False, **options
    )
    trainer.fit(model)
    return trainer


def test_rates_are_those_of_a_clock_and_the_validation_is_not_in_them(tmp_path: Path) -> None:
    monitor, clock = ThroughputMonitor(), Clock()
    trainer = fit(tmp_path, Net(counts=True), monitor, clock)
    seconds = clock.seconds[-1]
    assert seconds < NB * SECONDS + 10 * SECONDS, "the machine is too busy for this test"
    expected = {
        "batches_per_second": NB / seconds,
        "samples_per_second": (NB * SIZE - 1) / seconds,
        "items_per_second": 7 * NB / seconds,
    }
    assert monitor.rates == pytest.approx(expected, rel=0.05)
    with open(Path(str(trainer.folder)) / "metrics.csv", newline="") as file:
        logged = [row for row in csv.DictReader(file) if row.get("batches_per_second")]
    assert len(logged) == 2
    assert float(logged[-1]["items_per_second"]) == pytest.approx(monitor.rates["items_per_second"], rel=1e-3)


def test_without_counts_or_a_length_there_are_the_other_rates(tmp_path: Path) -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return ((torch.ones(8),) for _ in range(6))

    class Endless(Net):
        @property
        def tng_dataloader(self) -> Any:
            return DataLoader(Stream(), batch_size=2)

    monitor = ThroughputMonitor()
    fit(tmp_path, Endless(), monitor)
    assert set(monitor.rates) == {"batches_per_second"}


def test_operations_are_counted_and_change_no_bit(tmp_path: Path) -> None:
    monitor, plain, counted = ThroughputMonitor(flops=True), Net(), Net()
    fit(tmp_path / "a", plain)
    fit(tmp_path / "b", counted, monitor)
    # two matrix products forward, and backward one for each weight and one for the hidden values
    by_hand = 2 * SIZE * (8 * 16 + 16 * 1) * 2 + 2 * SIZE * 16 * 1
    assert monitor.flops_per_batch == by_hand
    rates = monitor.rates
    assert rates["flops_per_second"] == pytest.approx(by_hand * rates["batches_per_second"])
    for a, b in zip(plain.parameters(), counted.parameters(), strict=True):
        assert torch.equal(a, b)


def test_after_a_step_that_fails_nothing_is_counted_any_more(tmp_path: Path) -> None:
    monitor = ThroughputMonitor(flops=True)
    with pytest.raises(ValueError, match="as planned"):
        fit(tmp_path, Net(fails=True), monitor)
    assert torch.utils._python_dispatch._len_torch_dispatch_stack() == 0


def test_without_operations_no_hook_is_called_in_a_step() -> None:
    def overrides(callback: Callback, name: str) -> bool:
        return getattr(callback, name).__func__ is not getattr(Callback, name)

    in_steps = ["on_batch_start", "on_batch_end", "on_optimizer_step"]
    assert not any(overrides(ThroughputMonitor(), name) for name in in_steps)
    copied = pickle.loads(pickle.dumps(ThroughputMonitor(flops=True)))
    assert overrides(copied, "on_batch_end")
    assert copied.on_batch_end.__self__ is copied


def test_a_fit_that_resumes_within_an_epoch_measures_its_rest(tmp_path: Path) -> None:
    class Rest(Callback):
        """What the monitor says of the epoch that was begun before, and what a clock does."""

        def on_fit_start(self, run: Run) -> None:
            self.began, self.rates = time.perf_counter(), dict[str, float]()
            self.first = run.progress.batch_nb

        def on_evaluation_start(self, run: Run, stage: str, nb_batches: int | None) -> None:
            self.paused = time.perf_counter()

        def on_evaluation_end(self, run: Run, stage: str) -> None:
            self.began += time.perf_counter() - self.paused

        def on_epoch_end(self, run: Run) -> None:
            if not self.rates:
                self.seconds, self.rates = time.perf_counter() - self.began, dict(monitor.rates)

    monitor, rest = ThroughputMonitor(flops=True), Rest()
    fit(tmp_path, Net(counts=True), ThroughputMonitor(), max_nb_steps=NB // 3, save_every_nb_batches=4)
    trainer = fit(tmp_path, Net(counts=True), monitor, rest, resume="auto")
    assert trainer.global_step == 2 * NB
    assert rest.first == NB // 3, "it began anew"
    nb = NB - NB // 3
    assert rest.rates["batches_per_second"] == pytest.approx(nb / rest.seconds, rel=0.05)
    assert rest.rates["samples_per_second"] == pytest.approx((nb * SIZE - 1) / rest.seconds, rel=0.05)
    assert rest.rates["items_per_second"] == pytest.approx(7 * nb / rest.seconds, rel=0.05)
    assert monitor.flops_per_batch


def of_two(folder: str) -> None:
    monitor = ThroughputMonitor(flops=True)
    trainer = fit(Path(folder), Net(counts=True), monitor, distributed_backend="ddp")
    if trainer.proc_rank:
        assert monitor.rates == {}
        return
    rates = monitor.rates
    assert rates["samples_per_second"] / rates["batches_per_second"] == pytest.approx((NB * SIZE - 1) / (NB // 2))
    assert rates["items_per_second"] / rates["batches_per_second"] == pytest.approx(14)
    assert rates["flops_per_second"] / rates["batches_per_second"] == pytest.approx(
        2 * (2 * SIZE * (8 * 16 + 16) * 2 + 2 * SIZE * 16)
    )


@pytest.mark.slow
def test_two_processes_count_together(tmp_path: Path) -> None:
    code = f"from tests.callbacks.test_throughput import of_two\nof_two({str(tmp_path)!r})"
    done = in_ranks(tmp_path, code)
    assert not done.returncode, done.stderr
