"""More of forks: made while killed, of streams, from workers, and of forks."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader, IterableDataset

from pytorch_lightning import runs
from tests.forks.models import SEEN, Model, Noisy
from tests.forks.test_forks import forked, in_another_process, save_of, trained


def test_a_kill_while_the_fork_is_made_leaves_no_run_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(tmp_path)
    monkeypatch.setattr(Model, "dies_at", 6)
    assert in_another_process(lambda: forked(run, 7)) == signal.SIGKILL
    monkeypatch.setattr(Model, "dies_at", -1)
    assert len(runs(tmp_path)) == 1
    assert [path.name for path in run.parent.glob("version_*")] == ["version_0"]
    assert forked(run, 7).name == "version_1"


class Streamed(Model):
    """A stream, of which batches are read and dropped."""

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(Stream(), batch_size=3)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter([Noisy(24)[n] for n in range(24)])


class Worked(Model):
    """Workers that read ahead."""

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(Noisy(24), batch_size=3, shuffle=True, num_workers=2)


@pytest.mark.parametrize("kind", [Streamed, Worked])
def test_batches_are_skipped_of_streams_and_from_workers_too(tmp_path: Path, kind: type[Model]) -> None:
    run = trained(tmp_path, kind)
    child = forked(run, 4, "--skip_batches", "5:7", "9:16", module=__name__)
    assert sorted(n for n in SEEN if n >= 4) == [4, 7, 8]
    SEEN.clear()
    longer = forked(run, 4, "--skip_batches", "6:20", "--set", "max_nb_epochs=3", module=__name__)
    assert sorted(n for n in SEEN if n >= 4) == [4, 5, 20, 21, 22, 23]
    assert json.loads((child / "run.json").read_text())["starts"][-1]["global_step"] == 16
    assert json.loads((longer / "run.json").read_text())["starts"][-1]["global_step"] == 24


def test_a_fork_of_a_fork_keeps_what_is_left_out(tmp_path: Path) -> None:
    run = trained(tmp_path)
    child = forked(run, 4, "--skip_batches", "10:12", "--set", "gradient_clip=0.3", "dropout=0.1")
    SEEN.clear()
    second = forked(child, 9, "--set", "lr=0.01", "--skip_batches", "13:14")
    assert sorted(n for n in SEEN if n >= 8) == [8, 9, 12, 14, 15]
    state = save_of(second, 16)["parts"]["fork"]
    assert state["skip"] == [[10, 12], [13, 14]]
    assert (state["options"], state["hparams"]) == ({"gradient_clip": 0.3}, {"dropout": 0.1})
    assert json.loads((second / "run.json").read_text())["fork"]["parent"] == "../version_1"
