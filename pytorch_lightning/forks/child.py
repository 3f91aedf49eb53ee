"""Making a fork: the parent once more up to the batch, in a folder of its own, and then the edits in its save."""

import contextlib
import copy
import csv
import os
import platform
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pytorch_lightning.callbacks import Callback
from pytorch_lightning.checkpoints.sharded import read_any
from pytorch_lightning.checkpoints.store import write_checkpoint
from pytorch_lightning.errors import CheckpointError, FitError, MisconfigurationException
from pytorch_lightning.forks.edits import refuse_undone, set_configured, set_settings
from pytorch_lightning.forks.names import Edits
from pytorch_lightning.forks.parent import ALONE, INSTEAD, LOGS, Parent, at_a_save
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logger import make_folder
from pytorch_lightning.loggers.metrics_file import whole_rows
from pytorch_lightning.resume.fork import PART, without
from pytorch_lightning.resume.settings import OF_LENGTH
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.run import record
from pytorch_lightning.run.listing import PLACES
from pytorch_lightning.trainer.replaying import Reached
from pytorch_lightning.trainer.trainer import Trainer

SILENT = (
    "absent-callbacks", "other-settings", "first-save", "no-validation", "never-validated", "not-shuffled",
    "other-attributes", "resumed-fork",
)  # fmt: skip
REASON = "max_batch of a fork reached"  # with the beginning of a limit's: it doesn't stop the fork itself
Build = Callable[[Mapping[str, Any]], LightningModule]
"""Makes the module for what a save says of its arguments and hparams."""


class StopBefore(Callback):
    """Ends a fit before ``batch``, when all that is due before it is done, and saves the state there."""

    fresh: dict[str, Any]
    """What ``configure_optimizers`` gave."""
    owners: list[int]
    """Which optimizer each schedule is of."""
    path = ""

    def __init__(self, batch: int, parent: Parent) -> None:
        self.batch, self._parent, self._saved = batch, parent, parent.saved["parts"]

    def on_fit_start(self, run: Any) -> None:
        plan = run.module.trainer._plan
        plan.hooks["on_fit_end"] = (partial(self._end, plan),)  # for the others training doesn't end here
        if plan.progress.global_step >= self.batch:
            run.stop(REASON)

    def on_batch_end(self, run: Any) -> None:
        if run.progress.global_step + 1 >= self.batch:
            run.stop(REASON)

    def _end(self, plan: Any) -> None:
        step = plan.progress.global_step
        if sys.exception() is not None:
            return
        if plan.progress.interrupted:
            raise FitError("stopped before the fork was made: nothing is left of it. Run the same command again.")
        if step < self.batch:
            raise FitError(
                f"training ended before batch {self.batch}: the run has {step} batches. Pass an earlier one."
            )
        if step > self.batch:
            raise FitError(
                f"batch {self.batch} lies within a step of several batches, and state is whole between steps only. Pass"
                f" {step}, before which the next step begins, or another such batch."
            )
        if self._parent.only_at_saves and not self._is_at_save(plan):
            what = "a validation, or the end of an epoch, comes between the save and that batch, and has sums too"
            raise FitError(f"{what}. {at_a_save(self._parent.folder)}")
        optimizers = list(plan.optimizers)
        self.fresh = plan.saver.parts["settings"].fresh
        self.owners = [[s.scheduler.optimizer is o for o in optimizers].index(True) for s in plan.schedules]
        if not self._is_at_save(plan):
            plan.rolling.save(wait=True)
        self.path = plan.rolling.wait_for_newest()
        raise Reached

    def _is_at_save(self, plan: Any) -> bool:
        """Whether nothing was done since the save: it has more than could be saved now, of data that weren't drawn."""
        now = {**plan.progress.state_dict(), "seconds": 0, "stop_reason": ""}
        return bool(now == {**self._saved["progress"], "seconds": 0, "stop_reason": ""})


