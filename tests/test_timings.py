"""Where the time of a fit goes."""

import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pytorch_lightning import LightningModule
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.timings import FIRST_SAMPLE, PHASES, SAMPLE_EVERY, Timings, hint
from tests.recorder import quiet_trainer

NB = 60


def work(seconds: float) -> None:
    """Keep the processor busy."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


class Slow(Dataset[Any]):
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __len__(self) -> int:
        return NB

    def __getitem__(self, index: int) -> Any:
        work(self.seconds)
        return torch.ones(3)


class SlowBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, seconds: float) -> Any:
        ctx.seconds = seconds
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        work(ctx.seconds)
        return gradient, None


class SlowSGD(torch.optim.SGD):
    seconds = 0.0

    def step(self, closure: Any = None) -> Any:
        work(self.seconds)
        return super().step(closure)


class Spending(LightningModule):
    """Spends known times in each phase."""

    def __init__(self, **seconds: float) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.spend = {**dict.fromkeys(PHASES, 0.0), **seconds}

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        work(self.spend["forward"])
        loss = self.layer(data_batch).pow(2).mean()
        return {"loss": SlowBackward.apply(loss, self.spend["backward"])}

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        work(self.spend["validation"])

    def validation_end(self, outputs: Any) -> Any:
        return {"val_loss": 1.0}

    def update_tng_log_metrics(self, logs: Any) -> Any:
        work(self.spend["logging"])
        return logs

    def on_save_checkpoint(self, checkpoint: Any) -> None:
        work(self.spend["saving"])

    def configure_optimizers(self) -> Any:
        optimizer = SlowSGD(self.parameters(), 0.01)
        optimizer.seconds = self.spend["optimizer"]
        return optimizer

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(Slow(self.spend["data"]), 1)

    @property
    def val_dataloader(self) -> Any:
        return [torch.ones(1)] * 10


@pytest.mark.parametrize(
    ("phase", "each", "times"),
    [
        ("data", 0.004, NB),
        ("forward", 0.004, NB),
        ("backward", 0.004, NB),
        ("optimizer", 0.004, NB),
        ("validation", 0.02, 10),
        ("logging", 0.03, NB // 10),
        ("saving", 0.2, 1),
    ],
)
def test_time_is_given_to_the_phase_that_spends_it(tmp_path: Path, phase: str, each: float, times: int) -> None:
    trainer = quiet_trainer(tmp_path, checkpoint_callback=ModelCheckpoint(tmp_path / "kept"))
    trainer.fit(Spending(**{phase: each}))
    seconds = trainer.timings.seconds
    assert seconds[phase] >= 0.8 * each * times
    # the first saves look for generators, which takes longer than what is spent here where a machine is busy
    left_out = {"start", "other", "saving"} - {phase}
    assert max((p for p in seconds if p not in left_out), key=seconds.__getitem__) == phase
    assert sum(seconds.values()) == pytest.approx(trainer.timings.total, abs=1e-3)
    assert list(seconds) == [name for name in PHASES if name in seconds]


def test_a_fit_too_short_to_be_sampled_says_only_what_was_measured(tmp_path: Path) -> None:
    trainer = quiet_trainer(tmp_path, max_nb_steps=FIRST_SAMPLE)
    assert trainer.timings is None
    trainer.fit(Spending())
    assert not {"forward", "backward", "optimizer"} & set(trainer.timings.seconds)


def test_one_window_in_fifty_is_sampled_and_trains_as_all_others_do(tmp_path: Path) -> None:
    def weights(sampled: bool) -> list[Tensor]:
        torch.manual_seed(0)
        model = Spending()
        loop = pytest.MonkeyPatch()
        if not sampled:
            loop.setattr("pytorch_lightning.trainer.loop.FIRST_SAMPLE", -1)
        try:
            trainer = quiet_trainer(tmp_path, max_nb_epochs=2, accumulate_grad_batches=2, precision="16")
            trainer.fit(model)
        finally:
            loop.undo()
        assert ("forward" in trainer.timings.seconds) is sampled
        return [p.detach().clone() for p in model.parameters()]

    assert 2 * NB / 2 > SAMPLE_EVERY + FIRST_SAMPLE - 1
    for a, b in zip(weights(True), weights(False), strict=True):
        assert torch.equal(a, b)


def test_waiting_costs_under_a_microsecond_a_batch() -> None:
    def drain(iterator: Any) -> float:
        start = time.process_time()
        for _ in iterator:
            pass
        return time.process_time() - start

    n = 20_000
    plain = min(drain(iter(range(n))) for _ in range(5))
    timed = min(drain(Timings().waiting(lambda: iter(range(n)))) for _ in range(5))
    assert (timed - plain) / n < 2e-6  # 0.2 on a quiet machine


def test_a_line_at_the_end_says_where_the_time_went(tmp_path: Path, capfd: Any) -> None:
    quiet_trainer(tmp_path, print_weights_summary=True).fit(Spending(data=0.01))
    out, err = capfd.readouterr()
    assert "fit took " in out
    assert re.search(r"waiting for data \d+\.\d s", out)
    assert "of the training time was spent waiting for data: try num_workers=2" in err


def test_a_fit_that_prints_nothing_stays_silent(tmp_path: Path, capfd: Any) -> None:
    quiet_trainer(tmp_path).fit(Spending(data=0.01))
    assert capfd.readouterr() == ("", "")


def test_the_hint_names_only_what_can_help() -> None:
    slow = {"data": 6.0, "forward": 4.0, "validation": 90.0}
    assert "60%" in str(hint(slow, 0, 4))
    assert "num_workers=2" in str(hint(slow, 0, 4))
    assert "more than the 2 workers" in str(hint(slow, 2, 4))
    assert "no more processors" in str(hint(slow, 4, 4))
    assert hint(slow, None, 4) is None  # ready batches, or tensors in memory
    assert hint(slow, 0, 1) is None
    assert hint({"data": 1.0, "forward": 9.0}, 0, 4) is None
    assert hint({"data": 0.2, "forward": 0.1}, 0, 4) is None


def test_a_phase_inside_another_takes_its_time_from_that_one() -> None:
    timings = Timings()
    inner = timings.timed("backward", lambda: work(0.03))

    def outer() -> None:
        work(0.01)
        inner()
        work(0.02)

    timings.nb_windows = lambda: 1
    timings.sampling(timings.timed("optimizer", outer))()
    seconds = timings.seconds
    assert seconds["backward"] >= 0.0299
    assert 0.0299 <= seconds["optimizer"] <= timings.total - seconds["backward"]
