"""The training loader of a fit."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

from torch.utils.data import DataLoader

from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.data.combined import MODES, combine, is_several, named, parts_of
from pytorch_lightning.data.loader import KEYED, OrderWatcher, ReplayableLoader, keeps_state, length_of
from pytorch_lightning.data.replayable import samples_of, shared_out
from pytorch_lightning.data.same_batches import sharding_problems, whole
from pytorch_lightning.data.sharing import OwnShares, RoundsLoader
from pytorch_lightning.data.stream import StreamLoader
from pytorch_lightning.errors import Problem, describe, raise_together
from pytorch_lightning.processes import ALONE, Share
from pytorch_lightning.resume.attributes import AttributesPart
from pytorch_lightning.resume.epoch_length import EpochLength
from pytorch_lightning.resume.rolling import RollingSaves
from pytorch_lightning.run.hooks import can_be_called
from pytorch_lightning.trainer import checks
from pytorch_lightning.trainer.basis import Basis, FitRequest
from pytorch_lightning.trainer.evaluation import EvaluationPlan, nb_in_all


class Counting:
    """How many batches a fit will have, where ``configure_optimizers`` asks: before the plan reads the loaders, which
    are then read once."""

    def __init__(self, request: FitRequest, share: Share) -> None:
        self._request, self._share = request, share
        self._loaders: dict[str, Any] = {}

    def loader(self, name: str) -> Any:
        """The module's loader of that name."""
        if name not in self._loaders:
            self._loaders[name] = getattr(self._request.module, name)
        return self._loaders[name]

    def nb_tng_batches(self) -> int | None:
        """Rounds of the first epoch; None where that isn't known yet."""
        request = self._request
        if self._is_split or not can_be_called(request.module, "tng_dataloader"):
            return None
        problems: list[Problem] = []
        loader = as_one(self.loader("tng_dataloader"), request, problems)
        if problems:  # the plan names them
            return None
        return EpochLength(loader, request.config, self._share, request.run, ALONE).at(0)

    def nb_val_batches(self) -> int | None:
        """Batches of a validation; None where that isn't known yet."""
        module, config = self._request.module, self._request.config
        if not can_be_called(module, "val_dataloader", "validation_step"):
            return 0
        per_rank = self._share.nb if config.fast_dev_run else None
        return None if self._is_split else nb_in_all(self.loader("val_dataloader"), module, config, per_rank)

    @property
    def _is_split(self) -> bool:
        """Whether other processes have other loaders, which would have to be asked."""
        return self._share.own and self._request.strategy.processes.nb > 1


class NewestLoader:
    """Stands for the training loader where another one takes its place later."""

    def __init__(self, loader: ReplayableLoader) -> None:
        self.now = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self.now, name)


def replaceable(request: FitRequest, loader: ReplayableLoader) -> ReplayableLoader:
    """``loader``, where it is read again as something in whose place others come."""
    is_read_again = bool(request.config.reload_dataloaders_every_nb_epochs)
    return cast("ReplayableLoader", NewestLoader(loader)) if is_read_again else loader


def noting(request: FitRequest, basis: Basis, rolling: RollingSaves) -> ReplayableLoader:
    """The training loader; with a certificate it notes what it gives, and ``rolling`` writes that down."""
    if not request.config.certificate or rolling.folder is None:
        return basis.loader
    from pytorch_lightning.trainer.certifying import certify

    return certify(request, basis, rolling)


def as_one(loader: Any, request: FitRequest, problems: list[Problem]) -> Any:
    """What ``tng_dataloader`` returned, as one loader. What is wrong with it, or with one of several, is added to
    ``problems``."""
    several, whose, shares = is_several(loader), "tng_dataloader", request.config.data_is_sharded
    if not several and isinstance(loader, (list, tuple)) and any(isinstance(each, DataLoader) for each in loader):
        do = "Name each of several loaders: {'images': loader, 'text': another}"
        problems.append(Problem(f"{whose} returned a list of loaders and other things", describe(loader), do))
        return loader
    if several and not loader:
        problems.append(Problem(f"{whose} returned a dict without loaders", do="Return {'images': loader}"))
        return loader
    nb_before, each = len(problems), named(loader) if several else {None: loader}
    for name, one in each.items():
        place = whose if name is None else f"{whose}[{name!r}]"
        found = checks.loader_problems(one, place)
        if several and is_several(one):
            do = "Return one loader for each: {'images': loader, 'text': another}"
            found = [Problem(f"{whose} returned loaders inside of loaders", f"{place} = {describe(one)}", do)]
        elif several and keeps_state(one):
            do = "Return a DataLoader"
            found = [Problem(f"{place} has its own state, which one of several loaders can't have", describe(one), do)]
        if not found and not shares:
            one = each[name] = whole(one, request.notices)
            found = sharding_problems(one, place)
        problems += found
    mode = request.module.tng_loaders_mode
    if several and mode not in MODES:
        do = "'longest' lets shorter loaders begin again; 'shortest' ends an epoch with the shortest"
        problems.append(Problem(f"tng_loaders_mode must be {' or '.join(map(repr, MODES))}", describe(mode), do))
    if not several or len(problems) > nb_before:
        return each.get(None, loader)
    return combine(loader, mode, each, in_order=bool(request.config.overfit_pct))