class Probe(Callback):
    """Ends a fit before it trains, when all of it is planned. Raises where its data come in another order."""

    fresh: dict[str, Any]
    groups: list[Any]
    """The parameter groups of each optimizer, after the module's own ``on_fit_start``."""

    def __init__(self, parts: dict[str, Any]) -> None:
        self._data = parts["data"]

    def on_fit_start(self, run: Any) -> None:
        plan = run.module.trainer._plan
        self.fresh = plan.saver.parts["settings"].fresh
        self.groups = [optimizer.param_groups for optimizer in plan.optimizers]
        progress, loader = plan.progress, plan.loader
        place: Any = self._data.get("finished")
        if self._data["indices_crc"] is not None:
            place = progress.epoch, progress.batch_nb * loader.share.nb, self._data["indices_crc"]
        if place is not None and self._data.get("sampler") is None and self._data.get("loader") is None:
            plan.attributes.restore()
            plan.attributes.data.begin_order(progress.epoch)
            if loader.crc_again(*place[:2]) not in (None, place[2]):
                raise MisconfigurationException(
                    "the training data come in another order with these hyperparameters, so the place in the epoch is"
                    " another. Start a new run for that."
                )
        raise Reached


def make_fork(
    parent: Parent, batch: int, edits: Edits, skip: Sequence[tuple[int, int]], home: Path, build: Build, about: Any
) -> tuple[Path, list[str]]:
    """Make the folder of a fork of ``parent`` in ``home``, ready to be resumed; returns it, and what was changed. It
    appears there when it is complete: a kill before leaves no run behind. ``about`` is for its run.json."""
    home.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(int(parent.saved["parts"]["versions"].get("threads", torch.get_num_threads())))
    remove_leftovers(home)
    with tempfile.TemporaryDirectory(prefix=f"{SCRATCH}{os.getpid()}_", dir=home) as scratch:
        folder = Path(scratch) / parent.folder.parent.name / "version_0"
        _copy(parent, folder)
        stop = _replay(parent, batch, folder, build)
        compare_rows(parent.folder, folder)
        saved = read_any(stop.path)
        said = _edit(saved, parent, edits, skip, stop, build, Path(scratch))
        for path in (folder / "checkpoints").iterdir():
            if str(path) != stop.path:
                path.unlink()
        write_checkpoint(saved, stop.path)
        record.write(folder, {record.FORK: about})
        made = home / f"version_{make_folder(home)}"
        os.rename(folder, made)
    return made, said


SCRATCH = f".fork_{platform.node()}_"
"""How the folders are called in which forks are made; the number of the process follows."""


def remove_leftovers(home: Path) -> None:
    """Remove what processes of this machine that were killed have left."""
    for path in home.glob(f"{SCRATCH}*"):
        pid = path.name.removeprefix(SCRATCH).split("_")[0]
        if pid.isdecimal() and not record.is_running({**record.this_process(), "pid": int(pid), "born": ""}):
            shutil.rmtree(path, ignore_errors=True)


def _copy(parent: Parent, folder: Path) -> None:
    """What a run that resumes from the save needs."""
    (folder / "checkpoints").mkdir(parents=True)
    for name in ("metrics.csv", "meta_tags.csv"):
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(parent.folder / name, folder / name)
    saved = copy.copy(parent.saved)
    states = saved["parts"]["loggers"]
    log: dict[str, Any] = next((state for name, state in states.items() if name.startswith(LOGS)), {})
    loggers = {"CSVLogger_0": {"rows": log["rows"]}} if "rows" in log else {}
    saved["parts"] = {**saved["parts"], "loggers": loggers}
    saved["parts"]["run"] = {"id": uuid.uuid4().hex, "finished": False, "job": None}
    write_checkpoint(saved, folder / "checkpoints" / Path(parent.path).name)


