"""What the first process writes of a run beside its rows and saves: ``options.yaml`` and ``run.json``."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.checkpoints.checkpoint import plain_hparams
from pytorch_lightning.errors import one_line
from pytorch_lightning.loggers.metrics_file import replace_file
from pytorch_lightning.options.option_files import NAME, given_in, lines_of
from pytorch_lightning.root_module.summary import summarize
from pytorch_lightning.root_module.tags import SECRET
from pytorch_lightning.run import record
from pytorch_lightning.trainer.fit_plan import FitPlan

MOST_OF_A_SUMMARY = 100_000
"""Characters: a record that is too long isn't read."""


def folder_of(plan: FitPlan) -> Path | None:
    """The folder of the run on this machine; None where it has none, and for a trial."""
    saves = plan.rolling.folder
    if plan.run.scratch is not None or plan.run.folder is not None:
        return None if plan.run.scratch is not None else plan.run.folder
    return None if saves is None or "://" in saves else Path(saves).parent


def note_start(plan: FitPlan, options: Mapping[str, Any], given: Mapping[str, str | None]) -> None:
    """A fit begins: write its options, and that it is running."""
    folder = folder_of(plan)
    if folder is not None:
        texts = {**given_in(plain_hparams(plan.module.hparams)), **given}
        secret = [k for k, text in texts.items() if SECRET.search(k.lower()) and (text or "").startswith('"')]
        lines = lines_of(options, {**texts, **dict.fromkeys(secret)})
        began = time.time() - plan.run.timings.total
        start = {**record.this_process(), "began": began, "from_step": plan.run.progress.global_step}
        start["processes"] = plan.saver.strategy.processes.nb
        before = record.starts_in(folder)
        if before and "ended" not in before[-1]:  # killed: what came after its last save is trained again
            times = [path.stat().st_mtime for path in folder.glob("checkpoints/*.ckpt")]
            before[-1]["saved"] = max(times, default=None)
        starts = [*before, {**start, "versions": record.versions()}]
        about = {"model": type(plan.module).__name__, "summary": summarize(plan.module)[:MOST_OF_A_SUMMARY]}
        kept = {name: value for name, value in record.read(folder).items() if name == record.FORK}
        _write(plan, folder, {**kept, **about, "starts": starts}, lines)


def note_end(plan: FitPlan, failed: bool) -> None:
    """A fit is over: write how it ended."""
    folder, run = folder_of(plan), plan.run
    before = {} if folder is None else record.read(folder)
    starts = record.starts_of(before)
    # another one resumed it meanwhile, or somebody removed the file
    if folder is None or not starts or starts[-1].get("pid") != os.getpid():
        return
    error = sys.exception() if failed and not run.interrupted else None
    is_cut = run.interrupted or isinstance(error, (KeyboardInterrupt, SystemExit))
    error = None if isinstance(error, SystemExit) else error  # its reason says more
    starts[-1] |= {
        "ended": time.time(),
        "state": "interrupted" if is_cut else "failed" if failed else "complete",
        "reason": run.progress.stop_reason,
        "error": None if error is None else one_line(f"{type(error).__name__}: {error}"),
        "epoch": run.progress.epoch,
        "global_step": run.progress.global_step,
        "seconds": {phase: round(seconds, 3) for phase, seconds in run.timings.seconds.items()},
    }
    _write(plan, folder, {**before, "starts": starts})


def _write(plan: FitPlan, folder: Path, values: dict[str, Any], lines: Sequence[str] = ()) -> None:
    """Training never stops for these files."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if lines:
            replace_file(folder / NAME, "\n".join([*lines, ""]))
        record.write(folder, values)
    except OSError as error:
        text = f"{NAME} and {record.NAME} of the run can't be written: {error.strerror}"
        plan.run.notices.say("no-run-file", text)
