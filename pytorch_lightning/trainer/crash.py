"""The failing batch, kept: what ``python -m pytorch_lightning.replay`` needs to raise the same exception again.

Nothing is done for it while training goes well. The batch is taken from the frames of the traceback, where it still
is; the weights in memory are those that the step saw, as long as no optimizer has stepped since.
"""

import contextlib
import inspect
import math
import os
import platform
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any

import torch
from torch import Tensor

from pytorch_lightning import __version__
from pytorch_lightning.checkpoints.checkpoint import LEAVES, plain_hparams, to_plain
from pytorch_lightning.checkpoints.folders import megabytes, open_folder
from pytorch_lightning.checkpoints.snapshot import nb_bytes
from pytorch_lightning.data.sharing import IDLE
from pytorch_lightning.data.transfer import build_transfer
from pytorch_lightning.errors import CheckpointError
from pytorch_lightning.trainer.fit_plan import FitPlan
from pytorch_lightning.trainer.progress import Progress
from pytorch_lightning.trainer.round_table import LOSS, PRESENT
from pytorch_lightning.trainer.rounds import Rounds

FORMAT = 1
MOST_BYTES = 2 * 10**9

LOADER_FILES = re.compile(r"torch/utils/data/|pytorch_lightning/(timings|data/(?!transfer)\w+)\.py$")
PLACE = re.compile(r"raised by (?:the dataset of )?the training loader \(epoch \d+, batch_nb (\d+)")


@dataclass(kw_only=True)
class Failure:
    """What failed: ``kind`` is 'step' (up to the end of the backward pass), 'hook' (between that and the optimizers'
    step) or 'loader'."""

    kind: str = "step"
    batch_nb: int
    """In the epoch; of a loader, the loader's own number."""
    global_step: int
    batch: Any = None
    virtual_rank: int = 0
    optimizer_i: int | None = None
    window: tuple[Any, ...] = (1, None, 1.0)
    """What the loss is weighed by; see ``step.Window``."""
    buffers: Mapping[str, Tensor] | None = None
    """As they were before the step; None where they weren't kept."""


def keep_failing_batch(plan: FitPlan, error: Exception, options: Mapping[str, Any]) -> None:
    """Write the bundle of the batch in which ``error`` was raised into the run's folder, and say how to replay it;
    nothing where there is no folder, or where the error isn't a batch's. Never raises."""
    processes = plan.strategy.processes
    folder = plan.run.folder if plan.rolling.folder is None else os.path.dirname(plan.rolling.folder)
    if not plan.config.crash_bundle or folder is None or (processes.nb > 1 and _is_about_others(error)):
        return
    name = f"bundle.rank{processes.rank}.pt" if processes.rank else "bundle.pt"
    try:
        failure = find_failure(plan, error)
        if failure is None:
            return
        bundle = build_bundle(plan, failure, error, options)
        size = nb_bytes(bundle)
        if size > MOST_BYTES:
            limit = f"is {megabytes(size)} large, and {megabytes(MOST_BYTES)} is the most that is kept of it"
            plan.run.notices.say("crash-bundle", f"the failing batch with its weights {limit}")
            return
        if "://" not in str(folder):
            os.makedirs(f"{folder}/crash", exist_ok=True)
        open_folder(f"{folder}/crash").write(bundle, name)
    except Exception as problem:  # the error that led here is the one to be heard
        why = " ".join(str(problem).split())
        plan.run.notices.say("crash-bundle", f"the failing batch can't be kept: {type(problem).__name__}: {why}")
        return
    path = f"{folder}/crash/{name}"
    plan.run.notices.report(f"the failing batch is kept: python -m pytorch_lightning.replay {shlex.quote(path)}")


def _is_about_others(error: Exception) -> bool:
    """Whether ``error`` only says that another process is gone."""
    return isinstance(error, torch.distributed.DistError) or bool(re.search(r"gloo|NCCL", str(error)))


