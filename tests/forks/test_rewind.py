"""Training that goes back to a save when the loss spikes is a run that never saw the batches around the spike."""

import json
import signal
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Rewind
from pytorch_lightning.errors import FitError, MisconfigurationException
from pytorch_lightning.forks.child import rows_of
from pytorch_lightning.resume import fork
from tests.forks.models import SEEN, ByHand, Model, die
from tests.forks.test_fork_cases import end_of, same
from tests.forks.test_forks import HPARAMS, QUIET, in_another_process

WRONG = Namespace(**{**HPARAMS, "wrong": 13})
"""The label of one sample is wrong, so its batch spikes in each epoch."""


def is_high(losses: list[float]) -> bool:
    return losses[-1] > 500


def start(folder: Path, model: type[Model] = Model, **options: Any) -> Rewind:
    """One start of the program."""
    rewind = options.pop("rewind", None) or Rewind(is_high, skip=4)
    Trainer(**{**QUIET, "default_save_path": folder, "callbacks": [rewind], **options}).fit(model(WRONG))
    return rewind


def started_until_done(folder: Path, **options: Any) -> tuple[Rewind, int]:
    for nb in range(9):
        try:
            return start(folder, **options), nb
        except SystemExit as stopped:
            if stopped.code != 75:
                raise
    raise AssertionError("it never ended")


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_that_goes_back_is_one_that_never_saw_those_batches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], accumulate: int
) -> None:
    rewind, nb = started_until_done(tmp_path, accumulate_grad_batches=accumulate)
    assert nb == len(rewind.rewinds) == 2  # one for each epoch
    hand = ByHand(WRONG, QUIET["seed"], QUIET["max_nb_epochs"], accumulate).train()
    spikes = [n for n in range(16) if 13 in hand.order[n]]
    skipped, said = list[int](), "".join(capsys.readouterr())
    for about, spike in zip(rewind.rewinds, spikes, strict=True):
        first, end = about["skip"]
        assert (about["batch"], end - first) == (spike, 4)
        assert about["to"] <= first == max(spike - 2, about["to"])
        skipped += range(first, end)
        assert f"{about['loss']:.6g} in batch {spike}; back to the save at {about['to']}" in said
    whole = ByHand(WRONG, QUIET["seed"], QUIET["max_nb_epochs"], accumulate).train(skip=skipped)
    run = tmp_path / "Model" / "version_0"
    assert same(end_of(run), whole.end)
    rows = [int(row["global_step"]) for row in rows_of(run / "metrics.csv") if "lr_0" in row]
    assert rows == [n for n in range(16) if n not in skipped]
    starts = json.loads((run / "run.json").read_text())["starts"]
    assert [each["state"] for each in starts] == ["interrupted", "interrupted", "complete"]
    assert starts[0]["reason"] == f"rewind from batch {spikes[0]} to {rewind.rewinds[0]['to']}"


def test_a_kill_at_any_time_of_a_rewind_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = started_until_done(tmp_path / "whole")
    folder = tmp_path / "killed"
    with monkeypatch.context() as patch:  # before the save says what is left out
        patch.setattr(fork, "rewound", lambda *_: die())
        assert in_another_process(lambda: start(folder)) == signal.SIGKILL
    with pytest.raises(SystemExit):
        start(folder)
    monkeypatch.setattr(Model, "dies_at", whole.rewinds[0]["skip"][1])  # after it
    assert in_another_process(lambda: start(folder)) == signal.SIGKILL
    monkeypatch.setattr(Model, "dies_at", -1)
    again, _ = started_until_done(folder)
    if [each["to"] for each in again.rewinds] == [each["to"] for each in whole.rewinds]:  # the disk was as fast
        assert again.rewinds == whole.rewinds
        assert same(end_of(folder / "Model" / "version_0"), end_of(tmp_path / "whole" / "Model" / "version_0"))
    skipped = [n for each in again.rewinds for n in range(*each["skip"])]
    hand = ByHand(WRONG, QUIET["seed"], QUIET["max_nb_epochs"]).train(skip=skipped)
    assert same(end_of(folder / "Model" / "version_0"), hand.end)


def test_the_rewinds_come_to_an_end(tmp_path: Path) -> None:
    rewind = Rewind(is_high, skip=1, max_rewinds=1)
    with pytest.raises(SystemExit):
        start(tmp_path, rewind=rewind)
    with pytest.raises(FitError, match=r"the loss spiked again, to .* after 1 rewinds"):
        start(tmp_path, rewind=rewind)


def test_a_factor_compares_with_the_mean_of_the_batches_before(tmp_path: Path) -> None:
    rewind = Rewind(3.0, skip=2)
    assert not rewind._is_spike([1.0] * 19 + [9.0])
    assert rewind._is_spike([1.0] * 20 + [3.1])
    assert not rewind._is_spike([1.0] * 20 + [3.0])
    assert rewind._is_spike([1.0] * 20 + [float("nan")])


class ByItself(Model):
    automatic_optimization = False


def test_where_it_cannot_go_back_exactly_it_is_refused_before_the_first_batch(tmp_path: Path) -> None:
    SEEN.clear()
    for options, said in (
        ({"resume": None}, "Pass resume='auto'"),
        ({"model": ByItself}, "makes its own steps"),
        ({"certificate": True}, "Leave certificate out"),
        ({"experiment": False, "default_save_path": "memory://runs"}, "no folder on this machine"),
    ):
        with pytest.raises(MisconfigurationException, match=said):
            start(tmp_path, **options)
    for wrong in ({"when": 0.5}, {"when": "high"}, {"skip": 0}, {"max_rewinds": 0}):
        with pytest.raises(MisconfigurationException, match=next(iter(wrong))):
            Rewind(**wrong)
    assert not SEEN
