"""One program runs all cases; the tests look at what it wrote."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conformance.worker import GROUPS


class Results:
    """``results(case, strategy, nb, virtual)``: what a case gave in the first process, or in all."""

    def __init__(self, folder: Path) -> None:
        self._found: dict[tuple[int, bool], list[dict[Any, Any]]] = {}
        for nb, after in GROUPS:
            names = [folder / f"{nb}-{rank}{'-after' * after}.pt" for rank in range(nb)]
            self._found[nb, after] = [torch.load(name, weights_only=False) for name in names]

    def everybodys(self, case: str, strategy: str, nb: int, virtual: int = 2, after: bool = False) -> list[Any]:
        found = [results[case, strategy, virtual] for results in self._found[nb, after]]
        for result in found:
            assert not str(result).startswith("Traceback"), result
        return found

    def __call__(self, case: str, strategy: str, nb: int, virtual: int = 2, after: bool = False) -> Any:
        return self.everybodys(case, strategy, nb, virtual, after)[0]


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("conformance")
    program = [sys.executable, "-W", "error", "-m", "tests.conformance.worker", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ran = subprocess.run(program, capture_output=True, text=True, cwd=folder, env=environment, timeout=400)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-6000:]
    return Results(folder)
