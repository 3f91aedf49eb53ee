"""The how-tos about what starts a program: torchrun, a cluster, a notebook, pytest, a second try."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest
import torch

from tests.examples.test_howto import PROGRAMS, ROOT, page_of, parts_of, run, shown_in

pytestmark = pytest.mark.slow
Run = Callable[..., str]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """``start(name, *words)``: what a program prints that is started with these words."""
    monkeypatch.chdir(tmp_path)

    def started(name: str, *words: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, *words])
        return run(name, capsys)[0]

    return started


def commands_in(page: str, begin: str) -> list[str]:
    """The commands of a page that begin so."""
    return re.findall(rf"^    (?:\$ )?({re.escape(begin)}.*)$", page, re.MULTILINE)


def shell(line: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""}
    words = line.replace("python ", f"{sys.executable} ", 1).split()
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)


def test_two_processes_of_torchrun_print_what_one_process_prints(tmp_path: Path, start: Run) -> None:
    alone = start("several_machines")
    (command,) = commands_in(page_of("several_machines"), "python -m torch.distributed.run")
    shutil.copy(PROGRAMS["several_machines"], tmp_path)
    done = shell(command, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == alone
    assert "310 samples" in alone


def test_a_job_that_is_warned_is_queued_again_and_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], start: Run
) -> None:
    whole = start("preemption", "--folder", "whole")
    warned, again = (c.split(";")[0].split()[2:] for c in commands_in(page_of("preemption"), "python preemption.py --"))
    with pytest.raises(SystemExit, match="75"):
        start("preemption", *warned)
    assert "stopped by SIGUSR1 (global_step 51): run the same command" in capsys.readouterr().out
    assert start("preemption", *again) == whole

    scontrol = tmp_path / "scontrol"
    scontrol.write_text("#!/bin/sh\necho $@ >> asked; echo JobState=RUNNING Reason=None\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    with pytest.raises(SystemExit, match="75"):
        start("preemption", "--folder", "job", "--warn_at", "70")
    assert "job 7 is requeued, and resumes automatically" in capsys.readouterr().out
    assert (tmp_path / "asked").read_text().splitlines()[-1] == "requeue 7"
    assert start("preemption", "--folder", "job") == whole


def test_a_search_that_was_killed_goes_on_with_the_same_numbers(monkeypatch: pytest.MonkeyPatch, start: Run) -> None:
    loss, nb_batches = torch.nn.functional.cross_entropy, 0

    def counted(*arguments: Any) -> torch.Tensor:
        nonlocal nb_batches
        nb_batches += 1
        if nb_batches == 150:  # in the third trial
            raise KeyError("stands for a kill")
        return loss(*arguments)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", counted)
    with pytest.raises(KeyError):
        start("search")
    assert [path.name for path in sorted(Path("search").iterdir())] == ["0", "1", "2"]
    for line, shown in zip(start("search").splitlines(), shown_in(page_of("search")), strict=True):
        assert parts_of(line)[1] == pytest.approx(parts_of(shown)[1], abs=0.1)
    assert nb_batches == 1 + 5 * 3 * 20 + 3 * 7 * 20, "what was trained isn't trained again"


@pytest.mark.filterwarnings("ignore")  # of the notebook client's own
def test_the_cells_run_in_a_notebook(tmp_path: Path) -> None:
    text = PROGRAMS["notebooks"].read_text()
    cells = [cell.partition("\n")[2] for cell in text.split("# %%")[1:]]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.outputs]
    printed = "".join(output["text"] for output in outputs if output["output_type"] == "stream")
    for line in shown_in(page_of("notebooks")):
        assert any(parts_of(line)[0] == parts_of(other)[0] for other in printed.splitlines()), (line, printed)
    shown = [output["data"]["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert len(shown) == 3, "a table of epochs for each fit, and one of the runs"
    assert "tng_loss" in shown[-1]


def test_the_tests_of_a_model_pass_and_one_notices_a_change(tmp_path: Path) -> None:
    shutil.copy(PROGRAMS["testing"], tmp_path)
    (options,) = commands_in(page_of("testing"), "from pytorch_lightning.testing")
    (tmp_path / "conftest.py").write_text(options)
    write, compare = commands_in(page_of("testing"), "python -m pytest")
    done = shell(write, tmp_path)
    assert "5 passed" in done.stdout, done.stdout
    assert 5_000 < (tmp_path / "classifier.json").stat().st_size < 20_000

    program = tmp_path / "testing.py"
    program.write_text(program.read_text().replace("slope=0.1", "slope=0.2"))
    done = shell(f"{compare} -k trains_as", tmp_path)
    assert "1 failed, 4 deselected" in done.stdout, done.stdout
    assert "the output of network.1 (LeakyReLU) differs" in done.stdout
