"""What ``training_step`` returns as ``prog_epoch``: one value at the end of each epoch."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pytorch_lightning.errors import FitError, describe
from pytorch_lightning.processes import Processes
from pytorch_lightning.run.owners import Owner, owners_of

Sums = dict[str, dict[int, list[float]]]
"""By name and virtual rank: the sum of the values, each multiplied by its weight, and that of the weights."""


class EpochProg(dict[str, Any]):
    """A ``prog`` that comes with a ``prog_epoch``; there even where it is empty."""

    def __init__(self, prog: Mapping[str, Any] | None, of_epoch: dict[str, Any]) -> None:
        super().__init__(prog or {})
        self.of_epoch = of_epoch

    def __bool__(self) -> bool:
        return True


def is_metric(value: Any) -> bool:
    """Whether ``value`` is an object that collects what it is a metric of, as those of torchmetrics."""
    return all(callable(getattr(value, name, None)) for name in ("update", "compute", "reset"))


def checked(values: Any, name: str, place: str) -> dict[str, Any]:
    """``values`` as they are now. Raises ``FitError`` for what is neither a number nor a metric."""
    if not isinstance(values, Mapping):
        raise FitError(
            f"{name} returned 'prog_epoch': {describe(values)}; expected a dict of numbers, or metrics, by name."
            f" Return {{'loss': loss, 'prog_epoch': {{'name': number}}}}. {place}"
        )
    from pytorch_lightning.run.metrics import to_number

    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex() and not value.is_cpu:
            found[str(key)] = value.detach().to(torch.float64 if value.device.type != "mps" else value.dtype).clone()
        else:
            found[str(key)] = value if is_metric(value) else to_number(value)
        if found[str(key)] is None:
            raise FitError(
                f"{name} returned {describe(value)} under {key!r} of 'prog_epoch'; expected a number, a tensor of one"
                f" element, or a metric with update, compute and reset. Return its mean. {place}"
            )
    return found


class EpochMetrics:
    """The sums of the epoch so far, and the metrics that are computed at its end."""

    def __init__(self, module: Any, mine: Sequence[int]) -> None:
        self._module, self._mine = module, mine
        self.sums: Sums = {}
        self._unread: list[tuple[str, int, float, Tensor]] = []
        self._objects: dict[str, Any] = {}
        self._paths: dict[str, str] = {}
        """Where in the module a metric is that a resumed fit hasn't been given yet."""
        self._joined: Sums | None = None

    def add(self, values: Mapping[str, Any], virtual_rank: int, weight: float) -> None:
        """A batch of ``virtual_rank`` gave ``values``."""
        for name, value in values.items():
            if isinstance(value, Tensor):
                self._unread.append((name, virtual_rank, weight, value))
                self.sums.setdefault(name, {})
            elif is_metric(value):
                self._objects[name] = value
            else:
                self._add(name, virtual_rank, weight, value)

    def _add(self, name: str, virtual_rank: int, weight: float, value: float) -> None:
        entry = self.sums.setdefault(name, {}).setdefault(virtual_rank, [0.0, 0.0])
        entry[0] += value * weight
        entry[1] += weight

    def read(self) -> None:
        """Read what is on a device."""
        unread, self._unread = self._unread, []
        numbers = torch.stack([value.reshape(()) for *_, value in unread]).tolist() if unread else []
        for (name, virtual_rank, weight, _), value in zip(unread, numbers, strict=True):
            self._add(name, virtual_rank, weight, value)

    @property
    def names(self) -> list[str]:
        """Those that the epoch has so far."""
        return [*self.sums, *{**self._objects, **self._paths}]

    def _own(self) -> Sums:
        self.read()
        return {
            name: {rank: list(entry) for rank, entry in ranks.items() if rank in self._mine}
            for name, ranks in self.sums.items()
        }

    def end(self, processes: Processes, where: str) -> dict[str, float | int]:
        """The values of the epoch over all ``processes``, all of which call it; begins anew."""
        told = processes.gather((self._own(), [*{**self._paths, **self._objects}]))
        sums = _merged([sums for sums, _ in told])
        values: dict[str, float | int] = {}
        for name, ranks in sums.items():
            total = weight = 0.0
            for rank in sorted(ranks):
                total, weight = total + ranks[rank][0], weight + ranks[rank][1]
            if weight:
                values[name] = total / weight
        for name in sorted({name for _, names in told for name in names}):
            values.update(self._computed(name, where))
        self.sums, self._paths, self._objects = {}, {}, {}
        return values

    def _computed(self, name: str, where: str) -> dict[str, float | int]:
        from pytorch_lightning.run.metrics import numbers_of

        metric = self._objects.get(name)
        if metric is None and name in self._paths:
            metric = dict(owners_of([Owner("module", self._module)])).get(self._paths[name])
        if metric is None:
            raise FitError(
                f"a process has no metric {name!r} to compute, as others have. Make it in __init__ (self.{name} = ...),"
                f" where a resumed fit finds it, and return it in 'prog_epoch' for every batch. {where}"
            )
        with torch.no_grad():
            value = metric.compute()
        metric.reset()
        found = {str(k): v for k, v in value.items()} if isinstance(value, Mapping) else {name: value}
        return numbers_of(found, f"compute() of the metric {name!r}")

    def join(self, processes: Processes) -> None:
        """Every process enters a save: the sums of all are in it, until ``leave``."""
        self._joined = _merged(processes.gather(self._own()))

    def leave(self) -> None:
        """The save is made."""
        self._joined = None

    def note(self) -> Any:
        """What a window changes."""
        self.read()
        return {name: {rank: list(entry) for rank, entry in ranks.items()} for name, ranks in self.sums.items()}

    def state_dict(self) -> dict[str, Any]:
        self.read()
        there = {id(held): path for path, held in owners_of([Owner("module", self._module)])} if self._objects else {}
        paths = {name: there[id(metric)] for name, metric in self._objects.items() if id(metric) in there}
        return {"sums": self.note() if self._joined is None else self._joined, "paths": {**self._paths, **paths}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sums = {name: {int(r): list(entry) for r, entry in ranks.items()} for name, ranks in state["sums"].items()}
        self._paths, self._objects, self._unread = dict(state["paths"]), {}, []


def end_epoch(metrics: Any, processes: Processes, where: str) -> dict[str, float | int]:
    """The batches of an epoch are over: its metrics, over all ``processes``, each of which calls it. Returns those that
    ``training_step`` gave as ``prog_epoch``, if any, with ``tng_loss_epoch``."""
    values: dict[str, float | int] = {}
    if processes.any(metrics.of_epoch is not None):
        metrics.of_epoch = metrics.of_epoch or metrics.make_of_epoch()
        values = metrics.of_epoch.end(processes, where)
    loss = metrics.epoch_loss
    metrics.last_epoch = {**({} if loss is None else {"tng_loss_epoch": loss}), **values}
    return metrics.last_epoch if values else {}


def _merged(told: Sequence[Sums]) -> Sums:
    """Of each virtual rank what the process has whose it is."""
    sums: Sums = {}
    for own in told:
        for name, ranks in own.items():
            sums.setdefault(name, {}).update(ranks)
    return sums