def find_failure(plan: FitPlan, error: BaseException) -> Failure | None:
    """The batch that ``error`` was raised for, from the frames of its traceback; None where an optimizer has stepped
    since, and where the error isn't a batch's."""
    found, window, from_loader = _frames(error, plan.progress)
    if window is None:
        return None
    if from_loader:
        return _of_loader(plan, error, found, window)
    return _of_round(plan, found, window["rounds"]) if "rounds" in window else _of_batch(plan, found, window)


def _frames(error: BaseException, progress: Progress) -> tuple[dict[str, Any], dict[str, Any] | None, bool]:
    """The variables of the trainer's functions on the traceback, by name, those of the window, and whether the error
    comes from what the window iterates over. The outermost count: a step may run a fit of its own."""
    found: dict[str, dict[str, Any]] = {}
    window: dict[str, Any] | None = None
    trace, from_loader = error.__traceback__, False
    while trace is not None:
        code, values = trace.tb_frame.f_code, trace.tb_frame.f_locals
        if window is not None and not set(found) - {"Rounds.next_round"}:
            from_loader = from_loader or LOADER_FILES.search(code.co_filename) is not None
        if os.path.dirname(code.co_filename) == os.path.dirname(__file__):
            if window is not None:
                found.setdefault(code.co_qualname.rsplit("<locals>.")[-1], values)
            elif code.co_name == "train_window" and values.get("progress") is progress:
                window = values
        trace = trace.tb_next
    return found, window, from_loader


def _of_batch(plan: FitPlan, found: dict[str, Any], window: dict[str, Any]) -> Failure | None:
    kept = plan.window_start.buffers
    made = Failure(
        batch_nb=plan.progress.batch_nb,
        global_step=plan.progress.global_step,
        batch=window["batch"],
        buffers=None if kept is None else kept.by_name(),
    )
    closure, forward, update = found.get("evaluate"), found.get("forward_backward"), found.get("update")
    if closure is not None:
        made.batch, made.batch_nb, made.global_step = (closure[n] for n in ("batch", "batch_nb", "global_step"))
    if forward is not None:
        made.batch, _, *optimizer_i = forward["arguments"]
        made.optimizer_i = optimizer_i[0] if optimizer_i else None
        made.window = tuple(getattr(forward["window"], name) for name in ("size", "counted", "reference"))
    elif closure is not None:
        made.kind = "hook"
    elif update is not None:
        # once one of several has stepped, at the end of a window, the weights aren't the step's any more
        if "i" in update or (update["which"][0] and "run_batch" not in found):
            return None
        made.kind, made.optimizer_i = "hook", update["which"][0] if window["takes_optimizer"] else None
    elif set(found) - {"<listcomp>"}:  # after the step
        return None
    return made


def _of_round(plan: FitPlan, found: dict[str, Any], rounds: Rounds) -> Failure | None:
    run = found.get("Rounds.run")
    here = found.get("Rounds._run_batch") or run or found.get("Rounds.next_round")
    if here is None:
        return None
    virtual_rank, batch, table = here["virtual_rank"], here["batch"], found.get("RoundTable.close", {}).get("table")
    if table is not None and run is not None:  # everybody sees every loss; whose loss it is keeps its batch
        bad = [v for v, row in enumerate(table) if row[PRESENT] and not math.isfinite(row[LOSS])]
        virtual_rank = bad[0] if bad else virtual_rank
        batch = dict(run["taken"].slots).get(virtual_rank, IDLE)
    return (
        None
        if batch is IDLE
        else Failure(
            batch_nb=plan.progress.batch_nb,
            global_step=plan.progress.global_step,
            batch=batch,
            virtual_rank=virtual_rank,
            optimizer_i=run["group"] if run is not None and rounds.parts.takes_optimizer else None,
            buffers=rounds.buffers.at_start(),
        )
    )


