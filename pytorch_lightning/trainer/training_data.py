"""The training loader of a fit."""

from collections.abc import Sequence
from typing import Any

from pytorch_lightning.callbacks import Callback, ProgressBar
from pytorch_lightning.data.loader import OrderWatcher, ReplayableLoader, length_of
from pytorch_lightning.data.replayable import is_distributed, replayable
from pytorch_lightning.data.sharing import RoundsLoader
from pytorch_lightning.data.stream import StreamLoader
from pytorch_lightning.errors import Notices
from pytorch_lightning.options.config import Config
from pytorch_lightning.processes import Share


def plan_loader(
    loader: Any,
    seed: int,
    config: Config,
    share: Share,
    callbacks: Sequence[Callback],
    notices: Notices,
    watcher: OrderWatcher,
) -> ReplayableLoader:
    """``loader`` as the loop reads it. A notice reports what differs from what the user may expect."""
    if share.nb > 1 and is_distributed(loader):
        notices.say("distributed-sampler", "the DistributedSampler is replaced: batches are dealt out to processes")
    replay = replayable(loader, seed, 0, in_order=bool(config.overfit_pct), share=share)
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
    for bar in callbacks:
        if isinstance(bar, ProgressBar):
            replay.on_dropped = bar.on_dropped
    return replay if share.nb == 1 else RoundsLoader(replay, share)
