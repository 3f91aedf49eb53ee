"""The failing batch, kept: what ``python -m pytorch_lightning.replay`` needs to raise the same exception again.

Nothing is done for it while training goes well, apart from a note of what is being done (``steps.current_step``). The
weights in memory are those that the step saw, as long as no optimizer has stepped since.
"""

import contextlib
import os
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pytorch_lightning.checkpoints.checkpoint import LEAVES, plain_hparams, to_plain
from pytorch_lightning.checkpoints.folders import megabytes, open_folder
from pytorch_lightning.checkpoints.snapshot import nb_bytes
from pytorch_lightning.data.sharing import IDLE
from pytorch_lightning.data.transfer import build_transfer
from pytorch_lightning.errors import CheckpointError
from pytorch_lightning.root_module.arguments import arguments_part
from pytorch_lightning.steps.current_step import FETCHING_NEXT, OUTSIDE, READYING, RUNNING, STEPPED
from pytorch_lightning.trainer.fit_plan import FitPlan
from pytorch_lightning.version import __version__

MOST_BYTES = 2 * 10**9

MAIN = ("__main__", "__mp_main__")
"""What the program's own module is called, in the process that was started and in those that it starts."""

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
    """What the loss is weighed by; see ``step_inputs.WindowWeights``."""
    buffers: Mapping[str, Tensor] | None = None
    """As they were before the step; None where they weren't kept."""


def keep_failing_batch(plan: FitPlan, error: Exception, options: Mapping[str, Any]) -> None:
    """Write the bundle of the batch in which ``error`` was raised into the run's folder, and say how to replay it;
    nothing without a folder, or if no batch raised the error. Never raises."""
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
        open_folder(f"{folder}/crash").write(bundle, name, private=True)
    except Exception as problem:  # the error that led here is the one to be heard
        why = " ".join(str(problem).split())
        plan.run.notices.say("crash-bundle", f"the failing batch can't be saved: {type(problem).__name__}: {why}")
        return
    command = replay_command(f"{folder}/crash/{name}", type(plan.module))
    plan.run.notices.report(f"the failing batch is saved. To replay it: {command}")


def _is_about_others(error: Exception) -> bool:
    """Whether ``error`` only says that another process is gone."""
    return isinstance(error, torch.distributed.DistError) or bool(re.search(r"gloo|NCCL", str(error)))


def find_failure(plan: FitPlan, error: BaseException) -> Failure | None:
    """The batch that ``error`` was raised for; None where an optimizer has stepped since, and where the error isn't a
    batch's."""
    current, progress = plan.current, plan.progress
    if current.is_fetching:
        return _of_loader(plan, error)
    if not plan.module.automatic_optimization:  # it may have stepped, and a replay makes no steps
        return None
    if current.phase in (OUTSIDE, STEPPED) or current.arguments[0] is IDLE:
        return None
    batch, *rest = current.arguments
    made = Failure(
        batch_nb=progress.batch_nb,
        global_step=progress.global_step,
        batch=batch,
        virtual_rank=current.virtual_rank,
        optimizer_i=rest[1] if len(rest) > 1 else None,
        buffers=current.buffers_before(),
    )
    weights = current.weights
    if current.phase == READYING:
        made.kind = "hook"
        if made.optimizer_i is not None and weights.accumulate > 1:  # they step at the window's end, one by one
            made.optimizer_i = 0
    elif current.phase == RUNNING and weights is not None:
        made.window = weights.size, weights.counted, weights.reference
    return made


def _of_loader(plan: FitPlan, error: BaseException) -> Failure:
    current, progress, share = plan.current, plan.progress, plan.loader.share
    number = (progress.batch_nb + (current.phase == FETCHING_NEXT)) * share.nb
    if share.nb > 1:
        number += share.mine[0] + len(current.slots)
    said = PLACE.search("\n".join([str(error), *getattr(error, "__notes__", ())]))
    number = number if said is None else int(said[1])
    step = progress.global_step + number // share.nb - progress.batch_nb
    return Failure(kind="loader", batch_nb=number // share.nb, virtual_rank=number % share.nb, global_step=step)


def build_bundle(plan: FitPlan, failure: Failure, error: BaseException, options: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that a replay needs, as plain data on the CPU."""
    from pytorch_lightning.checkpoints.bundle import FORMAT, OPTIONS

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
        "loader": {
            "batch_nb": number,
            "indices": indices,
            "in_order": bool(plan.config.overfit_pct),
            "order": plan.loader.order,
        },
        "module": type(module).__qualname__,
        "hparams": None if module.hparams is None else {str(k): v for k, v in plain_hparams(module.hparams).items()},
        "hparams_is_dict": isinstance(module.hparams, Mapping),
        "init_arguments": arguments_part(module),
        "options": {name: options[name] for name in OPTIONS},
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
    kept = failure.buffers
    return {
        "state_dict": module.state_dict(),
        "buffers": {name: now[name] if kept is None else kept.get(name, now[name]) for name in now},
        "buffers_kept": not now or kept is not None,
        "evaluated": [name for name, submodule in module.named_modules() if not submodule.training],
        "frozen": [name for name, p in module.named_parameters() if not p.requires_grad],
        "gradients": {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
        if failure.kind == "hook"
        else {},
    }


def replay_command(path: str, cls: type) -> str:
    """The command that replays the bundle at ``path``, which itself says nothing of where ``cls`` is defined."""
    from shlex import quote

    bundle, name = quote(path), cls.__module__
    module = sys.modules.get(name)
    file, program = getattr(module, "__file__", None), "python -m pytorch_lightning.replay"
    if name in MAIN:  # of `python -m package.module` it is known which
        name = getattr(getattr(module, "__spec__", None), "name", name)
    if name not in MAIN:
        return f"{_search_path(name, file)}{program} {bundle} --module {name}"
    if file is None or not os.path.isfile(file):  # a notebook
        return f"{program} {bundle} --script FILE (a file that defines {cls.__qualname__})"
    return f"{program} {bundle} --script {quote(_from_here(Path(file)))}"


def _from_here(path: Path) -> str:
    """``path``, relative to this folder where it is in it."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _search_path(name: str, file: str | None) -> str:
    """What a shell needs before a command that imports the module ``name`` from ``file``: nothing where python finds it
    from this folder."""
    from shlex import quote

    if file is None:
        return ""
    top = Path(file).absolute().parents[name.count(".") + (Path(file).name == "__init__.py")]
    found = [Path(folder).absolute() for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    if top in (Path.cwd(), *found) or top.name == "site-packages":
        return ""
    return f"PYTHONPATH={quote(str(top))}${{PYTHONPATH:+:$PYTHONPATH}} "


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
