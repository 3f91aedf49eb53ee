"""A signal to one process of several ends the fit of all."""

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.launchers import program
from tests.launchers.signalled import run_script, saves_of


@pytest.fixture(scope="module")
def undisturbed_pair(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("pair")
    code, said = run_script(folder, nb_processes=2)
    assert code == 0, said
    return program.outcome(folder)


@pytest.mark.parametrize(
    ("launch", "to", "name"),
    [
        ("spawned", "rank 1", "SIGTERM"),
        ("spawned", "parent", "SIGTERM"),
        ("spawned", "group", "SIGUSR1"),
        ("spawned", "group", "SIGINT"),
        ("torchrun", "rank 1", "SIGTERM"),
        ("torchrun", "group", "SIGTERM"),
    ],
)
def test_processes_agree_to_stop(tmp_path: Path, undisturbed_pair: Any, launch: str, to: str, name: str) -> None:
    launcher, options = None, {"nb_processes": 2}
    if launch == "torchrun":
        options = {}
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    code, said = run_script(tmp_path, launcher=launcher, send=("step", 3, to, [name]), **options)
    # torchrun has a code of its own
    assert code == (1 if launch == "torchrun" else 0 if name == "SIGINT" else 75), said
    assert ("interrupted: " if name == "SIGINT" else f"stopped by {name}") in said
    assert len(saves_of(tmp_path)) == 1
    code, said = run_script(tmp_path, nb_processes=2, resume="auto")
    assert code == 0, said
    assert program.outcome(tmp_path) == undisturbed_pair
