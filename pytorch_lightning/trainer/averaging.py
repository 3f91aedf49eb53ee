"""Averages of the weights in a fit, and in a test or a prediction that asks for them."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from pytorch_lightning import seeding
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.callbacks.weight_averaging import WeightAveraging
from pytorch_lightning.checkpoints.checkpoint import restore_average, restore_module
from pytorch_lightning.checkpoints.sharded import read_any
from pytorch_lightning.data.loader import length_of
from pytorch_lightning.data.replayable import replayable
from pytorch_lightning.data.stream import StreamLoader
from pytorch_lightning.errors import MisconfigurationException, Problem
from pytorch_lightning.precision.precision import Precision
from pytorch_lightning.processes import Share
from pytorch_lightning.run.hooks import takes_one_more
from pytorch_lightning.run.progress import NEVER
from pytorch_lightning.steps.traces import Attributes
from pytorch_lightning.trainer.basis import FitRequest

BATCH_NORM = nn.modules.batchnorm._BatchNorm


class Average(NamedTuple):
    """The averaged weights of a checkpoint ('best', or a path); of the last fit where that is None."""

    ckpt: Any = None


@contextlib.contextmanager
def chosen_weights(module: Any, path: str | None, average: bool, callbacks: Sequence[Callback]) -> Iterator[None]:
    """A scope in which ``module`` has the weights of the checkpoint at ``path``, which stay, or, without one, the
    average of the last fit, after which its own come back."""
    if path is not None:
        checkpoint = read_any(path)
        restore_module(module, checkpoint, path)
        if average:
            restore_average(module, checkpoint, path)
        yield
        return
    keeper = next((c for c in callbacks if isinstance(c, WeightAveraging)), None)
    if keeper is None or keeper.average_for(module) is None:
        raise MisconfigurationException(
            "weights='average' needs a WeightAveraging that has averaged something in this Trainer's fit. Pass"
            " callbacks=[WeightAveraging('ema')], or ckpt, the path of a checkpoint that holds an average."
        )
    with keeper.in_place(module):
        yield


def prepare_averages(
    request: FitRequest, loader: Any, precision: Precision, seed: int, share: Share, problems: list[Problem]
) -> None:
    """Let the averages among the callbacks know how BatchNorm's statistics are computed; and see what can't be."""
    found = [c for c in request.callbacks if isinstance(c, WeightAveraging)]
    if len(found) > 1:
        problems.append(Problem("there can be one WeightAveraging", f"{len(found)} of them", "Leave the others out"))
    if any(type(c).__name__ == "ScheduleFree" for c in request.callbacks):
        problems.append(
            Problem("WeightAveraging and ScheduleFree both put averaged weights in place", do="Leave one of them out")
        )
    dtype = precision.dtype
    if dtype in (torch.float16, torch.bfloat16) and not callable(found[0].kind):
        problems.append(
            Problem(
                f"an average of weights in {str(dtype).removeprefix('torch.')} stands still: what a step adds to it is"
                " rounded away",
                f"precision={precision.name!r} and WeightAveraging({found[0].kind!r})",
                f"Pass precision={str(precision.name).removesuffix('-true')!r}, which keeps the weights in float32",
            )
        )
    for average in found:
        if average.update_bn:
            problems += _problems_of_refresh(request, loader, share)
            average.refresh = _build_refresh(request, loader, precision, seed, share)


def _problems_of_refresh(request: FitRequest, loader: Any, share: Share) -> list[Problem]:
    module, what = request.module, "WeightAveraging(update_bn=True) passes over the training batches"
    if request.strategy.runs_together:
        do = "Leave update_bn out, or use 'ddp'"
        return [Problem(f"{what}, which distributed_backend={request.strategy.name!r} can't do by itself", do=do)]
    if share.own:
        return [Problem(f"{what}, and with data_is_sharded=True each process has others", do="Leave update_bn out")]
    if takes_one_more(module, "training_step", several=False):
        return [Problem(f"{what}, and a training_step of three arguments has several turns", do="Leave update_bn out")]
    if loader is not None and isinstance(replayable(loader, 0, 0), StreamLoader):
        return [
            Problem(
                f"{what} a second time in the middle of an epoch, which a stream can't do",
                do="Use a DataLoader over a map-style dataset, or leave update_bn out",
            )
        ]
    return []


def _build_refresh(
    request: FitRequest, loader: Any, precision: Precision, seed: int, share: Share
) -> Callable[[], None]:
    """``refresh()``: torch's ``update_bn`` of the module over the batches of the epoch, in every process all of them.
    Nothing but BatchNorm's statistics stays changed."""
    module, run, config = request.module, request.run, request.config
    step = precision.forward(module.training_step)
    to_device = request.strategy.transfer(precision.dtype)
    seed_at = seeding.build_seeder(seed, seeding.EVALUATION, NEVER - 1, None)

    def refresh() -> None:
        limit, length = run.nb_tng_batches, length_of(loader)
        if limit is not None and length is not None:
            limit = min(limit * share.nb, length)
        again = replayable(loader, seed, 0, in_order=bool(config.overfit_pct), here=True)
        again.use_order(run.order_of_data())
        others, modes = _buffers_of_others(module), [(layer, layer.training) for layer in module.modules()]
        attributes = Attributes(module)

        def pairs() -> Iterator[list[Any]]:
            for batch_nb, batch in enumerate(again.batches(run.progress.epoch, 0, limit)):
                if batch is not None:
                    seeding.seed_device(seed_at(batch_nb))
                    yield [(batch if to_device is None else to_device(batch), batch_nb)]

        try:
            with seeding.preserved():
                update_bn(pairs(), Passing(module, step))
        finally:
            attributes.put_back()
            for layer, training in modes:
                layer.training = training
            with torch.no_grad():
                for buffer, before in others:
                    buffer.copy_(before)

    return refresh


class Passing(nn.Module):
    """A module whose ``forward`` is a training step."""

    def __init__(self, module: nn.Module, step: Callable[..., Any]) -> None:
        super().__init__()
        self.module, self._step = module, step

    def forward(self, pair: tuple[Any, int]) -> None:
        self._step(*pair)


def _buffers_of_others(module: nn.Module) -> list[tuple[Any, Any]]:
    """The buffers that aren't BatchNorm's, with a copy of each."""
    own = {id(b) for layer in module.modules() if isinstance(layer, BATCH_NORM) for b in layer.buffers(recurse=False)}
    return [(b, b.detach().clone()) for b in module.buffers() if id(b) not in own]
