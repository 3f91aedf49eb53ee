"""What people train in several processes gives the weights of the loop that one would write by hand."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.strategies import together
from tests.strategies.together import GROUPS, PROGRAMS

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[Any]]:
    folder = tmp_path_factory.mktemp("together")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", together.__name__, str(folder)]
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return {nb: [torch.load(folder / f"{nb}-{rank}.pt") for rank in range(nb)] for nb in GROUPS}


@pytest.mark.parametrize("nb", GROUPS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_is_trained_as_by_hand(told: Any, name: str, nb: int) -> None:
    weights, loss = together.by_hand(PROGRAMS[name], nb)
    for of_rank in told[nb]:
        assert isinstance(of_rank[name], dict), of_rank[name]
        torch.testing.assert_close(of_rank[name]["weights"], weights, rtol=0, atol=1e-10)
        assert of_rank[name]["val_loss"] == (None if loss is None else pytest.approx(loss, abs=1e-10))