def _of_loader(plan: FitPlan, error: BaseException, found: dict[str, Any], window: dict[str, Any]) -> Failure:
    progress, nb = plan.progress, plan.loader.share.nb
    number = (progress.batch_nb + int(window.get("unfinished", 0))) * nb
    if "Rounds.next_round" in found:
        number += plan.loader.share.mine[0] + len(found["Rounds.next_round"]["taken"].slots)
    said = PLACE.search("\n".join([str(error), *getattr(error, "__notes__", ())]))
    number = number if said is None else int(said[1])
    step = progress.global_step + number // nb - progress.batch_nb
    return Failure(kind="loader", batch_nb=number // nb, virtual_rank=number % nb, global_step=step)


def build_bundle(plan: FitPlan, failure: Failure, error: BaseException, options: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that a replay needs, as plain data on the CPU."""
    module, share = plan.module, plan.loader.share
    number = failure.batch_nb * share.nb + failure.virtual_rank
    indices = None
    with contextlib.suppress(Exception):  # a user's sampler, run once more
        indices = to_plain(plan.loader.indices_at(plan.progress.epoch, number))
    bundle: dict[str, Any] = {
        "bundle": FORMAT,
        "kind": failure.kind,
        "error": {"type": type(error).__qualname__, "message": str(error)},
        "library": f"pytorch-lightning-classic {__version__}, torch {torch.__version__}, {platform.python_version()}",
        "threads": torch.get_num_threads(),
        "device": plan.strategy.device.type,
        "seed": plan.seed,
        "epoch": plan.progress.epoch,
        "batch_nb": failure.batch_nb,
        "global_step": failure.global_step,
        "virtual_rank": failure.virtual_rank,
        "virtual_ranks": share.nb,
        "optimizer_i": failure.optimizer_i,
        "window": failure.window,
        "loader": {"batch_nb": number, "indices": indices, "in_order": bool(plan.config.overfit_pct)},
        "module": class_place(type(module)),
        "hparams": None if module.hparams is None else plain_hparams(module.hparams),
        "hparams_is_dict": isinstance(module.hparams, Mapping),
        "options": {n: v for n, v in options.items() if isinstance(v, (str, int, float, NoneType))},
        "precision": plan.config.precision,
        "scaler": plan.saver.parts["precision"].state_dict(),
    }
    if failure.kind != "loader":
        try:
            bundle["batch"] = plain_copy(failure.batch)
        except CheckpointError as problem:
            bundle["batch_left_out"] = str(problem)
        bundle.update(_state(plan, failure))
    on_cpu: Any = build_transfer(torch.device("cpu"), from_device=True)
    return on_cpu(to_plain(bundle))  # type: ignore[no-any-return]


def _state(plan: FitPlan, failure: Failure) -> dict[str, Any]:
    """The module as the step found it."""
    module, now = plan.module, dict(plan.module.named_buffers())
    kept, others = failure.buffers, set[int]()
    if failure.optimizer_i is not None:
        each = [{id(p) for group in o.param_groups for p in group["params"]} for o in plan.optimizers]
        others = set().union(*each) - each[failure.optimizer_i]
    return {
        "state_dict": module.state_dict(),
        "buffers": {name: now[name] if kept is None else kept.get(name, now[name]) for name in now},
        "buffers_kept": not now or kept is not None,
        "evaluated": [name for name, submodule in module.named_modules() if not submodule.training],
        "frozen": [name for name, p in module.named_parameters() if not p.requires_grad or id(p) in others],
        "gradients": {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
        if failure.kind == "hook"
        else {},
    }


def class_place(cls: type) -> dict[str, Any]:
    """Where ``cls`` can be imported from."""
    try:
        file = os.path.abspath(inspect.getfile(cls))
    except (TypeError, OSError):  # of a notebook
        file = None
    return {"module": cls.__module__, "name": cls.__qualname__, "file": file}


def plain_copy(value: Any) -> Any:
    """A copy of a batch, which a replay can use as it is. Raises ``CheckpointError`` for any other type than
    tensors, numbers and text in lists, tuples and dicts."""
    if type(value) is Tensor:
        # of a view, not with all of its storage; and not on a device, whose memory may be full
        return value.detach().to("cpu", copy=True)
    if type(value) in LEAVES:
        return value
    if type(value) in (list, tuple):
        return type(value)(map(plain_copy, value))
    if type(value) is dict and all(type(key) in (str, int, bool, float) for key in value):
        return {key: plain_copy(item) for key, item in value.items()}
    raise CheckpointError(f"it holds a {type(value).__name__}, which isn't plain data")
