"""Programs made by lot that change things while they are trained, cut at random: the bits of a run that nothing cut,
and those of a loop by hand where nothing is drawn.

``pytest tests/faults/test_changes.py --changes 500`` tries 500 programs; a difference says which seed.
"""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.faults import changing, warm
from tests.faults.killing import Result, result_of, train_changing


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "changes_seed" in metafunc.fixturenames:
        first, nb = (metafunc.config.getoption(name) for name in ("--first-seed", "--changes"))
        metafunc.parametrize("changes_seed", range(first, first + nb))


def run(folder: Path, made: dict[str, Any], cut: tuple[str, int] | None = None) -> warm.Ended:
    folder.mkdir(exist_ok=True)
    return warm.run(train_changing, str(folder), made, cut, output=folder / "said")


def finished(folder: Path, made: dict[str, Any]) -> Result:
    ended = run(folder, made)
    assert ended.code == 0, f"{json.dumps(made)}\n{ended.said}"
    return result_of(folder)


def test_a_program_that_changes_things_ends_the_same_wherever_it_is_cut(tmp_path: Path, changes_seed: int) -> None:
    made = changing.draw(changes_seed)
    whole = finished(tmp_path / "whole", made)
    for cut in made["cuts"]:
        ended = run(tmp_path / "cut", made, cut)
        allowed = {"kill": -signal.SIGKILL, "term": 75, "raise": 1}
        assert ended.code in (allowed[cut[0]], 0), f"{json.dumps(made)}\n{ended.said}"
        assert cut[0] != "raise" or ended.code == 0 or "KeyError: 'cut'" in ended.said, ended.said
    again = finished(tmp_path / "cut", made)
    assert again.position == whole.position, json.dumps(made)
    assert again.rows == whole.rows, json.dumps(made)
    assert again.state == whole.state, json.dumps(made)
    if changing.draws_nothing(made):
        weights, by_hand = torch.load(tmp_path / "whole" / "weights.pt"), changing.by_hand(made)
        different = [name for name in by_hand if not by_hand[name].equal(weights[name])]
        assert not different, json.dumps(made)
