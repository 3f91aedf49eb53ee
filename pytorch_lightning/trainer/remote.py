"""A run in processes of its own: what is sent there, and what comes back."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pytorch_lightning.errors import MisconfigurationException, Notices
from pytorch_lightning.launchers.signals import Stopped
from pytorch_lightning.loggers.sent_experiment import packed, refresh, unpacked
from pytorch_lightning.options.config import Config
from pytorch_lightning.printing import tell
from pytorch_lightning.resume.parts import CallbacksPart
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.run.files import keepers_of
from pytorch_lightning.run.run import FitRun
from pytorch_lightning.trainer.fit_result import FitResult


def run_remotely(
    make_trainer: Callable[[dict[str, Any]], Any],
    options: dict[str, Any],
    stage: str,
    module: LightningModule,
    arguments: tuple[Any, ...],
    nb: int,
) -> dict[str, Any]:
    """Run ``stage`` ('fit', 'validate', 'test' or 'predict') in ``nb`` new processes; returns what the first gave:
    ``returned``, ``exit`` (the code, where it ended the program), and after a fit the state of everything that a user
    may look at. ``make_trainer(options)`` is called in each of them."""
    from pytorch_lightning.launchers.spawned import run_in_processes

    job = {
        "make_trainer": make_trainer,
        "options": {**options, "experiment": packed(options["experiment"]), "cluster": None},
        "stage": stage,
        "module": module,
        "arguments": arguments,
        "random": torch.initial_seed(),
    }
    if options["progress_bar"] or options["print_weights_summary"]:
        tell(f"starting {nb} processes")  # it takes seconds until the first of them can say anything
    told: dict[str, Any] = {}
    try:
        told = run_in_processes(run_job, job, nb)
    finally:
        version = told["counts"][2] if "counts" in told else None
        others = told.get("parts", {}).get("loggers", {}).get("versions")
        refresh(options["experiment"], version, told.get("progress", {}).get("global_step", 0), others)
    return told


def run_job(path: str) -> dict[str, Any]:
    """What a new process does."""
    import os

    from pytorch_lightning.launchers.job import read_job

    try:
        job = Namespace(**read_job(path))
    except (AttributeError, ImportError) as error:
        raise MisconfigurationException(
            f"a new process doesn't find what the model or a callback is made of: {error}. Define classes at the top"
            ' level of a file, not under `if __name__ == "__main__":`.'
        ) from error
    torch.manual_seed(job.random)
    options = job.options
    options["experiment"] = unpacked(options["experiment"], is_first=os.environ["RANK"] == "0")
    trainer = job.make_trainer(options)
    returned, code = 0, None
    try:
        returned = getattr(trainer, job.stage)(job.module, *job.arguments)
    except Stopped as end:  # all processes together; for the one that started them
        code = end.code
    return {"returned": returned, "exit": code, **(trainer._remote_state() if job.stage == "fit" else {})}


def state_of(plan: FitResult, config: Config) -> dict[str, Any]:
    """What a fit leaves behind, on the CPU. Every process calls it."""
    run = plan.run
    with plan.saver.with_all():
        parts = {name: part.state_dict() for name, part in plan.saver.parts.items()}
    return {
        "module": {name: value.cpu() for name, value in plan.module.state_dict().items()},
        "optimizers": [optimizer.state_dict() for optimizer in plan.get_optimizers()],
        "schedulers": [schedule.scheduler.state_dict() for schedule in plan.get_schedules()],
        "parts": parts,
        "kept": [(keeper.filepath, keeper.kept, keeper.best_path) for keeper in keepers_of(config)],
        "seed": plan.seed,
        "progress": run.progress.state_dict(),
        "metrics": run.metrics.state_dict(),
        "counts": (run.nb_tng_batches, run.nb_val_batches, run.version),
        "folder": None if run.folder is None else str(run.folder),
    }


def take_state(state: dict[str, Any], config: Config, module: LightningModule, run: FitRun, callbacks: Any) -> None:
    """Bring the caller's objects to the state that ``state_of`` gave."""
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        # loading converts to what is here: the fit may have been in another precision
        if name in state["module"] and state["module"][name].dtype != tensor.dtype:
            tensor.data = tensor.data.to(state["module"][name].dtype)
    module.load_state_dict(state["module"])
    run.progress.load_state_dict(state["progress"])
    run.metrics.load_state_dict(state["metrics"])
    said = Notices(("absent-callbacks",))  # by the fit
    CallbacksPart(callbacks, said).load_state_dict(state["parts"]["callbacks"])
    for keeper, kept in zip(keepers_of(config), state["kept"], strict=True):
        keeper.follow(*kept)
    run.nb_tng_batches, run.nb_val_batches, run.version = state["counts"]
    run.folder = None if state["folder"] is None else Path(state["folder"])
