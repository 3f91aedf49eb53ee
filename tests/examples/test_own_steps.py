"""The examples that make their own steps: they learn, and end the same where they are killed and started again."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import pytorch_lightning

ROOT = Path(pytorch_lightning.__file__).parent.parent
QUIET = ("--seed", "1", "--progress_bar", "False", "--print_weights_summary", "False")
RUNS = {"wgan_gp.py": ("--max_nb_epochs", "4"), "sam.py": ("--max_nb_epochs", "4")}


def start(folder: Path, name: str, *options: str, fault: str = "") -> "subprocess.CompletedProcess[str]":
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FAULT": fault}
    command = [sys.executable, str(ROOT / "examples" / name), *QUIET, "--default_save_path", str(folder), *options]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def newest(folder: Path) -> Any:
    paths = sorted(folder.rglob("checkpoints/step-*"), key=lambda path: path.stat().st_mtime)
    return torch.load(paths[-1], weights_only=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(RUNS))
def test_a_killed_example_ends_with_the_same_bits(tmp_path: Path, name: str) -> None:
    options = (*RUNS[name], "--resume", "auto", "--save_every_nb_batches", "3")
    whole = start(tmp_path / "whole", name, *options)
    assert whole.returncode == 0, whole.stderr
    for fault in ("update.end:14", "batch.run:11", "update.begin:23"):
        assert start(tmp_path / "cut", name, *options, fault=fault).returncode == -signal.SIGKILL
    cut = start(tmp_path / "cut", name, *options)
    assert cut.returncode == 0, cut.stderr
    assert cut.stdout == whole.stdout
    one, other = newest(tmp_path / "whole"), newest(tmp_path / "cut")
    assert all(torch.equal(one["state_dict"][key], other["state_dict"][key]) for key in one["state_dict"])
    torch.testing.assert_close(one["optimizer_states"], other["optimizer_states"], rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "what", "least", "most"), [("wgan_gp.py", "mean miss", 0.0, 0.4), ("sam.py", "accuracy", 0.95, 1.0)]
)
def test_an_example_learns(tmp_path: Path, name: str, what: str, least: float, most: float) -> None:
    done = start(tmp_path, name)
    assert done.returncode == 0, done.stderr
    (figure,) = re.findall(rf"^{what} +(.+)$", done.stdout, re.MULTILINE)
    assert least <= float(figure) <= most
