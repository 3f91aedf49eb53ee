"""kill -9 at any moment, and the same program again: the bits of a run that nothing disturbed.

``pytest tests/faults --kills 200 --kills-at-points 100`` kills 200 runs of small models at random, and the template of
the examples 200 times at random times and 100 times at named points; a mismatch says which seed and which points.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.killing import POINTS, SMALL, Reference, kill_at_point, kill_by_seed, run_to_the_end
from tests.test_architecture import FILES

POINTS_OF_ALL_RUNS = [
    ("plain", "fit.begin:1"),  # before the first save
    ("plain", "update.begin:9"),
    ("plain", "writer.copied:3"),
    ("plain", "write.begin:4:cut=20000"),  # in the middle of the bytes
    ("plain", "write.synced:3"),
    ("plain", "write.renamed:4"),
    ("plain", "store.prune:1"),
    ("plain", "store.replace:1"),  # the final save replaces the others
    ("plain", "fit.end:1"),
    ("plain", "rows.columns:2"),
    ("plain", "rows.written:4"),
    ("windows", "batch.run:6"),
    ("windows", "update.end:5"),  # before the schedule
    ("windows", "epoch.trained:1"),  # after the last batch of an epoch
    ("validations", "validation.batch:9"),
    ("validations", "validation.run:4"),
    ("validations", "validation.end:5"),
    ("gan", "epoch.end:2"),
    ("gan", "update.begin:10"),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kill_seed" in metafunc.fixturenames:
        first, nb = metafunc.config.getoption("--first-seed"), metafunc.config.getoption("--kills") or 10
        metafunc.parametrize("kill_seed", range(first, first + nb))


@pytest.mark.parametrize(("name", "fault"), POINTS_OF_ALL_RUNS)
def test_a_run_that_is_killed_at_a_point_has_the_same_result(
    tmp_path: Path, references: Callable[[str], Reference], name: str, fault: str
) -> None:
    assert kill_at_point(tmp_path, name, fault), f"{fault} was never reached"
    assert run_to_the_end(tmp_path, name) == references(name).result, f"killed at {fault}"


def test_a_run_that_is_killed_at_random_has_the_same_result(
    tmp_path: Path, references: Callable[[str], Reference], kill_seed: int
) -> None:
    name = SMALL[kill_seed % len(SMALL)]
    reference = references(name)
    kills = kill_by_seed(tmp_path, name, kill_seed, reference.seconds)
    assert run_to_the_end(tmp_path, name) == reference.result, f"{name}, seed {kill_seed}, killed: {kills}"


def test_kills_know_every_point() -> None:
    named = {point for path in FILES for point in _points_in(path)}
    others = ("chain.", "remote.", "pieces.", "tracker.")  # of certificates, folders and loggers: see their tests
    assert {point for point in named if not point.startswith(others)} == set(POINTS)


def _points_in(path: Path) -> list[Any]:
    return re.findall(r'\bfault\("([\w.]+)"\)', path.read_text()) if path.name != "faults.py" else []
