"""Programs made by lot with several loggers, cut at random: each row and each point is there once, as in a run that
nothing cut, and so are the weights and the files.

``pytest tests/faults/test_logger_cuts.py --logger-cuts 500`` tries 500 programs; a difference says which seed.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.faults import warm
from tests.faults.killing import train_logged
from tests.faults.logging_by_lot import CODES, draw, expected_steps, left_in


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "logger_cuts_seed" in metafunc.fixturenames:
        first, nb = metafunc.config.getoption("--first-seed"), metafunc.config.getoption("--logger-cuts")
        metafunc.parametrize("logger_cuts_seed", range(first, first + nb))


def run(folder: Path, made: dict[str, Any], cut: Any = None) -> warm.Ended:
    folder.mkdir(exist_ok=True)
    fault = cut[2] if cut is not None and cut[0] == "point" else ""
    said = folder.parent / f"{folder.name}.said"
    return warm.run(train_logged, str(folder), made, None if fault else cut, output=said, fault=fault)


def test_logs_weights_and_files_are_the_same_wherever_a_program_is_cut(tmp_path: Path, logger_cuts_seed: int) -> None:
    made = draw(logger_cuts_seed)
    what = json.dumps(made)
    ended = run(tmp_path / "whole", made)
    assert ended.code == 0, f"{what}\n{ended.said}"
    whole = left_in(tmp_path / "whole", tmp_path / "read")
    steps = expected_steps(made, whole["position"][0])
    for name, found in whole.items():
        if name.endswith("metrics.csv"):
            assert [int(float(row["global_step"])) for row in found if "tng_loss" in row] == steps, f"{name} {what}"
        elif name.endswith("tf"):
            assert [step for step, _ in found["tng_loss"]] == steps, f"{name} {what}"
        elif name.endswith(".jsonl"):
            rows = [json.loads(line) for line in found]
            assert [step for step, row in rows if "tng_loss" in row] == steps, f"{name} {what}"
    for cut in made["cuts"]:
        ended = run(tmp_path / "cut", made, cut)
        assert ended.code in (CODES[cut[1]], 0), f"{what}\n{cut}\n{ended.said}"
        if not list((tmp_path / "cut").rglob("step-*.ckpt")):  # before the first save: the next start is a new run
            shutil.rmtree(tmp_path / "cut")
        assert cut[1] != "raise" or ended.code == 0 or "KeyError: 'cut'" in ended.said, f"{what}\n{ended.said}"
    ended = run(tmp_path / "cut", made)
    assert ended.code == 0, f"{what}\n{ended.said}"
    again = left_in(tmp_path / "cut", tmp_path / "read")
    different = [name for name in whole.keys() | again.keys() if whole.get(name) != again.get(name)]
    assert not different, f"{sorted(different)}\n{what}"
