"""Runs the programs of ``lightning2`` as they are, where Lightning 2 is installed, and writes what they end with.

``python tests/commands/run_lightning.py`` writes ``lightning2.json``, which ``test_from_lightning.py`` compares with
what the converted programs end with.
"""

import json
import os
import runpy
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

PROGRAMS = Path(__file__).parent / "lightning2"
RECORD = Path(__file__).parent / "lightning2.json"


def outcome(scope: dict[str, Any]) -> dict[str, float]:
    """What a program ends with: the weights of its ``model``, in two sums, and its ``numbers``."""
    model = scope["model"]
    weights = torch.cat([p.detach().double().flatten() for p in model.parameters()])
    place = torch.arange(1, len(weights) + 1) / len(weights)
    found = {"weights": weights.sum(), "weights by place": (weights * place).sum()}
    found |= {str(key): value for key, value in scope.get("numbers", {}).items()}
    return {name: float(value) for name, value in found.items()}


def run(path: Path) -> dict[str, float]:
    """Run a program in an empty folder, as a script."""
    before, words = os.getcwd(), sys.argv
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        sys.argv = [str(path)]
        try:
            return outcome(runpy.run_path(str(path), run_name="__main__"))
        finally:
            os.chdir(before)
            sys.argv = words


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    chosen = sys.argv[1:] or sorted(path.stem for path in PROGRAMS.glob("*.py"))
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    for name in chosen:
        record[name] = run(PROGRAMS / f"{name}.py")
        RECORD.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    print(f"{len(chosen)} programs ran")
