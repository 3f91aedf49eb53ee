"""A job of a SLURM cluster: whether this is one, and how it is queued again."""

import contextlib
import re
import signal
import subprocess
from collections.abc import Mapping

SECONDS_TO_ANSWER = 60


def is_batch_job(environment: Mapping[str, str]) -> bool:
    """Whether this process belongs to a batch job, which can be queued again.

    >>> is_batch_job({"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train"}), is_batch_job({"SLURM_JOB_ID": "7"})
    (True, True)
    >>> is_batch_job({"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "bash"}), is_batch_job({})
    (False, False)
    """
    return "SLURM_JOB_ID" in environment and environment.get("SLURM_JOB_NAME") not in ("bash", "interactive")


def job_name(environment: Mapping[str, str]) -> str:
    """What scontrol calls the job. The plain number of an array's last task would mean the whole array.

    >>> job_name({"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "2"})
    '9_2'
    """
    if "SLURM_ARRAY_TASK_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment["SLURM_JOB_ID"]


def wants_requeue(state: str) -> bool:
    """Whether the job should be queued again after a signal, ``state`` being scontrol's line about it.

    It still runs after a warning, and in the grace before a preemption; otherwise it is ended by its time limit, or it
    was cancelled; a preemption without grace is requeued by the cluster.

    >>> wants_requeue("JobState=RUNNING Reason=None"), wants_requeue("JobState=COMPLETING Reason=TimeLimit")
    (True, True)
    >>> wants_requeue("JobState=COMPLETING Reason=None")
    False
    """
    return re.search(r"\bJobState=RUNNING\b|\bReason=TimeLimit\b", state) is not None


def requeue(environment: Mapping[str, str], how: str) -> str:
    """Queue this job again, unless it was cancelled; returns what became of it, in words. ``how`` says what to do where
    it isn't queued."""
    job = job_name(environment)
    try:
        if not wants_requeue(_ask("show", "job", "-o", job)):
            return how
        with contextlib.suppress(EndedWithTheJob):  # which SLURM ends once it is queued again
            _ask("requeue", job)
    except FileNotFoundError:
        return f"job {job} couldn't be requeued, since there is no scontrol here (in a container, perhaps); {how}"
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip()
        return f"job {job} couldn't be requeued ({said}); {how}"
    return f"job {job} is requeued, and resumes automatically"


class EndedWithTheJob(subprocess.SubprocessError):
    """A question to SLURM was ended by SIGTERM, as all processes of a job are that ends."""


def _ask(*words: str) -> str:
    # in a session of its own, which signals to this one's group don't reach
    done = subprocess.run(
        ["scontrol", *words], capture_output=True, text=True, timeout=SECONDS_TO_ANSWER, start_new_session=True
    )
    if done.returncode == -signal.SIGTERM:
        raise EndedWithTheJob("scontrol was ended by SIGTERM")
    done.check_returncode()
    return done.stdout
