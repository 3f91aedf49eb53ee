"""Averages of the weights: validated with, and saved beside the weights that are trained."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

from pytorch_lightning.callbacks.callback import Callback, Run
from pytorch_lightning.callbacks.monitor import check_count, from_first
from pytorch_lightning.errors import CheckpointError, FitError, MisconfigurationException, describe, near
from pytorch_lightning.lightning2 import refuse_arguments

STATISTICS = ("running_", "num_batches_tracked")
"""How the names of buffers begin that layers of torch keep in training for evaluation."""


class Weights(nn.Module):
    """The parameters and buffers of a module under their names, without the module itself."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._parameters.update(module.named_parameters())
        self._buffers.update(module.named_buffers())

    def __deepcopy__(self, memo: Any) -> "Weights":
        copied = Weights(nn.Module())  # tensor by tensor: torch can't copy what a strategy keeps with a shard
        for name, parameter in self.named_parameters():
            copied._parameters[name] = nn.Parameter(parameter.detach().clone(), requires_grad=False)
        copied._buffers.update({name: buffer.detach().clone() for name, buffer in self.named_buffers()})
        return copied

    def by_name(self, all_buffers: bool) -> dict[str, Tensor]:
        """The parameters and running statistics, or ``all_buffers``."""
        buffers = {n: b for n, b in self.named_buffers() if all_buffers or n.rpartition(".")[2].startswith(STATISTICS)}
        return {**dict(self.named_parameters()), **buffers}


