"""Programs made by lot that steer their training, cut at random: the bits of a run that nothing cut, and, where nothing
is drawn, the weights, validations and means of a loop by hand.

``pytest tests/faults/test_steering.py --steered 200`` tries 200 programs; a difference says which seed.
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

from tests.faults import steering, steering_together, warm
from tests.faults.checking_together import check_cut
from tests.faults.killing import Result, result_of, train_steered

ROOT = Path(__file__).parent.parent.parent


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        first, nb = (metafunc.config.getoption(name) for name in ("--first-seed", "--steered"))
        metafunc.parametrize("seed", range(first, first + nb))


def run(folder: Path, made: dict[str, Any], cut: tuple[str, int] | None = None) -> warm.Ended:
    folder.mkdir(exist_ok=True)
    return warm.run(train_steered, str(folder), made, cut, output=folder / "said")


def finished(folder: Path, made: dict[str, Any]) -> Result:
    ended = run(folder, made)
    assert ended.code == 0, f"{json.dumps(made)}\n{ended.said}"
    return result_of(folder)


def values_of(rows: list[dict[str, str]], name: str) -> list[float]:
    return [float(row[name]) for row in rows if row.get(name)]


def test_a_program_that_steers_ends_the_same_wherever_it_is_cut(tmp_path: Path, seed: int) -> None:
    made = steering.draw(seed)
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
    if made["by_hand"]:
        check_by_hand(tmp_path / "whole", made)


def check_by_hand(folder: Path, made: dict[str, Any], nb: int = 1) -> None:
    """The weights, validations and means of ``nb`` processes are those of a loop by hand."""
    loop, said, rows = steering.Loop(made, nb), json.dumps(made), result_of(folder).rows
    loop.run()
    weights = torch.load(folder / "weights.pt")
    for name, value in loop.model.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-9, msg=lambda text: f"{text}\n{said}")
    assert values_of(rows, "val_loss") == pytest.approx(loop.val_losses, rel=1e-5), said
    if made["metrics"]:
        assert values_of(rows, "twice") == pytest.approx(loop.means, rel=1e-5), said


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    folder, environment = tmp_path_factory.mktemp("together"), {**os.environ, "PYTHONPATH": str(ROOT)}
    seeds = (str(pytestconfig.getoption(name)) for name in ("--first-seed", "--steered"))
    command = [sys.executable, "-m", steering_together.__name__, str(folder), *seeds]
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return folder


def test_two_processes_end_the_same_wherever_one_is_cut(ran: Path, seed: int) -> None:
    folder, made = ran / str(seed), steering_together.made_of(seed)
    check_cut(folder, made)
    if made["by_hand"]:
        check_by_hand(folder / "whole", made, steering_together.NB_PROCESSES)
