"""What a job of the tests runs: ``job.py FOLDER OPTIONS``."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytorch_lightning.launchers.slurm import job_name
from tests.launchers import program


class JobSender(program.Sender):
    """Asks Slurm to send the signal to the whole job, in its first start only, and waits until it is here."""

    def look(self, place: str, number: int) -> None:
        if (place, number) != self.at or "SLURM_RESTART_COUNT" in os.environ:
            return
        if self.to == "rank 1" and os.environ["SLURM_PROCID"] != "1":
            return
        if self.to.startswith("task") and self.to != f"task {os.environ['SLURM_ARRAY_TASK_ID']}":
            return
        if self.to == "rank 1":
            super().look(place, number)
            return
        self.at = ("", 0)
        for name in self.signals:
            how = ["--batch"] if self.to == "batch" else []
            with waiting_for_signal():
                subprocess.run(["scancel", f"--signal={name}", *how, job_name(os.environ)], check=True, timeout=60)


@contextlib.contextmanager
def waiting_for_signal() -> Iterator[None]:
    """A scope that ends when a handler ran in it."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer)
    yield
    os.read(reader, 1)
    signal.set_wakeup_fd(before)


def main(folder: str, options: dict[str, Any]) -> None:
    """Train; ``waits_at`` is a step in which a first start waits for a signal from outside."""
    waits_at = options.pop("waits_at", None)
    program.Sender = JobSender  # type: ignore[misc]
    if waits_at is not None and "SLURM_RESTART_COUNT" not in os.environ:

        class Waiting(JobSender):
            def look(self, place: str, number: int) -> None:
                if (place, number) == ("step", waits_at):
                    with waiting_for_signal():
                        Path("waits").touch()

        program.Sender = Waiting  # type: ignore[misc]
    program.main(folder, **options)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
