"""Runs of several processes are verified in one, where that makes the same sums; others are refused with a word."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytorch_lightning.verify import main
from tests import certified

ROOT = Path(__file__).parents[1]
PROGRAM = """
import json, sys
from pathlib import Path
from tests import certified
if __name__ == "__main__":
    described = {"seed": 1, "workers": 0, "optimizer": "Adam", "schedule": "step", "noise": True, "options": {}}
    certified.train(Path(sys.argv[1]), described, save_every_nb_batches=2, **json.loads(sys.argv[2]))
"""


def ran(folder: Path, options: str) -> "subprocess.CompletedProcess[str]":
    certified.write_rows(folder, 1)
    program = folder / "program.py"
    program.write_text(PROGRAM)
    return subprocess.run(
        [sys.executable, str(program), str(folder), options],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def verified(folder: Path, options: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    done = ran(folder, options)
    assert done.returncode == 0, done.stderr
    capsys.readouterr()
    status = main([str(folder / "Model" / "version_0"), "--module", "tests.certified", "--all"])
    return status, capsys.readouterr().out


@pytest.mark.parametrize(
    "options", ['{"nb_processes": 2}', '{"nb_processes": 2, "virtual_ranks": 4, "exact_elastic": true}']
)
def test_a_run_of_two_processes_is_verified_in_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: str
) -> None:
    status, said = verified(tmp_path, options, capsys)
    assert status == 0, said
    assert "intervals agree" in said
    certified.write_rows(tmp_path, 2)
    assert main([str(tmp_path / "Model" / "version_0"), "--module", "tests.certified"]) == 1
    assert "of virtual rank 0 isn't what was trained on" in capsys.readouterr().out


def test_what_one_process_can_not_repeat_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, said = verified(tmp_path, '{"nb_processes": 2, "virtual_ranks": 4}', capsys)
    assert status == 1
    assert "it ran on 2 processes without exact_elastic=True" in said
    done = ran(tmp_path, '{"nb_processes": 2, "distributed_backend": "fsdp", "resume": null}')
    assert done.returncode
    assert "certificate=True needs saves in files, which one device can repeat" in done.stderr
