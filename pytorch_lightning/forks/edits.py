"""The edits of a fork, made in the save that it begins with."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from pytorch_lightning.errors import MisconfigurationException
from pytorch_lightning.forks.names import OF_SPEED

OF_RATE = ("initial_lr", "max_lr", "min_lr")
"""What a schedule keeps of the rate in a parameter group."""
OF_RATES = ("base_lrs", "max_lrs")
"""The same in the state of a schedule, by group."""
OF_PROGRESS = {"last_epoch", "_step_count", "_last_lr", "_is_initial", "_get_lr_called_within_step", *OF_RATES}


def set_settings(saved: dict[str, Any], settings: Mapping[str, Any], owners: Sequence[int]) -> list[str]:
    """Put ``settings`` into every parameter group of ``saved`` that has them; returns what changed, in words.
    ``owners``: which optimizer each schedule is of.

    ``lr`` is the rate of the next batch, ``initial_lr`` that which the schedule begins with; the rest of what a
    schedule keeps changes in proportion, so that it goes on from there.
    """
    said = []
    for name, value in settings.items():
        for i, state in enumerate(saved["optimizer_states"]):
            groups = [group for group in state.get("param_groups", ()) if name in group]
            said += [f"{name} {shown(group[name])} -> {shown(value)}" for group in groups]
            if name in ("lr", "initial_lr"):
                for group in groups:
                    _set_rate(group, name, value, is_scheduled=i in owners)
                continue
            _refuse_cycled(name, groups, [s for s, o in zip(saved["lr_schedulers"], owners, strict=True) if o == i])
            for group in groups:
                group[name] = value
    follow_rates(saved, owners)
    return list(dict.fromkeys(said))


def _set_rate(group: dict[str, Any], name: str, value: float, *, is_scheduled: bool) -> None:
    old = float(group[name])
    others = [other for other in ("lr", *OF_RATE) if other != name and other in group]
    if old == 0 and value != 0 and is_scheduled:
        other = "initial_lr" if name == "lr" else "lr"
        raise MisconfigurationException(
            f"{name} is 0 at that batch, so its schedule has no proportion to go on in from {value}. Set {other}."
        )
    for other in others:
        group[other] = like(group[other], moved(float(group[other]), old, value))
    group[name] = like(group[name], value)


def moved(value: float, old: float, new: float) -> float:
    """``value`` in the proportion of ``new`` to ``old``."""
    return new if value == old or old == 0 else value * (new / old)


def like(old: Any, value: float) -> Any:
    """``value`` as a tensor where ``old`` is one."""
    return torch.full_like(old, value) if isinstance(old, torch.Tensor) else value


def follow_rates(saved: dict[str, Any], owners: Sequence[int]) -> None:
    """Bring what schedules keep of the rates of their groups up to date."""
    for state, owner in zip(saved["lr_schedulers"], owners, strict=True):
        groups = saved["optimizer_states"][owner]["param_groups"]
        for one in (state, *inner_of(state)):
            for name, of_group in (("_last_lr", "lr"), ("base_lrs", "initial_lr"), ("max_lrs", "max_lr")):
                if name in one and all(of_group in group for group in groups):
                    one[name] = [float(group[of_group]) for group in groups]


def inner_of(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The states of the schedules in a schedule, all of them."""
    each = [one for one in state.get("_schedulers", ()) if isinstance(one, dict)]
    return [found for one in each for found in (one, *inner_of(one))]


def _refuse_cycled(name: str, groups: Sequence[Mapping[str, Any]], schedules: Sequence[Mapping[str, Any]]) -> None:
    cycles = any("max_momentum" in g for g in groups) or any(s.get("cycle_momentum") for s in schedules)
    if cycles and name in ("momentum", "betas", "max_momentum", "base_momentum"):
        raise MisconfigurationException(f"{name} can't be set: a schedule of this run sets it at every step.")