def read_training_loader(request: FitRequest, share: Share, attributes: AttributesPart, problems: list[Problem]) -> Any:
    """What the module's ``tng_dataloader`` returns, as one loader; what is wrong with it is added to ``problems``."""
    module, found = request.module, list[Problem]()
    if not can_be_called(module, "tng_dataloader"):
        return None
    loader = _reading(request, "tng_dataloader")
    loader = as_one(loader, request, found)
    if not found:
        attributes.note_loader(loader)
        found = checks.training_loader_problems(loader, request.config, checks.has_validation(module), share)
    problems += found
    return loader


def _reading(request: FitRequest, name: str) -> Any:
    """The module's loader ``name``: where it was asked for already, that one."""
    counting, module = request.run.counting, request.module
    read = partial(getattr, module, name) if counting is None else partial(counting.loader, name)
    return checks.reading(module, name, read, request.strategy.processes)


def plan_validation(
    request: FitRequest, share: Share, evaluate: Callable[..., EvaluationPlan], tng_loader: Any
) -> tuple[EvaluationPlan | None, EvaluationPlan | None]:
    """The validation, and the few batches of it that are run before training."""
    config, module = request.config, request.module
    if not can_be_called(module, "val_dataloader", "validation_step"):
        return None, None
    loaders = _reading(request, "val_dataloader")
    raise_together(checks.iterator_problems(loaders))
    checks.say_shared_samples(tng_loader, loaders, request.notices)
    per_rank = share.nb // request.strategy.processes.nb  # however many processes run them
    limit = per_rank if config.fast_dev_run else None
    how = {"gather": config.gather_validation, "own": config.data_is_sharded, "notices": request.notices}
    evaluate = partial(evaluate, **how, repeats=config.uneven_batches != "wait")
    most = config.max_nb_val_batches
    validation = evaluate("validation", module, loaders, limit=limit, most=most, percent=config.val_percent_check)
    few = config.nb_sanity_val_steps * per_rank
    return validation, evaluate("sanity", module, loaders, limit=few, most=most) if few else None


def plan_loader(request: FitRequest, loader: Any, seed: int, share: Share, watcher: OrderWatcher) -> ReplayableLoader:
    """``loader`` as the loop reads it. A notice reports what differs from what the user may expect."""
    request.run.samples = samples_of(loader, share)
    request.run.has_several_loaders = None not in parts_of(loader)
    notices, processes = request.notices, request.strategy.processes
    replay = shared_out(loader, seed, 0, share, processes, in_order=bool(request.config.overfit_pct))
    replay.use_order(KEYED)
    request.run.order_of_data = lambda: replay.order
    if isinstance(replay, StreamLoader) and replay.keeps_state:
        notices.say(
            "own-state",
            f"{type(loader).__name__} has its own state_dict: a resumed fit gets the order of its batches from"
            " that; random numbers that are drawn inside of it may be others",
        )
    if isinstance(replay, StreamLoader):
        replay.goes_on = length_of(loader) is None and request.config.max_nb_tng_batches is not None
    replay.on_longer = lambda: notices.say(
        "longer-loader",
        f"the training loader yields more batches than its length, {length_of(loader)}: an epoch ends there, and the"
        " others aren't trained on; correct the __len__ of the loader, or of its dataset",
    )
    replay.watch(watcher)
    if request.config.auto_nb_workers:
        why_not = replay.tune(processes.nb, watcher, notices)
        if why_not is not None:
            notices.say("no-auto-workers", f"auto_nb_workers has no effect: {why_not}")
    for bar in request.callbacks:
        if isinstance(bar, ProgressBar):
            replay.on_dropped = bar.on_dropped
    if share.own and share.nb > 1:
        has_length = length_of(loader) is not None and not isinstance(replay, StreamLoader)
        same = (
            "data_is_sharded=True, and the first batch is the same in all processes: if they read the same data, each"
            f" sample is trained on {processes.nb} times in an epoch. Leave data_is_sharded out, or give each process"
            " its own share"
        )
        return OwnShares(replay, share, processes, has_length, lambda: notices.say("same-shares", same))
    return replay if share.nb == 1 else RoundsLoader(replay, share)
