"""``Trainer.explain``: a copy of the model is planned as in a fit, the loop runs dry, and all is put back."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from pytorch_lightning import seeding
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.errors import MisconfigurationException
from pytorch_lightning.launchers.environment import read_environment
from pytorch_lightning.options.config import Config, options
from pytorch_lightning.options.meaning import all_callbacks
from pytorch_lightning.processes import ALONE
from pytorch_lightning.resume.own_generators import leaving_generators
from pytorch_lightning.run import files
from pytorch_lightning.run.hooks import hook_table
from pytorch_lightning.run.run import FitRun
from pytorch_lightning.strategies import build_strategy, strategy_of
from pytorch_lightning.strategies.devices import choose_devices
from pytorch_lightning.trainer.basis import Basis, FitRequest
from pytorch_lightning.trainer.dry_run import CUT, MOST_BATCHES, Noted, copied, run_dry, save_to_resume
from pytorch_lightning.trainer.dry_run import sizes_of_files as sizes_of
from pytorch_lightning.trainer.explanation import Explanation
from pytorch_lightning.trainer.finders import Maker, Trials
from pytorch_lightning.trainer.given_loaders import given_loaders
from pytorch_lightning.trainer.nesting import in_one_thread
from pytorch_lightning.trainer.placement import backend_of
from pytorch_lightning.trainer.plan import plan_basis, restored
from pytorch_lightning.trainer.replaying import twin_of
from pytorch_lightning.trainer.without_effect import differs, without_effect

NO_CLOCK = 1e12
"""Minutes until a checkpoint that only the clock knows of."""


class Twins(Trials):
    """Copies of a model that are only planned: in any number of processes, and with steps by hand."""

    def __init__(self, maker: Maker, model: Any, loaders: Mapping[str, Any]) -> None:
        self._maker, self._name, self._model, self._loaders = maker, "explain", model, loaders
        self._loader = loaders["tng_dataloader"]

    @contextlib.contextmanager
    def twin_alone(self) -> Iterator[Any]:
        """A copy of the model, with copies of the loaders that were passed."""
        try:
            twin, loaders = twin_of(self._model, dict(self._loaders))
        except Exception as error:
            raise MisconfigurationException(
                f"explain plans a copy of {type(self._model).__name__}, which can't be copied:"
                f" {type(error).__name__}: {error}. Keep what can't be copied outside of the module."
            ) from error
        with leaving_generators(self._model), given_loaders(twin, loaders), self._leaving_data(twin, None):
            yield twin


def explain_fit(maker: Maker, defaults: Mapping[str, Any], model: Any, loaders: Mapping[str, Any]) -> Explanation:
    """See ``Trainer.explain``. ``defaults`` are those of the options."""
    resume, own_folder = save_to_resume(maker.config, model)
    with (
        in_one_thread(),
        seeding.preserved(),
        torch.enable_grad(),
        tempfile.TemporaryDirectory(prefix="explain_") as scratch,
        Twins(maker, model, loaders).twin_alone() as twin,
    ):
        trainer = maker.make(**_options(maker, resume, scratch))
        run = FitRun(module=twin, notices=trainer._notices)
        run.notices.quiet = True
        trainer._begin(twin, run)
        strategy = build_strategy(None)
        strategy.attach(torch.device("cpu"), ALONE, [torch.device("cpu")])
        request = FitRequest(trainer.config, twin, run, trainer._callbacks, run.notices, strategy)
        with run.fitting():
            return _explain(maker, defaults, request, own_folder)


def _options(maker: Maker, resume: str | None, scratch: str) -> dict[str, Any]:
    """The options of the Trainer whose fit is planned: in this process, without files, displays and clocks."""
    options, config = maker.options, maker.config
    callbacks = [copied(c) if type(c).__name__ != "OptunaPruning" else Callback() for c in options["callbacks"] or ()]
    early, keeper = (copied(options[name] or None) for name in ("early_stop_callback", "checkpoint_callback"))
    ranks = None if config.data_is_sharded else config.virtual_ranks or nb_processes(config)
    off = ("progress_bar", "print_weights_summary", "profile", "crash_bundle", "compile", "fused_optimizers",
        "deterministic", "experiment")  # fmt: skip
    chosen = {
        **options, **dict.fromkeys(off, False), "default_save_path": scratch,
        "early_stop_callback": early, "checkpoint_callback": keeper, "callbacks": callbacks, "resume": resume,
        "max_time": None, "save_every_minutes": 0, "virtual_ranks": ranks, "gpus": None, "nb_processes": 1,
        "nb_gpu_nodes": 1, "distributed_backend": None, "cluster": None,
    }  # fmt: skip
    for each in (early, keeper, *callbacks):
        if isinstance(each, ModelCheckpoint) and each.every_minutes is not None:
            each.every_minutes = NO_CLOCK
    return chosen


def nb_processes(config: Config) -> int:
    """How many processes a fit with these options has; none is started."""
    environment = read_environment(os.environ)
    if environment is not None:
        return environment.nb
    devices, _ = choose_devices(config.gpus)
    nb = config.nb_processes if devices[0].type == "cpu" else len(devices)
    return config.nb_gpu_nodes * (nb if strategy_of(backend_of(config, devices)).several_processes else 1)


def _explain(maker: Maker, defaults: Mapping[str, Any], request: FitRequest, own_folder: str | None) -> Explanation:
    config, run, twin = maker.config, request.run, request.module
    by_hand = not twin.automatic_optimization
    if by_hand and nb_processes(config) > 1:  # then each rank has a process, and here is one
        vars(twin).update(automatic_optimization=True, training_step=lambda data_batch, batch_nb: data_batch)
    basis = plan_basis(request, [])
    state = restored(request, basis)
    vars(twin)["automatic_optimization"] = not by_hand
    p, noted, nb_batches = run.progress, Noted(run), basis.length.at(run.progress.epoch)
    start = {"resume": request.config.resume, "epoch": p.epoch, "batch_nb": p.batch_nb, "global_step": p.global_step}
    folder = _folder_of_saves(config, twin, own_folder)
    if nb_batches is not None:
        run.scratch = Path("(a temporary folder)") if config.fast_dev_run else None
        begins, writes = config.saves_from_the_start or own_folder is not None, config.experiment is not False
        run_dry(request, basis, state, noted, folder=folder, from_the_start=begins, writes=writes)
    is_known, sizes = nb_batches is not None and p.stop_reason != CUT, sizes_of(request, basis, state)
    for each in (*noted.epochs, *noted.events) if by_hand else ():
        each["nb_optimizer_steps"] = None
    given = [name for name in options() if differs(maker.options[name], defaults[name])]
    explanation = Explanation(
        module=type(twin).__name__, where={**_where(config, basis), "automatic_optimization": not by_hand}, start=start,
        nb_batches_per_epoch=nb_batches, nb_val_batches=run.nb_val_batches, epochs=noted.epochs, rows=noted.events,
        rates=[] if by_hand else noted.rates, schedules=_schedules(basis, noted, known=is_known and not by_hand),
        checkpoints=[*_files_of(request, sizes, folder)], hooks=_hooks_of(twin, config), given=given,
        options={name: getattr(config, name) for name in options()}, stop_reason=p.stop_reason if is_known else None,
        notes=_notes(
            request, basis, config, folder is not None, nb_batches is not None, p.stop_reason == CUT, by_hand
        ),
    )  # fmt: skip
    explanation.without_effect.update(without_effect(explanation, config, given))
    return explanation


def _where(config: Config, basis: Basis) -> dict[str, Any]:
    devices, _ = choose_devices(config.gpus)
    nb, strategy = nb_processes(config), strategy_of(backend_of(config, devices)).name
    place = {"device": devices[0].type, "strategy": strategy, "nb_processes": nb}
    ranks = nb if config.data_is_sharded else basis.share.nb
    return {**place, "virtual_ranks": ranks, "precision": config.precision, "seed": basis.seed}


def _has_folder(experiment: Any) -> bool:
    """Whether the logs lie in a folder, which then has the saves too."""
    each = experiment if isinstance(experiment, (list, tuple)) else [experiment]
    folders = (getattr(one, "folder", None) or getattr(one, "save_dir", None) for one in each)
    return experiment is None or any(folder is not None for folder in folders)


def _folder_of_saves(config: Config, module: Any, own_folder: str | None) -> str | None:
    """Where the rolling saves go; None where there are none."""
    asked = config.saves_from_the_start or config.save_every_nb_batches is not None
    if config.fast_dev_run or not (asked or own_folder is not None or _has_folder(config.experiment)):
        return None
    return f"{own_folder or '/'.join((*files.home_of(config, module), 'version_{n}'))}/checkpoints"


def _schedules(basis: Basis, noted: Noted, known: bool) -> list[dict[str, Any]]:
    names = ("optimizer_i", "interval", "frequency", "monitor")
    kinds = [{"scheduler": type(s.scheduler).__name__, **{n: getattr(s, n) for n in names}} for s in basis.schedules]
    return [{**kind, "nb_steps": noted.nb_scheduled[i] if known else None} for i, kind in enumerate(kinds)]


def _files_of(request: FitRequest, sizes: Mapping[str, int | None], saves: str | None) -> Iterator[dict[str, Any]]:
    for keeper in files.keepers_of(request.config):
        most, size = keeper.save_top_k, sizes["weights only" if keeper.save_weights_only else "whole"]
        keeps = "all are kept" if most is None else f"at most {most} are kept, the best by {keeper.monitor}"
        keeps += f", and the newest as {keeper.last_name}" if keeper.save_last else ""
        yield {"by": type(keeper).__name__, "folder": keeper.filepath, "bytes": size, "keeps": keeps}
    if saves is not None:
        keeps = f"the newest {request.config.saves_kept} are kept while training runs, and the last one after it"
        if request.config.saves_kept is None:
            keeps = "they are spaced: the newest two and the first are kept, in between ever fewer, also after training"
        yield {"by": "saves for a resume", "folder": saves, "bytes": sizes["whole"], "keeps": keeps}


def _hooks_of(module: Any, config: Config) -> dict[str, list[str]]:
    """Who wrote each hook, by the classes of the fit itself."""
    table = hook_table(module, all_callbacks(config), None)
    owners = {name: [getattr(method, "func", method) for method in methods] for name, methods in table.items()}
    return {
        name: [type(getattr(o, "__self__", module)).__name__ for o in each] for name, each in owners.items() if each
    }


def _notes(
    request: FitRequest, basis: Basis, config: Config, saves: bool, is_known: bool, is_cut: bool, by_hand: bool
) -> list[str]:
    """What isn't known before training."""
    hooks, run = basis.hooks, request.run
    watched = sorted({s.monitor for s in basis.schedules if s.monitor is not None})
    stops = [c for c in request.callbacks if isinstance(c, EarlyStopping)]
    own = [type(c).__name__ for c in all_callbacks(config) if not type(c).__module__.startswith("pytorch_lightning.")]
    minutes = [c for c in files.keepers_of(request.config) if c.every_minutes is not None]
    per_rank = f"a batch here is a round, one batch on each of {basis.share.nb} virtual ranks; samples are those of all"
    told = {
        "the training loader doesn't tell its length, so nothing that counts batches is known": not is_known,
        f"only the first {MOST_BATCHES:,} batches are counted": is_cut,
        "training_step makes its own steps: how many isn't known, and so aren't the learning rates": by_hand,
        "max_nb_steps ends training when training_step has made so many": by_hand and config.max_nb_steps is not None,
        "the training loader is a stream: it may end before": is_known and not basis.length.is_known,
        per_rank: basis.share.nb > 1,
        "each process has a loader of its own: batches and samples are this one's": config.data_is_sharded,
        "a schedule watches " + ", ".join(watched) + ": the rates are those without its cuts": bool(watched),
        **{f"{type(c).__name__} may end training before, by {c.monitor} (patience {c.patience})": True for c in stops},
        "max_time may end training before": config.max_time is not None,
        "saves by the clock come in addition": bool(minutes or (saves and config.save_every_minutes)),
        "in 16 bit a step whose gradients overflow is skipped, and isn't counted": config.precision == "16",
        "the loaders are read again: later ones are taken to be as long as the first": (
            bool(config.reload_dataloaders_every_nb_epochs)
        ),
        "on_batch_start may end an epoch early": bool(hooks["on_batch_start"]),
        f"what your own callbacks do isn't known: {', '.join(own)}": bool(own),
        "the samples aren't counted: the loader doesn't tell its batch size": is_known and run.samples is None,
    }
    return [text for text, holds in told.items() if holds]
