"""Programs made by lot that change things while 2 or 3 processes train them, cut at random: the bits of a run that
nothing cut, and the weights of a loop by hand where nothing is drawn.

``pytest tests/faults/test_changes_of_several.py --changes-of-several 200`` tries 200 programs; a difference says which
seed.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.faults import changing_together
from tests.faults.changing_together import PLACES
from tests.faults.killing import result_of

ROOT = Path(__file__).parent.parent.parent


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        first, nb = (metafunc.config.getoption(name) for name in ("--first-seed", "--changes-of-several"))
        metafunc.parametrize("seed", range(first, first + nb))


def run_programs(folder: Path, first: int, nb: int) -> Path:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", changing_together.__name__, str(folder), str(first), str(nb)]
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="module")
def at_places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_programs(tmp_path_factory.mktemp("places"), -len(PLACES), len(PLACES))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    seeds = (pytestconfig.getoption(name) for name in ("--first-seed", "--changes-of-several"))
    return run_programs(tmp_path_factory.mktemp("together"), *seeds)


def ends(folder: Path, nb: int) -> list[Any]:
    """What each process ended with."""
    return [json.loads((folder / f"end{f'-{rank}' if rank else ''}.json").read_text()) for rank in range(nb)]


def said(folder: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(folder.glob("said-*")))


@pytest.mark.parametrize("place", range(-len(PLACES), 0))
def test_processes_cut_at_a_place_of_which_only_some_know_end_the_same(at_places: Path, place: int) -> None:
    check(at_places / str(place), changing_together.made_of(place))


@pytest.mark.slow  # a second for each start of a group
def test_several_processes_that_change_things_end_the_same_wherever_one_is_cut(ran: Path, seed: int) -> None:
    check(ran / str(seed), changing_together.made_of(seed))


def check(folder: Path, made: dict[str, Any]) -> None:
    told, nb = torch.load(folder / "codes.pt"), made["nb"]
    whole, *cut, again = told["codes"]
    assert whole == [0] * nb, f"{json.dumps(made)}\n{said(folder / 'whole')}"
    for (how, _, rank), codes in zip(made["cuts"], cut, strict=True):
        here = codes[rank or 0]
        assert None not in codes, f"hung: {json.dumps(made)}\n{told['said']}"
        assert here in ({"kill": -signal.SIGKILL, "term": 75, "raise": 1}[how], 0), (
            f"{json.dumps(made)}\n{told['said']}"
        )
        assert how != "term" or codes == [here] * nb, told["said"]
        assert 0 not in codes or codes == [0] * nb, f"{json.dumps(made)}\n{told['said']}"
    assert again == [0] * nb, f"{json.dumps(made)}\n{said(folder / 'cut')}"
    undisturbed, resumed = result_of(folder / "whole"), result_of(folder / "cut")
    assert resumed.position == undisturbed.position, json.dumps(made)
    assert resumed.rows == undisturbed.rows, json.dumps(made)
    assert ends(folder / "cut", nb) == ends(folder / "whole", nb), json.dumps(made)
    weights = [torch.load(folder / "whole" / f"weights{f'-{rank}' if rank else ''}.pt") for rank in range(nb)]
    for name, value in weights[0].items():
        assert all(value.equal(of_rank[name]) for of_rank in weights), f"{name}: {json.dumps(made)}"
    if changing_together.draws_nothing(made):
        torch.testing.assert_close(
            weights[0],
            changing_together.by_hand(made),
            rtol=0,
            atol=1e-9,
            msg=lambda text: f"{text} {json.dumps(made)}",
        )
