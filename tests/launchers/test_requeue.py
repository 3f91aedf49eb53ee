"""The messages about a job that is to be requeued, for each answer of SLURM's ``scontrol``."""

from pathlib import Path

import pytest

from pytorch_lightning.launchers.slurm import requeue

JOB = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train"}
HOW = "run the same command with resume='logs/version_0' to resume"
RUNS, CANCELLED = "echo JobState=RUNNING Reason=None", "echo JobState=COMPLETING Reason=None"


@pytest.mark.parametrize(
    ("show", "again", "said"),
    [
        (RUNS, "exit 0", "job 7 is requeued, and resumes automatically"),
        # a job that is queued again is ended first, and with it all that it has started
        (RUNS, "kill -TERM $$", "job 7 is requeued, and resumes automatically"),
        # when memory runs out, say: SLURM would have ended this process in the same way
        (RUNS, "kill -KILL $$", "job 7 couldn't be requeued (Command"),
        (RUNS, "echo no such job >&2; exit 1", "job 7 couldn't be requeued (no such job); run the same command"),
        (RUNS, "kill -SEGV $$", "job 7 couldn't be requeued (Command"),
        (CANCELLED, "touch called", HOW),
        ("kill -TERM $$", "touch called", "job 7 couldn't be requeued (scontrol was ended by SIGTERM)"),
    ],
)
def test_what_became_of_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, show: str, again: str, said: str
) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f"#!/bin/sh\nif [ $1 = show ]; then {show}; else {again}; fi\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.chdir(tmp_path)
    assert requeue(JOB, HOW).startswith(said)
    assert not (tmp_path / "called").exists()


def test_without_scontrol_a_line_says_how_to_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said = requeue(JOB, HOW)
    assert said.startswith("job 7 couldn't be requeued, since there is no scontrol here")
    assert said.endswith(HOW)
