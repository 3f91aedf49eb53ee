"""Attributes of several processes: each keeps its own. Another number of processes gets what all had in common, and
the states of torchmetrics' metrics, reduced as each metric says."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pytorch_lightning.processes import Processes, Subject
from pytorch_lightning.resume.plain_values import Decoder, fingerprint

State = dict[str, Any]
ATTRIBUTES = Subject("attributes", "Keep other values elsewhere.")
IN_ONE = ("sum", "cat")
"""Reductions whose result one process may have only."""
REDUCTIONS = (*IN_ONE, "mean", "max", "min", "forget")


class Place(NamedTuple):
    """An attribute, and where a state has it."""

    path: str
    name: str
    where: str = "values"

    def __str__(self) -> str:
        return f"{self.path}.{self.name}"


class Merged(NamedTuple):
    """What a process is to have of a metric's state."""

    place: Place
    first: str
    """The first mark."""
    value: Any


def join(state: State, processes: Processes, owners: Iterable[Any]) -> State:
    """One state of those of all processes, the same in all of them. Everybody calls it."""
    told = processes.gather(_checksums(state), ATTRIBUTES)
    places = sorted({tuple(place) for checksums in told for place, _ in checksums})
    maps = [{tuple(place): text for place, text in checksums} for checksums in told]
    differ = [list(place) for place in places if len({checksums.get(place) for checksums in maps}) > 1]
    if not (differ or any(map(_is_metric, owners))):
        return state
    first, *others = processes.gather(state, ATTRIBUTES)
    return {**first, "differ": differ, "others": others}


def _checksums(state: State) -> list[tuple[list[str], str]]:
    """What is compared, of each place."""
    found = [
        ([path, name, "values"], " ".join([first, *(fingerprint(state["nodes"], v) for v in value)]))
        for path, attributes in state["values"].items()
        for name, (first, *value) in attributes.items()
    ]
    for where in ("at_iter", "for_workers"):
        for path, copies in state.get(where, {}).items():
            found += [([path, name, where], copy[0]) for name, copy in copies.items()]
    return found


def own_of(state: State, processes: Processes) -> tuple[State, list[Place]]:
    """What this process is to have of a joined ``state``, and what it can't have, since that was each process's."""
    others = state.get("others", [])
    if state.get("nb", processes.nb) == processes.nb:
        return (state if not others else [state, *others][processes.rank]), []
    differ = [Place(*place) for place in state.get("differ", [])]
    values = {
        path: {name: entry for name, entry in attributes.items() if Place(path, name) not in differ}
        for path, attributes in state["values"].items()
    }
    return {**state, "values": values}, differ


def merged_metrics(
    state: State, owners: Mapping[str, Any], processes: Processes, device: torch.device
) -> Iterator[Merged]:
    """The states of metrics that another number of processes saved. A metric is recognised by what it has."""
    if state.get("nb", processes.nb) == processes.nb:
        return
    states = [state, *state.get("others", [])]
    decoders = [Decoder(one["nodes"], device, lambda _: False) for one in states]
    for path, held in owners.items():
        if not _is_metric(held):
            continue
        for name, reduction in {**held._reductions, "_update_count": "max", "_computed": "forget"}.items():
            entries = [one["values"].get(path, {}).get(name) for one in states]
            kept, kind = next((entry for entry in entries if entry is not None), None), _kind_of(reduction)
            if kept is None or kind not in REDUCTIONS:
                continue
            default = held._defaults.get(name, 0)
            values = [
                decoder.value(entry[1]) if entry is not None and len(entry) > 1 else default
                for entry, decoder in zip(entries, decoders, strict=True)
            ]
            has_it = processes.is_first or kind not in IN_ONE
            value = _reduced(kind, values) if has_it else _copy(default, device)
            yield Merged(Place(path, name), kept[0], value)


def _is_metric(held: Any) -> bool:
    return isinstance(held, nn.Module) and all(
        isinstance(vars(held).get(n), dict) for n in ("_reductions", "_defaults")
    )


def _kind_of(reduction: Any) -> str:
    """'sum' of the function dim_zero_sum."""
    return reduction if isinstance(reduction, str) else getattr(reduction, "__name__", "").removeprefix("dim_zero_")


def _reduced(kind: str, values: list[Any]) -> Any:
    if kind == "forget":
        return None
    if kind == "max" and isinstance(values[0], int):
        return max(values)
    if kind == "cat":
        return [item for value in values for item in (value if isinstance(value, list) else [value])]
    stacked = torch.stack([value.to(values[0].device) for value in values])
    if kind == "mean":
        return stacked.mean(0)
    return stacked.sum(0) if kind == "sum" else stacked.amax(0) if kind == "max" else stacked.amin(0)


def _copy(default: Any, device: torch.device) -> Any:
    return default.detach().clone().to(device) if isinstance(default, Tensor) else list(default)
