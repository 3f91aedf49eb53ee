"""The training loader of a fit."""

from typing import Any

from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.data.loader import OrderWatcher, ReplayableLoader, length_of
from pytorch_lightning.data.replayable import samples_of, shared_out, sizes_of
from pytorch_lightning.data.sharing import OwnShares, RoundsLoader
from pytorch_lightning.data.stream import StreamLoader
from pytorch_lightning.processes import Share
from pytorch_lightning.trainer.basis import FitRequest


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
        return OwnShares(replay, share, processes, has_length)
    return replay if share.nb == 1 else RoundsLoader(replay, share)
