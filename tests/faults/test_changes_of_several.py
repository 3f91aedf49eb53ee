"""Programs made by lot that change things while 2 or 3 processes train them, cut at random: the bits of a run that
nothing cut, and the weights of a loop by hand where nothing is drawn.

``pytest tests/faults/test_changes_of_several.py --changes-of-several 200`` tries 200 programs; a difference says which
seed.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.faults import changing_together
from tests.faults.changing_together import PLACES
from tests.faults.checking_together import check_cut

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


@pytest.mark.parametrize("place", range(-len(PLACES), 0))
def test_processes_cut_at_a_place_of_which_only_some_know_end_the_same(at_places: Path, place: int) -> None:
    check(at_places / str(place), changing_together.made_of(place))


@pytest.mark.slow  # a second for each start of a group
def test_several_processes_that_change_things_end_the_same_wherever_one_is_cut(ran: Path, seed: int) -> None:
    check(ran / str(seed), changing_together.made_of(seed))


def check(folder: Path, made: dict[str, Any]) -> None:
    weights = check_cut(folder, made)
    if changing_together.draws_nothing(made):
        torch.testing.assert_close(
            weights,
            changing_together.by_hand(made),
            rtol=0,
            atol=1e-9,
            msg=lambda text: f"{text} {json.dumps(made)}",
        )