def options_in(folder: Path, options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """``options`` for a fit of a class called ``name`` that resumes the run in ``folder``."""
    version = int(folder.name.removeprefix("version_"))
    own = folder.parent.name == name
    return {
        **options,
        "experiment": None if own else CSVLogger(folder.parents[1], folder.parent.name, version),
        "default_save_path": str(folder.parents[1]),
        "resume": str(folder),
    }


QUIET: dict[str, Any] = {
    "progress_bar": False, "print_weights_summary": False, "profile": False, "save_every_minutes": 0,
    "save_every_nb_batches": None, "keep_saves": "newest", "max_time": None, "crash_bundle": False, "silence": SILENT,
}  # fmt: skip


def _replay(parent: Parent, batch: int, folder: Path, build: Build) -> StopBefore:
    """Train as the parent did, from its save up to ``batch``."""
    module, stop = build(parent.saved), StopBefore(batch, parent)
    if not module.automatic_optimization and parent.saved["parts"]["data"].get("virtual_ranks", 1) > 1:
        raise MisconfigurationException(
            f"training_step makes its own steps, and {parent.folder} was trained by several processes, each of which"
            f" made them. {ALONE} {INSTEAD}."
        )
    options = {**options_in(folder, parent.options, type(module).__name__), **QUIET, "callbacks": [stop]}
    with contextlib.suppress(Reached):
        Trainer(**options).fit(module)
    if not stop.path.endswith(f"step-{batch:012d}.ckpt"):
        raise CheckpointError(f"the state at batch {batch} can't be saved: a weight isn't finite.")
    return stop


def _edit(
    saved: dict[str, Any],
    parent: Parent,
    edits: Edits,
    skip: Sequence[tuple[int, int]],
    stop: StopBefore,
    build: Build,
    scratch: Path,
) -> list[str]:
    """Make the edits in ``saved``; returns what they are, in words."""
    parts, before = saved["parts"], saved["parts"].get(PART, {"options": {}, "hparams": {}, "skip": []})
    groups = copy.deepcopy([state.get("param_groups", []) for state in saved["optimizer_states"]])
    options = {**parent.options, **edits.options, "experiment": False}
    parts["callbacks"], config = {}, Trainer(**options).config
    parts.pop(PART, None)
    said = [f"{name} {parent.options[name]} -> {value}" for name, value in edits.options.items()]
    give_hparams(saved, {name: value for name, value in edits.hparams.items() if name in edits.options})
    said += set_settings(saved, edits.settings, stop.owners)
    probe = partial(_probed, options, scratch)
    old, fresh = build(saved), stop.fresh
    for name, value in edits.hparams.items():
        if name not in edits.options:
            give_hparams(saved, {name: value})
            new = build(saved)
            now = probe(saved, new).fresh
            effects = set_configured(saved, fresh, now, stop.owners)
            effects += follow_attributes(parts["attributes"], old, new)
            if name in edits.either and not effects:
                effects += set_settings(saved, {name: edits.either[name]}, stop.owners)
            said.append(f"{name} -> {value}: {', '.join(effects) or UNREAD}")
            old, fresh = new, now
    parts[PART] = {
        "options": {**before["options"], **{name: getattr(config, name) for name in edits.options}},
        "hparams": {**before["hparams"], **edits.hparams},
        "skip": [*before["skip"], *map(list, skip)],
        "of": f"{parent.folder} at batch {stop.batch}",
    }
    parts["settings"].pop("configured", None)
    told = {name: repr(getattr(config, name)) for name in edits.options if name not in OF_LENGTH}
    parts["settings"]["options"] |= {k: v for k, v in told.items() if k in parts["settings"]["options"]}
    parts["settings"]["hparams"] = {**parts["settings"].get("hparams", {}), **_there(saved["hparams"], edits.hparams)}
    # whatever doesn't fit is refused here
    refuse_undone(groups, saved["optimizer_states"], probe(saved, build(saved)).groups)
    return said + [without(*each) for each in skip]


def _probed(options: Mapping[str, Any], scratch: Path, saved: dict[str, Any], module: LightningModule) -> Probe:
    """What was seen of a fit of ``module`` that resumes from ``saved``, which is only planned."""
    probe, path = Probe(saved["parts"]), str(scratch / "edited.ckpt")
    write_checkpoint(saved, path)
    place = {"default_save_path": str(scratch / "probe"), "resume": path, "callbacks": [probe]}
    with contextlib.suppress(Reached):
        Trainer(**{**options, **QUIET, **place}).fit(module)
    return probe


UNREAD = (
    "nothing that configure_optimizers gives and no attribute of the model is other with it, so it has an effect only"
    " if your code reads it while it trains"
)


def _there(values: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in new.items() if name in values}


def give_hparams(saved: dict[str, Any], hparams: Mapping[str, Any]) -> None:
    """Put ``hparams`` in the place of those that ``saved`` has, and of arguments of the constructor."""
    if not hparams:
        return
    saved["hparams"] = {**(saved["hparams"] or {}), **_there(saved["hparams"] or {}, hparams)}
    about = saved["init_arguments"] = copy.deepcopy(saved["init_arguments"])
    arguments: Any = (about["call"] or {}).get("arguments", {})
    arguments.update(_there(arguments, hparams))
    for key in about["hparams_argument"] or ():
        arguments = arguments[key] if isinstance(arguments, (dict, tuple, list)) else {}
    if isinstance(arguments, dict):
        arguments.update(_there(arguments, hparams))


def hparams_of(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters of a save, by name: the hparams, and the arguments of the constructor."""
    call = (saved.get("init_arguments") or {}).get("call") or {}
    plain = {n: v for n, v in call.get("arguments", {}).items() if not isinstance(v, dict) and not n.startswith("*")}
    return {**plain, **(saved.get("hparams") or {})}


def follow_attributes(saved: dict[str, Any], old: LightningModule, new: LightningModule) -> list[str]:
    """Plain attributes that the constructor gives otherwise with a new hyperparameter, in words; the marks of what the
    first start found go from the part ``saved``. Raises where that would put back what they were, since the run changed
    them."""
    found, first = [], saved["first"].split("\n")
    for (path, before), (_, after) in zip(old.named_modules(), new.named_modules(), strict=False):
        owner = ".".join(["module", *filter(None, [path])])
        for name, value in _plain_attributes(after):
            was = vars(before).get(name, value)
            if type(was) is not type(value) or was == value:
                continue
            if name in saved["values"].get(owner, ()):
                raise MisconfigurationException(
                    f"{owner}.{name} comes from a hyperparameter, but it changed while training, and a fork keeps what"
                    " it was at that batch. Leave that hyperparameter, or change it in the code."
                )
            found.append(f"{owner.removeprefix('module.')}.{name} {was} -> {value}")
            first = [line for line in first if not line.startswith(f"{owner}\t{name}\t")]
    saved["first"] = "\n".join(first)
    return found


def _plain_attributes(module: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    for name, value in vars(module).items():
        is_plain = value is None or isinstance(value, (bool, int, float, str))
        if is_plain and not name.startswith("_") and name not in ("training", "hparams"):
            yield name, value


def compare_rows(parent: Path, child: Path) -> None:
    """Raises ``FitError`` where the child has logged other rows than the parent."""
    try:
        before, now = (rows_of(folder / "metrics.csv") for folder in (parent, child))
    except (OSError, ValueError, csv.Error):
        return
    for old, new in zip(before, now, strict=False):
        if old != new:
            names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
            raise FitError(
                f"the replay of the parent isn't exact: at global_step {new.get('global_step')} it gave"
                f" {', '.join(f'{n} {new.get(n)} and not {old.get(n)}' for n in names[:3])}. The code, the data, the"
                " device or a version are others than in the run, so a fork of it would have another past."
            )


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv, apart from what is other each time."""
    rows = whole_rows(path) if path.is_file() else []
    left_out = (*PLACES[3:], "gpu_")
    return [{k: v for k, v in row.items() if v not in ("", None) and not str(k).startswith(left_out)} for row in rows]
