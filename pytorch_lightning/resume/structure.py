"""What a module is made of: layers and hooks, which a checkpoint can't hold."""

from collections.abc import Mapping
from typing import Any

from torch import nn

KINDS = {
    "_forward_pre_hooks": "forward pre-hook",
    "_forward_hooks": "forward hook",
    "_backward_pre_hooks": "backward pre-hook",
    "_backward_hooks": "backward hook",
    "_post_accumulate_grad_hooks": "hook for gradients",
}
OF_MODULES = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
OF_TENSORS = ("_backward_hooks", "_post_accumulate_grad_hooks")
Structure = Mapping[str, tuple[str, Mapping[str, list[str]]]]
"""By name: the kind of a layer, or of a parameter, and the hooks that it has."""


def structure_of(module: nn.Module) -> Structure:
    """The layers and parameters of ``module``, and their hooks; those of torch and of this library left out.

    >>> structure_of(nn.Sequential(nn.Tanh()))
    {'module': ('Sequential', {}), 'module.0': ('Tanh', {})}
    """
    layers = {f"module.{name}" if name else "module": layer for name, layer in module.named_modules()}
    parameters = {f"module.{name}": parameter for name, parameter in module.named_parameters()}
    return {
        **{name: (_kind_of(layer), _hooks_of(layer)) for name, layer in layers.items()},
        **{name: ("", _hooks_of(parameter)) for name, parameter in parameters.items()},
    }


def changes(before: Structure, now: Structure) -> list[str]:
    """What is other than before, in words. A layer that is new or gone changes whoever holds it, and ``state_dict``."""
    found = []
    for name in (name for name in now if name in before):
        (kind, hooks), (kind_now, hooks_now) = before[name], now[name]
        if kind != kind_now:
            found.append(f"{name} ({kind_now}; it was {kind})")
        found += [f"{text} of {name}" for word, text in KINDS.items() if hooks.get(word, []) != hooks_now.get(word, [])]
    whole = {name.rpartition(".")[0] for name in {*before} ^ {*now}}
    return found + [f"what {name} holds" for name in sorted(whole) if name in before and name in now]


def _kind_of(layer: nn.Module) -> str:
    """Its class; that of before where torch made another one to share its weights out."""
    kinds = (kind for kind in type(layer).__mro__ if not str(kind.__module__).startswith("torch.distributed."))
    return next(kinds).__name__


def _hooks_of(held: Any) -> dict[str, list[str]]:
    kinds = OF_MODULES if isinstance(held, nn.Module) else OF_TENSORS
    hooks = {kind: each for kind in kinds if (each := getattr(held, kind, None))}
    if not hooks:
        return hooks
    found = {kind: [_name_of(hook) for hook in each.values()] for kind, each in hooks.items()}
    return {kind: users for kind, names in found.items() if (users := [name for name in names if name])}


def _name_of(hook: Any) -> str:
    module = getattr(hook, "__module__", None) or type(hook).__module__
    ours = module.startswith(("torch.", "pytorch_lightning."))
    return "" if ours else f"{module}.{getattr(hook, '__qualname__', type(hook).__qualname__)}"
