"""Jobs of a real Slurm: saved, queued again, continued by themselves, to the same weights."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.launchers import program
from tests.launchers.listening import WAITING, look_at_waiting
from tests.launchers.test_signals import run

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).parent / "slurm_up.sh"
PROGRAM = Path(__file__).parent / "job.py"
SECONDS = 60

pytestmark = pytest.mark.root


def reason_to_skip() -> str:
    """Why Slurm can't be started here; empty where it can."""
    if os.environ.get("CI_NO_SKIPS"):
        return ""
    if not hasattr(os, "geteuid") or os.geteuid():
        return "starting Slurm needs root"
    if shutil.which("slurmctld") is None and shutil.which("apt-get") is None:
        return "there is no Slurm, and no apt-get to install it"
    return ""


def command(*words: Any, check: bool = True) -> str:
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    reason = reason_to_skip()
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("slurm")
    log = folder / "up.log"
    with pytest.MonkeyPatch.context() as patch, log.open("w") as output:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("PYTHONPATH", str(ROOT))
        try:
            up = subprocess.run(
                [str(SCRIPT), "up", str(folder)], stdout=output, stderr=output, timeout=300, check=False
            )
            if up.returncode and shutil.which("slurmctld") is None and not os.environ.get("CI_NO_SKIPS"):
                pytest.skip("Slurm can't be installed here")
            assert up.returncode == 0, log.read_text()
            yield
        finally:
            subprocess.run([str(SCRIPT), "down", str(folder)], stdout=output, stderr=output, timeout=120, check=False)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert run(folder).code == 0
    return program.outcome(folder)


Submit = Callable[..., str]


@pytest.fixture
def submit(slurm: None, tmp_path: Path) -> Iterator[Submit]:
    """Runs ``line`` as a batch script; returns the job's number."""
    jobs = []

    def sbatch(line: str, *options: str) -> str:
        script = tmp_path / "job.sh"
        script.write_text(f"#!/bin/bash\n{line}\n")
        output = ("--open-mode=append", f"--output={tmp_path}/said-%j")
        jobs.append(command("sbatch", "--parsable", *output, *options, script))
        return jobs[-1]

    yield sbatch
    for job in jobs:
        command("scancel", job, check=False)


