"""The training loader of a fit."""

from typing import Any

from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.data.loader import OrderWatcher, ReplayableLoader, length_of
from pytorch_lightning.data.replayable import samples_of, shared_out, sizes_of
from pytorch_lightning.data.same_batches import whole
from pytorch_lightning.data.sharing import OwnShares, RoundsLoader
from pytorch_lightning.data.stream import StreamLoader
from pytorch_lightning.processes import ALONE, Share
from pytorch_lightning.resume.epoch_length import EpochLength
from pytorch_lightning.run.hooks import can_be_called
from pytorch_lightning.trainer.basis import FitRequest
from pytorch_lightning.trainer.evaluation import nb_in_all


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
        loader = whole(self.loader("tng_dataloader"), request.notices)
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


def plan_loader(request: FitRequest, loader: Any, seed: int, share: Share, watcher: OrderWatcher) -> ReplayableLoader:
    """``loader`` as the loop reads it. A notice reports what differs from what the user may expect."""
    request.run.samples = samples_of(sizes_of(loader), share)
    notices, processes = request.notices, request.strategy.processes
    replay = shared_out(loader, seed, 0, share, processes, in_order=bool(request.config.overfit_pct))
    if isinstance(replay, StreamLoader) and replay.keeps_state:
        notices.say(
            "own-state",
            f"{type(loader).__name__} has its own state_dict: a resumed fit gets the order of its batches from"
            " that; random numbers that are drawn inside of it may be others",
        )
    replay.on_longer = lambda: notices.say(
        "longer-loader",
        f"the training loader yields more batches than its length, {length_of(loader)}: an epoch ends there, and the"
        " others aren't trained on; correct the __len__ of the loader, or of its dataset",
    )
    replay.watch(watcher)
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
