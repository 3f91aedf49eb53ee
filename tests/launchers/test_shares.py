"""Each sample once, whatever sampler, dataset or stream a script brings. The oracle is a count of samples."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.launchers.shares import LOADERS, NB, RESUMED, SHARDED, SIZE, UNEVEN, seen
from tests.launchers.test_spawned import ROOT

TWICE = ("subclass of DistributedSampler", "DistributedSampler in a batch sampler")
"""Samplers that give a sample twice, so that all shares have the same length."""
EVEN = {"subset of equal lengths": 40, "own dataset, by workers": 40}
"""How many samples those give that don't give all."""
Found = Callable[[str, str], tuple[dict[str, Any], list[list[list[int]]]]]


def flat(shares: list[list[int]]) -> list[int]:
    return [number for share in shares for number in share]


@pytest.fixture(scope="module", params=[2, 3])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What came of the fits in so many processes, and what each process trained on in each epoch."""
    folder = tmp_path_factory.mktemp("shares")
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={request.param}", "--standalone"]
    command += ["-m", "tests.launchers.shares", str(folder)]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=variables, cwd=folder, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-4000:]

    def find(table: str, name: str) -> tuple[dict[str, Any], list[list[list[int]]]]:
        here = folder / table / name
        return json.loads((here / "told.json").read_text()), [seen(here, epoch=epoch) for epoch in (0, 1)]

    return find


@pytest.mark.parametrize("name", LOADERS)
def test_each_sample_is_used_once(found: Found, name: str) -> None:
    told, trained = found("whole", name)
    assert "error" not in told
    for shares in trained:
        assert sorted(flat(shares)) == [*range(NB)]
        assert max(map(len, shares)) - min(map(len, shares)) <= SIZE, "all have their part"
    for numbers in (told["metrics"], told["test"]):
        assert numbers["nb_validated"] == numbers["nb_distinct"] == NB
    assert sorted(told["predicted"]) == [*range(NB)]


@pytest.mark.parametrize("name", [name for name in LOADERS if "list" not in name and "in order" not in name])
def test_epochs_have_orders_of_their_own(found: Found, name: str) -> None:
    _, (first, second) = found("whole", name)
    assert first != second


@pytest.mark.parametrize("name", SHARDED)
def test_what_is_sharded_is_refused_and_the_option_is_named(found: Found, name: str) -> None:
    told, trained = found("refused", name)
    assert "data_is_sharded=True" in told["error"]
    assert not any(flat(shares) for shares in trained), "nobody trained on a batch"


@pytest.mark.parametrize("name", [name for name in SHARDED if name != "order that no seed decides"])
def test_own_shares_are_used_whole(found: Found, name: str) -> None:
    told, trained = found("own", name)
    assert "error" not in told
    nb = EVEN.get(name, NB)
    for shares in trained:
        assert {*flat(shares)} == {*range(nb)}
        assert name in TWICE or sum(map(len, shares)) == nb
    for numbers in (told["metrics"], told["test"]):
        assert numbers["nb_distinct"] == nb
        assert name in TWICE or numbers["nb_validated"] == nb
    assert {*told["predicted"]} == {*range(nb)}
    longest = max(map(len, trained[0]))
    assert told["rounds"] == 2 * -(-longest // SIZE) or "workers" in name


@pytest.mark.parametrize("name", RESUMED)
def test_own_shares_are_resumed_exactly(found: Found, name: str) -> None:
    told, trained = found("resumed", name)
    assert told["weights"] == told["undisturbed"]
    assert name not in SHARDED or trained == found("own", name)[1]


@pytest.mark.parametrize(
    ("table", "name"), [("own", "own sampler"), ("all read all", "shuffled"), ("all read all", "list")]
)
def test_where_all_read_the_same_a_notice_says_so(found: Found, table: str, name: str) -> None:
    told, _ = found(table, name)
    assert ("the first batch is the same in all processes" in told["said"]) == (table == "all read all")


def test_a_resume_in_another_sharing_is_refused(found: Found) -> None:
    told, _ = found("resumed", "own sampler")
    assert "begun with data_is_sharded=True, and now it is False" in told["dealt out"]


def test_torchs_tutorial_trains_as_by_hand(found: Found) -> None:
    told, _ = found("tutorial", "")
    assert told["largest difference"] < 1e-6


def test_data_is_downloaded_once(found: Found) -> None:
    told, _ = found("download", "")
    assert told["downloads"] == 1


def test_numbers_that_differ_between_processes_are_said(found: Found) -> None:
    told, _ = found("download", "")
    assert told["metrics"]["own"] == 10.0
    assert "validation_end gives other numbers in process 1 than in process 0 (own 10.0 and 11.0)" in told["said"]


@pytest.mark.parametrize("name", UNEVEN)
def test_what_is_repeated_leaves_no_trace(found: Found, name: str) -> None:
    told, _ = found("uneven", name)
    nb_trained = told["whole rounds"] if name == "drop" else NB
    assert told["trained"] == [nb_trained] * 4
    assert told["validated"] == [NB] * 4
    assert told["weights"] == pytest.approx(told["by hand"], abs=1e-6)


def test_layers_that_wait_for_all_processes_are_refused(found: Found) -> None:
    told, _ = found("uneven", "")
    assert "SyncBatchNorm waits for all processes" in told["error"]
    assert "uneven_batches='drop'" in told["error"]