def ended(job: str, folder: Path, seconds: float = SECONDS) -> str:
    """The state in which a job ended, after its requeues; with what it said where that takes too long."""
    waited = subprocess.run(
        # in one process: polls the state until it is final
        ["bash", "-c", f"while squeue -h -j {job} | grep -q .; do sleep 0.2; done; scontrol show job -o {job}"],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    return waited.stdout


def of_job(name: str, line: str) -> str:
    return next(word.partition("=")[2] for word in line.split() if word.startswith(f"{name}="))


def line_of(folder: Path, **options: Any) -> str:
    return f"{sys.executable} {PROGRAM} {folder} '{program.json.dumps(options)}'"


def said(folder: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(folder.glob("said-*")))


def assert_continued(job: str, folder: Path, undisturbed: Any, nb_restarts: int = 1) -> None:
    line = ended(job, folder)
    assert (of_job("JobState", line), of_job("Restarts", line)) == ("COMPLETED", str(nb_restarts)), said(folder)
    assert program.outcome(folder) == undisturbed


def test_a_job_that_gets_its_warning_is_saved_requeued_and_resumes(
    submit: Submit, tmp_path: Path, undisturbed: Any
) -> None:
    job = submit(f"srun {line_of(tmp_path, send=['step', 5, 'job', ['SIGUSR1']])}")
    assert_continued(job, tmp_path, undisturbed)
    assert f"stopped by SIGUSR1 (global_step 6): job {job} is requeued" in said(tmp_path)


def test_the_warning_before_the_time_limit_does_the_same(submit: Submit, tmp_path: Path, undisturbed: Any) -> None:
    # Slurm looks every half minute, so the signal comes half a minute to a minute after the start: before python has
    # imported the library nothing could handle it
    line = f"srun {line_of(tmp_path, waits_at=5)}"
    job = submit(line, "--time=2", "--signal=USR1@60")
    ended(job, tmp_path, seconds=150)
    assert_continued(job, tmp_path, undisturbed)


@pytest.mark.nightly
def test_a_plain_script_resumes_too(submit: Submit, tmp_path: Path, undisturbed: Any) -> None:
    job = submit(f"exec {line_of(tmp_path, send=['step', 5, 'batch', ['SIGUSR2']])}")
    assert_continued(job, tmp_path, undisturbed)


@pytest.mark.nightly
def test_a_signal_before_fit_loses_nothing(submit: Submit, tmp_path: Path, undisturbed: Any) -> None:
    job = submit(f"srun {line_of(tmp_path, send=['constructed', 0, 'job', ['SIGUSR1']], nb_sanity_val_steps=0)}")
    assert_continued(job, tmp_path, undisturbed)


@pytest.mark.nightly
def test_a_job_that_is_pushed_out_resumes_later(submit: Submit, tmp_path: Path, undisturbed: Any) -> None:
    job = submit(f"srun {line_of(tmp_path, waits_at=5)}", "--partition=low", "--exclusive", "--nodes=2", "--ntasks=1")
    command("bash", "-c", f"until [ -e {tmp_path}/waits ]; do sleep 0.05; done")
    other = submit("true", "--partition=high", "--exclusive", "--nodes=2")
    assert_continued(job, tmp_path, undisturbed)
    assert "stopped by SIGTERM" in said(tmp_path)
    assert of_job("JobState", ended(other, tmp_path)) == "COMPLETED"


def test_a_job_that_is_cancelled_is_saved_and_not_requeued(submit: Submit, tmp_path: Path) -> None:
    job = submit(f"srun {line_of(tmp_path, waits_at=5)}")
    command("bash", "-c", f"until [ -e {tmp_path}/waits ]; do sleep 0.05; done")
    command("scancel", job)
    line = ended(job, tmp_path)
    assert (of_job("JobState", line), of_job("Restarts", line)) == ("CANCELLED", "0")
    assert len(list(tmp_path.glob("lightning_logs/*/*/checkpoints/step-*.ckpt"))) == 1, said(tmp_path)


@pytest.mark.nightly
def test_of_an_array_only_the_task_that_was_warned_is_requeued(
    submit: Submit, tmp_path: Path, undisturbed: Any
) -> None:
    for task in "12":
        (tmp_path / task).mkdir()
    line = line_of(Path(f"{tmp_path}/$SLURM_ARRAY_TASK_ID"), send=["step", 5, "task 2", ["SIGUSR1"]])
    job = submit(f"srun {line}", "--array=1-2")
    for task, restarts in (("1", 0), ("2", 1)):
        assert_continued(f"{job}_{task}", tmp_path / task, undisturbed, restarts)


def test_two_nodes_agree_and_one_of_them_queues_the_job_again(submit: Submit, tmp_path: Path) -> None:
    states = []
    for name, sending in (("calm", {}), ("warned", {"send": ["step", 3, "rank 1", ["SIGUSR1"]]})):
        folder = tmp_path / name
        folder.mkdir()
        options = {"nb_gpu_nodes": 2, "distributed_backend": "ddp", **sending}
        job = submit(f"srun --ntasks-per-node=1 {line_of(folder, **options)}", "--nodes=2", "--ntasks-per-node=1")
        line = ended(job, folder)
        states.append((of_job("JobState", line), of_job("Restarts", line)))
    assert states == [("COMPLETED", "0"), ("COMPLETED", "1")], said(tmp_path)
    assert program.outcome(tmp_path / "warned") == program.outcome(tmp_path / "calm")
    assert said(tmp_path).count("is requeued") == 1


def test_tasks_of_one_node_meet_at_loopback_alone(submit: Submit, tmp_path: Path) -> None:
    (tmp_path / "waiting.py").write_text(WAITING.replace("nb_processes=int(nb), ", ""))
    line = f"cd {tmp_path} && GLOO_SOCKET_IFNAME=lo srun {sys.executable} waiting.py"
    job = submit(line, "--nodes=1", "--ntasks=2")
    pids = (int(path.read_text()) for path in tmp_path.glob("waits_*"))
    found = look_at_waiting(tmp_path, 2, lambda: pids)
    assert of_job("JobState", ended(job, tmp_path)) == "COMPLETED", said(tmp_path)
    assert found
    assert all(address.is_loopback for address in found), found


@pytest.mark.nightly
def test_a_search_by_slurm_cluster_resumes_trial_by_trial(slurm: None, tmp_path: Path, undisturbed: Any) -> None:
    # `python search.py` submits the jobs, each of which runs the same script
    launch = command(sys.executable, Path(__file__).parent / "search.py", "--folder", tmp_path)
    assert launch.count("launched exp") == 2, launch
    jobs = [line.split()[-1] for line in launch.splitlines() if line.startswith("Submitted batch job")]
    for job in jobs:
        line = ended(job, tmp_path)
        out = "\n".join(path.read_text() for path in tmp_path.glob("logs/**/*.out"))
        out += "\n".join(path.read_text() for path in tmp_path.glob("logs/**/*.err"))
        assert (of_job("JobState", line), of_job("Restarts", line)) == ("COMPLETED", "1"), out
    weights = [program.outcome(tmp_path / rate)[0] for rate in ("0.01", "0.02")]
    assert weights[0] == undisturbed[0] != weights[1]