def refuse_undone(before: Sequence[Any], saved: Sequence[Any], now: Sequence[Any]) -> None:
    """Raises where a setting of parameter groups that was edited, ``before`` it was in ``saved``, isn't ``now`` what it
    is to be: the module sets it when a fit starts."""
    for was, state, groups in zip(before, saved, now, strict=True):
        for old, edited, group in zip(was, state.get("param_groups", ()), groups, strict=True):
            for name in (name for name in old if name not in OF_SPEED and not _same(old[name], edited[name])):
                if not _same(group[name], edited[name]):
                    raise MisconfigurationException(
                        f"{name} is to be {shown(edited[name])} in the fork, and on_fit_start of the model sets it to"
                        f" {shown(group[name])}, so that would have no effect. Change it in the code."
                    )


# ------------------------------------------------------------------ what a hyperparameter makes of an optimizer
def set_configured(saved: dict[str, Any], old: Any, new: Any, owners: Sequence[int]) -> list[str]:
    """Put into ``saved`` what ``configure_optimizers`` gives otherwise with the new hyperparameters: ``old`` and
    ``new`` are what it gave (``SettingsPart.fresh``). Returns what changed, in words."""
    shape = [[len(groups) for groups in fresh["groups"]] for fresh in (old, new)]
    if shape[0] != shape[1] or len(old["schedules"]) != len(new["schedules"]):
        raise MisconfigurationException("configure_optimizers gives other optimizers or groups with these hparams.")
    said = []
    for state, before, after in zip(saved["optimizer_states"], old["groups"], new["groups"], strict=True):
        for group, was, now in zip(state.get("param_groups", ()), before, after, strict=True):
            changed = [n for n in now if n not in OF_SPEED and n in was and not _same(was[n], now[n])]
            said += [f"{name} {shown(was[name])} -> {shown(now[name])}" for name in changed]
            _reconfigure(group, was, now, changed)
    for state, before, after in zip(saved["lr_schedulers"], old["schedules"], new["schedules"], strict=True):
        pairs = zip((state, *inner_of(state)), (before, *inner_of(before)), (after, *inner_of(after)), strict=True)
        for one, was, now in pairs:
            changed = [n for n in now if n not in OF_PROGRESS and n in was and not _same(was[n], now[n])]
            said += [f"{name} {shown(was[name])} -> {shown(now[name])}" for name in changed if name != "_schedulers"]
            for name in changed:
                _replace(one, name, was[name], now[name])
    follow_rates(saved, owners)
    return list(dict.fromkeys(said))


def _reconfigure(group: dict[str, Any], was: Mapping[str, Any], now: Mapping[str, Any], changed: list[str]) -> None:
    base = "initial_lr" if "initial_lr" in was else "lr"
    for name in changed:
        if name != "lr":
            _replace(group, name, was[name], now[name])
    if base in changed:
        old, new = float(was[base]), float(now[base])
        if old == 0 and float(group["lr"]) != 0:
            raise MisconfigurationException("the learning rate was 0 before: it can't change in proportion. Set lr.")
        group["lr"] = like(group["lr"], moved(float(group["lr"]), old, new))


def _replace(values: dict[str, Any], name: str, old: Any, new: Any) -> None:
    if name == "_schedulers":
        return
    if not _same(values.get(name), old):
        raise MisconfigurationException(
            f"configure_optimizers gives another {name} with these hparams, but {name} has changed while training, from"
            f" {shown(old)} to {shown(values.get(name))}, so it isn't clear what it should be. Leave that hparam."
        )
    values[name] = copy.deepcopy(new)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return bool(torch.equal(torch.as_tensor(one), torch.as_tensor(other)))
    return bool(one == other)


def shown(value: Any) -> str:
    """A value in a line."""
    value = value.item() if isinstance(value, torch.Tensor) and value.numel() == 1 else value
    return f"{value:.6g}" if isinstance(value, float) else str(value)
