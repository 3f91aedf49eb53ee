"""Fine-tuning: layers that are frozen first and trained from some epoch on."""

from collections.abc import Iterator, Mapping, Sequence
from inspect import signature
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from pytorch_lightning.callbacks.callback import Callback, Run
from pytorch_lightning.callbacks.monitor import check_count
from pytorch_lightning.errors import MisconfigurationException, describe, near
from pytorch_lightning.lightning2 import refuse_arguments

NORMS = (nn.modules.batchnorm._NormBase,)
"""Layers that keep running statistics."""
RATES = ("lr", "initial_lr", "max_lr", "min_lr", "swa_lr")
"""The entries of a group that are learning rates."""


class Unfreeze(Callback):
    """Freezes layers before training, and trains each from the start of its epoch on.

    ``epochs``: by name of a module or parameter (``{'backbone.layer4': 1, 'backbone': 3}``) the epoch, counted from 0,
    from which on it is trained; the longest name that fits decides. Optimizer ``optimizer_i`` gets a group of
    parameters for each, with the options of its first group and ``lr_factor`` times its learning rates; schedules apply
    to all groups. Let ``configure_optimizers`` give the optimizer the parameters that require gradients alone.

    ``train_bn=False``: BatchNorm in them is frozen too, in eval mode, so that its statistics stay, until its epoch;
    True trains it from the start. Raises ``MisconfigurationException`` before the first batch for a name that isn't
    there, for a layer that an optimizer has already, and for a schedule that can't take another group.

    >>> from pytorch_lightning import Trainer
    >>> trainer = Trainer(callbacks=[Unfreeze({"backbone.layer4": 2, "backbone": 5}, lr_factor=0.1)])
    """

    def __init__(
        self,
        epochs: Mapping[str, int],
        lr_factor: float = 0.1,
        train_bn: bool = False,
        optimizer_i: int = 0,
        **others: Any,
    ) -> None:
        refuse_arguments("Unfreeze", "callback_arguments", others, signature(Unfreeze).parameters)
        if not isinstance(epochs, Mapping) or not epochs:
            raise MisconfigurationException(
                f"Unfreeze: epochs must be a dict of epochs by name; received {describe(epochs)}."
                " Pass {'backbone': 2}, say."
            )
        for epoch in epochs.values():
            check_count(self, "each epoch", epoch, 1)
        check_count(self, "optimizer_i", optimizer_i, 0)
        if isinstance(lr_factor, bool) or not isinstance(lr_factor, (int, float)) or not 0 < lr_factor < float("inf"):
            raise MisconfigurationException(
                f"Unfreeze: lr_factor must be a number above 0; received {describe(lr_factor)}. Pass 0.1, say."
            )
        self.epochs, self.lr_factor = dict(epochs), float(lr_factor)
        self.train_bn, self.optimizer_i = bool(train_bn), optimizer_i
        self._frozen: dict[str, list[str]] = {}
        """By name of the entry the parameters that it trains later."""
        self._still: dict[str, list[str]] = {}
        """The layers that are in eval mode until then."""
        self.reset()

    def reset(self) -> None:
        self.done: list[str] = []
        """The entries whose epoch has come."""

    def before_optimizers(self, module: nn.Module) -> None:
        self._has_groups = 0
        """The ``id`` of the optimizer that got its groups; 0 is none's."""
        parameters, layers = dict(module.named_parameters()), dict(module.named_modules())
        owned = {name: [p for p in parameters if self._owner_of(p) == name] for name in self.epochs}
        for name, own in owned.items():
            if not own:
                known = [n for n in (*layers, *parameters) if n]
                there = "has no parameters of its own" if name in layers else "isn't there"
                raise MisconfigurationException(
                    f"Unfreeze: {name!r} {there}: {type(module).__name__} has"
                    f" {', '.join(n for n, _ in module.named_children())}.{near(name, known)}"
                )
        norms = {name: layer for name, layer in layers.items() if isinstance(layer, NORMS)}
        trained = {f"{name}.{p}" for name in norms for p in norms[name]._parameters} if self.train_bn else set()
        for name, own in owned.items():
            named = [p for p in own if p not in trained]
            before = [p for p in named if parameters[p].requires_grad]
            self._frozen[name] = before or named  # what a program froze itself is trained too, where that is all of it
            for p in named:
                parameters[p].requires_grad_(False)
            within = [n for n in layers if n == name or n.startswith(f"{name}.")]
            mine = [n for n in within if n in norms and not self.train_bn and self._owner_of(n) == name]
            awake = [n for n in mine if layers[n].training]
            is_awake = any(layers[n].training for n in within if n not in norms)
            self._still[name] = awake or (mine if is_awake else [])
            for n in mine:
                layers[n].eval()

    def _owner_of(self, name: str) -> str | None:
        """The entry that ``name``, of a parameter or layer, belongs to."""
        fitting = [entry for entry in self.epochs if name == entry or name.startswith(f"{entry}.")]
        return max(fitting, key=len, default=None)

    def after_optimizers(self, module: nn.Module, optimizers: Sequence[Any], schedulers: Sequence[Any]) -> None:
        if self.optimizer_i >= len(optimizers):
            raise MisconfigurationException(
                f"Unfreeze: optimizer_i={self.optimizer_i}, and configure_optimizers gives {len(optimizers)}. Count"
                " from 0."
            )
        optimizer = optimizers[self.optimizer_i]
        if self._has_groups in map(id, optimizers):  # it stays, where others come
            return
        if isinstance(optimizer, torch.optim.LBFGS):
            raise MisconfigurationException("Unfreeze: LBFGS has one group of parameters only. Use another optimizer.")
        parameters = dict(module.named_parameters())
        held = {id(p) for o in optimizers for group in o.param_groups for p in group["params"]}
        there = [p for names in self._frozen.values() for p in names if id(parameters[p]) in held]
        if there:
            raise MisconfigurationException(
                f"Unfreeze: an optimizer is given {len(there)} parameters that Unfreeze adds ({', '.join(there[:3])}),"
                " so that lr_factor would be another group's. Give it the others: [p for p in self.parameters() if"
                " p.requires_grad] at the start of a fit, and self.head.parameters(), say, after their epoch."
            )
        for entry in sorted(self.epochs, key=lambda name: self.epochs[name]):
            own = [(n, p) for n, p in parameters.items() if self._owner_of(n) == entry and id(p) not in held]
            if own:
                self._add(optimizer, schedulers, own)
        self._has_groups = id(optimizer)

    def _add(self, optimizer: Any, schedulers: Sequence[Any], named: Sequence[tuple[str, Any]]) -> None:
        first = optimizer.param_groups[0]
        group = {
            key: value * self.lr_factor if key in RATES and value is not None else value
            for key, value in first.items()
            if key not in ("params", "param_names")
        }
        for scheduler in schedulers:
            if getattr(scheduler, "optimizer", None) is optimizer:
                for one in _within(scheduler):
                    self._extend(one)
        optimizer.add_param_group({**group, "params": [*named] if "param_names" in first else [p for _, p in named]})

    def _extend(self, scheduler: Any) -> None:
        """One group more for ``scheduler``, as if it had been there when it was made."""
        kind = type(scheduler).__name__
        if not isinstance(scheduler, LRScheduler):
            raise MisconfigurationException(
                f"Unfreeze: {kind} isn't one of torch's schedules (torch.optim.lr_scheduler.LRScheduler), so it isn't"
                " known how it takes another group. Use one of those, or add the groups in configure_optimizers, with"
                " requires_grad=False."
            )
        functions = getattr(scheduler, "lr_lambdas", [])
        if any(function is not functions[0] for function in functions):
            raise MisconfigurationException(
                f"Unfreeze: {kind} has a list of functions, one for each group, and none for those that are added."
                " Pass one function."
            )
        for name in ("base_lrs", "max_lrs", "_last_lr", "base_momentums", "max_momentums", "min_lrs", "lr_lambdas"):
            values = getattr(scheduler, name, None)
            if values:
                is_rate = name in ("base_lrs", "max_lrs", "_last_lr")
                setattr(scheduler, name, [*values, values[0] * self.lr_factor if is_rate else values[0]])

    def on_epoch_start(self, run: Run) -> None:
        parameters, layers = dict(run.module.named_parameters()), dict(run.module.named_modules())
        for name, epoch in self.epochs.items():
            if epoch <= run.progress.epoch and name not in self.done:
                self.done.append(name)
                for parameter in self._frozen[name]:
                    parameters[parameter].requires_grad_(True)
                for layer in self._still[name]:
                    layers[layer].train()

    def state_dict(self) -> dict[str, Any]:
        return {"done": list(self.done)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.done = list(state["done"])


def _within(scheduler: Any) -> Iterator[Any]:
    """``scheduler`` and those that it consists of."""
    yield scheduler
    for one in getattr(scheduler, "_schedulers", ()):
        yield from _within(one)