class WeightAveraging(Callback):
    """Keeps an average of the weights, by torch's ``AveragedModel``: validations of a fit run with it, checkpoints hold
    it beside the weights that are trained, and ``trainer.test(ckpt='best', weights='average')`` loads it.

    ``kind``: 'ema' is an exponential moving average, w = decay * w + (1 - decay) * weights; 'swa' the mean of all; a
    function of (averaged tensor, current tensor, number averaged so far), which returns the new average, any other.
    ``decay``: of 'ema', 0.999 by default. ``start``: the optimizer step, counted from 1, after which the average begins
    as a copy of the weights; until then validations use these. ``every``: it is updated at every so many optimizer
    steps from ``start`` on. A step that is skipped since a gradient isn't finite in 16 bit doesn't count.

    ``use_buffers=False``: to the average belong the running statistics (of BatchNorm, say) that the model had at its
    last update, and all other buffers stay the model's own; True averages all buffers, and what a validation changes in
    them is dropped. ``update_bn=True`` computes the statistics of BatchNorm for the averaged weights anew, by a forward
    pass over the training batches before each validation and at the end of the fit. Raises
    ``MisconfigurationException`` for options that don't fit together.

    >>> from pytorch_lightning import Trainer
    >>> trainer = Trainer(callbacks=[WeightAveraging("ema", decay=0.99, start=100)])
    """

    def __init__(
        self,
        kind: str | Callable[[Tensor, Tensor, Any], Tensor] = "ema",
        decay: float | None = None,
        start: int = 1,
        every: int = 1,
        use_buffers: bool = False,
        update_bn: bool = False,
        **others: Any,
    ) -> None:
        refuse_arguments("WeightAveraging", "callback_arguments", others, signature(WeightAveraging).parameters)
        if not callable(kind) and kind not in ("ema", "swa"):
            hint = near(kind, ("ema", "swa")) if isinstance(kind, str) else ""
            raise MisconfigurationException(
                f"WeightAveraging: kind must be 'ema', 'swa' or a function; received {describe(kind)}.{hint}"
            )
        if decay is not None and kind != "ema":
            raise MisconfigurationException(
                f"WeightAveraging: decay is of 'ema', and kind is {describe(kind)}. Leave it out."
            )
        decay = 0.999 if decay is None else decay
        if isinstance(decay, bool) or not isinstance(decay, (int, float)) or not 0 <= decay <= 1:
            raise MisconfigurationException(
                f"WeightAveraging: decay must be a number from 0 to 1; received {describe(decay)}. Pass 0.999, say."
            )
        check_count(self, "start", start, 0)
        check_count(self, "every", every, 1)
        if use_buffers and update_bn:
            raise MisconfigurationException(
                "WeightAveraging: use_buffers=True averages the statistics of BatchNorm, and update_bn=True computes"
                " them anew. Pass one of them."
            )
        self.kind, self.decay, self.start, self.every = kind, decay, max(start, 1), every
        self.use_buffers, self.update_bn = bool(use_buffers), bool(update_bn)
        self.refresh: Callable[[], None] | None = None
        """Set by the Trainer: passes over the training batches in train mode, with the weights that the module has."""
        self.reset()

    def reset(self) -> None:
        self._average: Any = None
        self._loaded: dict[str, Any] | None = None
        self._refreshed = 0
        """How many updates the average had when its statistics were computed anew."""

    def _made(self, weights: Weights) -> Any:
        if callable(self.kind):
            return AveragedModel(weights, avg_fn=self.kind, use_buffers=self.use_buffers)
        of_kind: Any = {"ema": partial(get_ema_multi_avg_fn, self.decay), "swa": get_swa_multi_avg_fn}
        return AveragedModel(weights, multi_avg_fn=of_kind[self.kind](), use_buffers=self.use_buffers)

    def on_optimizer_step(self, run: Run) -> None:
        nb = run.progress.nb_optimizer_steps
        if nb < self.start or (nb - self.start) % self.every:
            return
        weights, average = Weights(run.module), self.average_for(run.module)
        if average is None:
            average = self._average = self._made(weights)
        _compare(average.module.by_name(True), weights.by_name(True), run.module, FitError)
        average.update_parameters(weights)

    def average_for(self, module: nn.Module) -> Any:
        """The ``AveragedModel``, on the devices of ``module``; None before its first update."""
        if self._loaded is None:
            return self._average
        loaded, self._loaded = self._loaded, None
        average = self._average = self._made(Weights(module))
        there = self._of(average.module)
        _compare(loaded["weights"], there, module, CheckpointError)
        with torch.no_grad():
            for name, tensor in there.items():
                tensor.copy_(_placed_like(loaded["weights"][name], tensor))
        average.n_averaged.fill_(loaded["nb"])
        return average

    def _of(self, weights: Weights) -> dict[str, Tensor]:
        """What belongs to the average."""
        return weights.by_name(self.use_buffers)

    @contextlib.contextmanager
    def around_evaluation(self, run: Run, stage: str) -> Iterator[None]:
        if not run.running:
            yield
            return
        self._share_buffers(run)
        with self.in_place(run.module):
            self._refresh(run.module)
            yield

    def _share_buffers(self, run: Run) -> None:
        """In own steps each process has buffers of its own when it averages: those of the first one are the average's,
        as they are in a checkpoint."""
        if run.module.automatic_optimization or self.average_for(run.module) is None:
            return
        buffers = dict(self._average.module.named_buffers())
        of_first = from_first(run, {name: buffer.detach().cpu() for name, buffer in buffers.items()})
        with torch.no_grad():
            for name, buffer in buffers.items():
                buffer.copy_(of_first[name])

    def on_fit_end(self, run: Run) -> None:
        if self.update_bn and run.progress.stop_reason and not run.interrupted:
            with self.in_place(run.module):
                self._refresh(run.module)

    def _refresh(self, module: nn.Module) -> None:
        """Compute the statistics of BatchNorm anew, unless that was done since the last update. ``module`` has the
        averaged weights."""
        average = self.average_for(module)
        if average is None or not self.update_bn or self._refreshed == int(average.n_averaged):
            return
        assert self.refresh is not None
        self.refresh()
        self._refreshed = int(average.n_averaged)
        with torch.no_grad():
            now = dict(module.named_buffers())
            for name, buffer in average.module.named_buffers():
                buffer.copy_(now[name])

    @contextlib.contextmanager
    def in_place(self, module: nn.Module) -> Iterator[None]:
        """A scope in which ``module`` has the averaged weights; nothing changes before the first update. Afterwards its
        own come back, bit for bit."""
        average = self.average_for(module)
        own: dict[str, tuple[Tensor, Tensor]] = {}
        try:
            if average is not None:
                averaged, weights = self._of(average.module), self._of(Weights(module))
                _compare(averaged, weights, module, FitError)
                with torch.no_grad():
                    for name, tensor in weights.items():
                        own[name] = tensor, tensor.detach().clone()
                        tensor.copy_(averaged[name])
            yield
        finally:
            buffers = dict(module.named_buffers())
            with torch.no_grad():
                for name, (tensor, before) in own.items():
                    buffers.get(name, tensor).copy_(before)

    @property
    def state_name(self) -> str:
        return "WeightAveraging"

    def state_dict(self) -> dict[str, Any]:
        if self._loaded is not None:
            return self._loaded
        if self._average is None:
            return {"nb": 0, "weights": {}, "refreshed": 0}
        weights = {name: tensor.detach() for name, tensor in self._of(self._average.module).items()}
        return {"nb": int(self._average.n_averaged), "weights": weights, "refreshed": self._refreshed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._average, self._refreshed = None, int(state["refreshed"])
        self._loaded = dict(state) if state["nb"] else None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_average": None, "refresh": None, "_loaded": self.state_dict() if self._nb else None}

    @property
    def _nb(self) -> int:
        return int(self.state_dict()["nb"])

    def make_whole(self, run: Run) -> None:
        """After a fit of several processes that didn't fail: each gets all of the average. All of them call it."""
        self._share_buffers(run)
        state = self.state_dict()  # also of a fit that resumed and had nothing left to train
        if any(hasattr(tensor, "full_tensor") for tensor in state["weights"].values()):
            state = dict(state)
            state["weights"] = {
                name: tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
                for name, tensor in state["weights"].items()
            }
            self.load_state_dict(state)


def _compare(average: Any, weights: Any, module: nn.Module, error: type[Exception]) -> None:
    """Raise ``error`` where an average is of other weights."""
    changed = [n for n in {**average, **weights} if n not in average or n not in weights]
    changed = changed or [n for n in average if average[n].shape != weights[n].shape]
    if changed:
        raise error(
            f"the average of the weights doesn't fit {type(module).__name__} any more: {', '.join(changed[:3])} came,"
            " went or changed its shape since it began. Make all layers in __init__, or begin the average later"
            " (WeightAveraging(start=n))."
        )


def _placed_like(value: Tensor, tensor: Any) -> Tensor:
    """``value`` on the device of ``tensor``, and sharded as that is."""
    if hasattr(tensor, "placements") and not hasattr(value, "placements"):
        from torch.distributed.tensor import distribute_tensor

        value = value.to(tensor.to_local().device)
        return distribute_tensor(value, tensor.device_mesh, tensor.placements, src_data_rank=None)
    return value.to(tensor.device)
