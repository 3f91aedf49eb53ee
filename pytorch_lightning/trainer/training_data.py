"""The training loader of a fit."""

from typing import Any

from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.data.loader import OrderWatcher, ReplayableLoader, length_of
from pytorch_lightning.data.replayable import shared_out
from pytorch_lightning.data.sharing import OwnShares, RoundsLoader
from pytorch_lightning.data.stream import StreamLoader
from pytorch_lightning.processes import Share
from pytorch_lightning.trainer.basis import FitRequest


def plan_loader(request: FitRequest, loader: Any, seed: int, share: Share, watcher: OrderWatcher) -> ReplayableLoader:
    """``loader`` as the loop reads it. A notice reports what differs from what the user may expect."""
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
