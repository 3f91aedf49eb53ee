"""The templates for several GPUs and for a cluster run as programs, on a machine that has neither."""

import csv
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

import pytorch_lightning

ROOT = Path(pytorch_lightning.__file__).parent.parent
QUICK = ("--hidden_dim", "16", "--train_percent_check", "0.1", "--val_percent_check", "0.5", "--max_nb_epochs", "1")


@pytest.fixture(autouse=True)
def copies(tmp_path: Path) -> None:
    for path in (ROOT / "examples" / "new_project_templates").glob("*.py"):
        shutil.copy(path, tmp_path)


def start(folder: Path, *command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def shown(output: str, name: str) -> str:
    (value,) = re.findall(rf"^{name} +(.+)$", output, re.MULTILINE)
    return str(value)


def assert_trained(output: str) -> None:
    metrics = Path(shown(output, "metrics"))
    with metrics.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(shown(output, "test accuracy")) == round(float(rows[-1]["test_acc"]), 3)
    assert len([row for row in rows if row["val_loss"]]) == 1
    assert torch.load(shown(output, "best checkpoint"), weights_only=True)["state_dict"]["hidden.weight"].shape[0] == 16


@pytest.mark.slow
@pytest.mark.skipif(torch.accelerator.is_available(), reason="for a machine without a GPU")
@pytest.mark.parametrize("backend", ["ddp", "dp"])
def test_the_template_for_several_gpus_trains_without_one(tmp_path: Path, backend: str) -> None:
    done = start(tmp_path, sys.executable, "multi_gpu_template.py", *QUICK, "--distributed_backend", backend)
    assert done.returncode == 0, done.stderr
    assert_trained(done.stdout)
    where = "training in 2 CPU processes (ddp)," if backend == "ddp" else "training on cpu, precision"
    assert done.stdout.count(where) == 1
    assert len(list((tmp_path / "test_tube_logs" / "default").iterdir())) == 1


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are no two GPUs")
@pytest.mark.parametrize("backend", ["ddp", "dp"])
def test_the_template_for_several_gpus_trains_on_them(tmp_path: Path, backend: str) -> None:
    """The template for several GPUs trains on two or more of them, by each backend."""
    done = start(tmp_path, sys.executable, "multi_gpu_template.py", *QUICK, "--distributed_backend", backend)
    assert done.returncode == 0, done.stderr
    assert_trained(done.stdout)


def programs(folder: Path, **scripts: str) -> str:
    """A PATH on which ``python`` is this one, and with further shell scripts."""
    place = folder / "programs"
    place.mkdir()
    for name, text in {"python": f'exec {sys.executable} "$@"', **scripts}.items():
        (place / name).write_text(f"#!/bin/sh\n{text}\n")
        (place / name).chmod(0o755)
    return f"{place}{os.pathsep}{os.environ['PATH']}"


def option_of(script: Path, name: str) -> str:
    (value,) = re.findall(rf" --{name} (\S+)", script.read_text())
    return str(value)


def submitted(folder: Path) -> Sequence[Path]:
    return sorted((folder / "slurm" / "search" / "slurm_scripts").iterdir())


@pytest.mark.slow
def test_each_trial_of_the_cluster_template_is_a_job_that_trains(tmp_path: Path) -> None:
    path = programs(tmp_path, sbatch="exit 0", srun='exec "$@"')  # a cluster of one machine that starts jobs when told
    options = (*QUICK, "--nb_trials", "4", "--tt_name", "search")
    done = start(tmp_path, sys.executable, "cluster_template.py", *options, PATH=path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("launched exp") == 4
    jobs = submitted(tmp_path)
    trials = {(option_of(job, "learning_rate"), option_of(job, "drop_prob")) for job in jobs}
    assert len(trials) == 4, "each job has a trial of its own"

    ran = start(tmp_path, "bash", str(jobs[2]), PATH=path)
    assert ran.returncode == 0, ran.stderr
    assert_trained(ran.stdout)
    version = Path(shown(ran.stdout, "metrics")).parent
    assert version.name == "version_2", "the number of the trial"
    tags = dict(list(csv.reader((version / "meta_tags.csv").read_text().splitlines()))[1:])
    assert (tags["learning_rate"], tags["drop_prob"]) == (
        option_of(jobs[2], "learning_rate"),
        option_of(jobs[2], "drop_prob"),
    )
