"""More of Rewind: several spikes in a row, replicas, validations and early stopping, 16 bits, the end of an epoch."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from pytorch_lightning.callbacks import EarlyStopping, Rewind
from tests.forks.models import ByHand, Model, Noisy
from tests.forks.test_fork_cases import end_of, same
from tests.forks.test_forks import HPARAMS, QUIET
from tests.forks.test_forks_of_processes import Replicas
from tests.forks.test_rewind import WRONG, is_high, start, started_until_done


def skipped_by(rewind: Rewind) -> list[int]:
    return sorted({n for each in rewind.rewinds for n in range(*each["skip"])})


def run_in(folder: Path) -> Path:
    (run,) = folder.glob("*/version_0")
    return run


class Steep(Model):
    """The batches from 5 to 9 spike, whatever is in them."""

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        loss = super().training_step(data_batch, batch_nb)["loss"]
        return {"loss": loss + 1000 * (5 <= self.global_step < 10)}


@pytest.mark.parametrize("skip", [pytest.param(1, marks=pytest.mark.slow), 2, 3])
def test_spikes_in_a_row_are_left_out_one_after_the_other(tmp_path: Path, skip: int) -> None:
    rewind, nb = started_until_done(tmp_path, model=Steep, rewind=Rewind(is_high, skip=skip, max_rewinds=9))
    # half of what is left out lies before the spike, as far as it isn't out yet
    assert nb == len(rewind.rewinds) > 1
    assert {5, 6, 7, 8, 9} <= {*skipped_by(rewind)}
    batches = [each["batch"] for each in rewind.rewinds]
    assert batches == sorted({*batches})  # none twice
    hand = ByHand(Namespace(**{**HPARAMS, "wrong": 13}), QUIET["seed"], QUIET["max_nb_epochs"])
    assert same(end_of(run_in(tmp_path)), hand.train(skip=skipped_by(rewind)).end)


def test_one_process_with_two_virtual_ranks_goes_back(tmp_path: Path) -> None:
    rewind, _ = started_until_done(tmp_path, virtual_ranks=2)
    assert rewind.rewinds
    hand = Replicas(nb=24, schedule="none", wrong=13).train(skip=skipped_by(rewind))
    assert same(end_of(run_in(tmp_path)), hand.end)


class InHalf(ByHand):
    """With autocast."""

    def window(self, batches: Any, step: int) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            super().window(batches, step)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_in_16_bits(tmp_path: Path, accumulate: int) -> None:
    rewind, _ = started_until_done(tmp_path, precision="bf16", accumulate_grad_batches=accumulate)
    assert rewind.rewinds
    hand = InHalf(WRONG, QUIET["seed"], QUIET["max_nb_epochs"], accumulate).train(skip=skipped_by(rewind))
    assert same(end_of(run_in(tmp_path)), hand.end)


class Validated(ByHand):
    """Validates after each epoch, and stops after one that isn't the best."""

    def __init__(self, nb_epochs: int) -> None:
        super().__init__(WRONG, QUIET["seed"], nb_epochs)
        self.schedule, self.values = (self, "epoch"), list[float]()

    def step(self) -> None:
        self.net.eval()
        with torch.no_grad():
            losses = [(self.net(x) - y).pow(2).mean() for x, y in DataLoader(Noisy(7, notes=False), 4)]
        self.net.train()
        self.values.append(float(torch.stack(losses).mean()))
        if self.values[-1] > min(self.values):
            self.nb_epochs = 0


@pytest.mark.slow
def test_with_validations_in_between_and_early_stopping(tmp_path: Path) -> None:
    def stop() -> dict[str, Any]:
        options = {"max_nb_epochs": 8, "val_check_interval": 0.5, "early_stop_callback": EarlyStopping("val_loss")}
        return {**options, "rewind": Rewind(is_high, skip=4, max_rewinds=9), "save_every_nb_batches": 2}

    rewind, nb = started_until_done(tmp_path, **stop())
    hand = Validated(8).train(skip=skipped_by(rewind))
    assert nb == len(rewind.rewinds) > 1
    assert len(hand.values) < 8  # it stopped
    (start,) = json.loads((run_in(tmp_path) / "run.json").read_text())["starts"][-1:]
    assert (start["state"], start["epoch"]) == ("complete", len(hand.values))
    assert start["reason"].startswith("early stopping")
    assert same(end_of(run_in(tmp_path)), hand.end)


def test_each_of_two_counts_its_own(tmp_path: Path) -> None:
    never, rewind = Rewind(lambda losses: False), Rewind(is_high, skip=1)
    for _ in range(2):
        with pytest.raises(SystemExit):
            start(tmp_path, callbacks=[never, rewind])
    end, one = Rewind(lambda losses: False), Rewind(is_high, skip=1)
    start(tmp_path, callbacks=[end, one])
    assert (len(end.rewinds), len(one.rewinds)) == (0, 2)
