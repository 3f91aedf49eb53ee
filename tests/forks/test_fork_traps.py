"""What could make a fork another run than the one that it says it is."""

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pytorch_lightning.callbacks import Rewind
from pytorch_lightning.errors import MisconfigurationException
from tests.forks.models import SEEN, ByHand, Model
from tests.forks.test_fork_cases import end_of, same
from tests.forks.test_forks import HPARAMS, QUIET, forked, refusal, save_of, saves_of, trained
from tests.forks.test_rewind import WRONG, start, started_until_done
from tests.saves import every_save_written


def by_hand() -> ByHand:
    return ByHand(Namespace(**HPARAMS), QUIET["seed"], QUIET["max_nb_epochs"])


@pytest.mark.slow
def test_a_run_that_was_resumed_with_other_options_is_repeated_with_those_that_it_had(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = {"add_log_row_interval": 100, "save_every_nb_batches": 100}  # no row tells
    trained(tmp_path, max_nb_steps=6, gradient_clip=0.1, **few)
    trained(tmp_path, max_nb_steps=10, gradient_clip=0.3, **few)
    run = trained(tmp_path, **few)
    assert saves_of(run)
    hand = by_hand()
    hand.clip = 0.1

    def edit(hand: ByHand) -> None:
        hand.set_rate(0.01)

    child = forked(run, 4, "--set", "lr=0.01")  # with the clipping of the first start, to the end
    assert same(end_of(child), hand.train(4, edit).end)
    said = refusal(capsys, run, 8, module="tests.forks.models")
    assert "was resumed with other options (gradient_clip 0.1 -> 0.3) between its saves at 6 and 10" in said
    assert "Pass 6, or a batch from 10 on" in said
    second = forked(child, 9, "--set", "gradient_clip=0.2", "accumulate_grad_batches=2")
    assert forked(second, 11, "--skip_batches", "12:13").name == "version_3"  # a fork's own edits are no such change


class SetsRate(Model):
    def on_fit_start(self) -> None:
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = 0.03


def test_an_edit_that_the_model_undoes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path, SetsRate)
    said = refusal(capsys, run, 9, "--set", "lr=0.01", "--model", "SetsRate", module=__name__)
    assert "lr is to be 0.01 in the fork, and on_fit_start of the model sets it to 0.03" in said
    child = forked(run, 9, "--set", "weight_decay=0.2", "--model", "SetsRate", module=__name__)
    assert save_of(child, 16)["optimizer_states"][0]["param_groups"][0]["weight_decay"] == 0.2


class Drawn:
    """Batches that are drawn from a generator of its own, which begins each epoch anew."""

    def __init__(self) -> None:
        self.nb_read = 0

    def __len__(self) -> int:
        return 8

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(3)
        for _ in range(8):
            self.nb_read += 1
            x = torch.randn(3, 3, generator=generator)
            yield x, x.sum(1, keepdim=True)


class Changing(Model):
    """Its hooks change an attribute that the loss depends on."""

    def on_batch_end(self) -> None:
        self.alpha = self.alpha * 0.95

    @property
    def tng_dataloader(self) -> Any:
        return Drawn()


class ByHandChanging(ByHand):
    def __init__(self) -> None:
        super().__init__(Namespace(**HPARAMS), QUIET["seed"], QUIET["max_nb_epochs"])
        self.loader = Drawn()

    def train(self, at: int = -1, edit: Any = None, skip: Any = ()) -> ByHand:
        step = 0
        for _ in range(self.nb_epochs):
            for batch in self.loader:
                if step not in skip:
                    self.window([batch], step)
                    self.alpha *= 0.95
                step += 1
        self.end = self.weights()
        return self


def test_attributes_that_hooks_change_and_batches_of_a_generator(tmp_path: Path) -> None:
    for nb in (3, 8, 16):  # it was resumed twice
        run = trained(tmp_path, Changing, max_nb_steps=nb)
    child = forked(run, 9, "--skip_batches", "10:12", "--model", "Changing", module=__name__)
    assert {10, 11} & SEEN.keys() == set()
    assert same(end_of(child), ByHandChanging().train(skip=(10, 11)).end)


def test_a_fork_from_the_end_of_an_epoch_reads_nothing_of_that_epoch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with every_save_written():
        run = trained(tmp_path, Changing, save_every_nb_batches=8)
    assert 8 in saves_of(run)
    forked(run, 9, "--model", "Changing", module=__name__)
    assert "more batches than its length" not in capsys.readouterr().err


def test_a_rewind_of_such_a_run(tmp_path: Path) -> None:
    nb_losses = Rewind(lambda losses: len(losses) == 6, skip=3, max_rewinds=9)
    rewind, nb = started_until_done(tmp_path, model=Changing, rewind=nb_losses)
    assert nb == len(rewind.rewinds) > 1
    skipped = {n for each in rewind.rewinds for n in range(*each["skip"])}
    assert same(end_of(tmp_path / "Changing" / "version_0"), ByHandChanging().train(skip=skipped).end)


def test_a_rewind_needs_a_start_that_finds_the_newest_save(tmp_path: Path) -> None:
    trained(tmp_path, hparams=vars(WRONG), max_nb_steps=4)
    path = tmp_path / "Model" / "version_0" / "checkpoints" / "step-000000000004.ckpt"
    with pytest.raises(MisconfigurationException, match="Pass resume='auto'"):
        start(tmp_path, resume=str(path))
