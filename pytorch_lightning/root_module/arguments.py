"""How a module was made: the arguments of its constructor, kept as plain data.

A value and its kinds are kept apart: a set is kept as a list, a Namespace as a dict, and its path is in the kinds.
"""

import dataclasses
import inspect
import weakref
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any

import torch

from pytorch_lightning.checkpoints.checkpoint import LEAVES, MOST_DEPTH, named_values, to_plain, without_omegaconf
from pytorch_lightning.nested import map_tensors
from pytorch_lightning.root_module.tags import SECRET, namespace_of

Kinds = dict[tuple[Any, ...], str]
"""By path: what a list, dict, text or tensor is to be made."""

MOST_BYTES = 2**20
"""Arguments that take more are data, and aren't kept."""
MISSING = object()


class NotKeptError(Exception):
    """An argument can't be kept; says why."""


def parameters_of(cls: type) -> list[inspect.Parameter]:
    """What the constructor of ``cls`` takes."""
    init = cls.__init__  # type: ignore[misc]
    return list(inspect.signature(init).parameters.values())[1:]


def record(cls: type, args: Any, kwargs: Any) -> dict[str, Any] | None:
    """The arguments of a call, and the defaults of the others, by name; None where they don't fit, which ``__init__``
    says itself. An entry of ``*args`` that isn't kept is None, and missing as ``*args[0]``."""
    parameters = parameters_of(cls)
    try:
        given = dict(inspect.Signature(parameters).bind(*args, **kwargs).arguments)
    except TypeError:
        return None
    kept: dict[str, Any] = {"arguments": {}, "kinds": {}, "missing": {}, "given": {}}
    room = [MOST_BYTES]

    def keep(name: str, path: tuple[Any, ...], value: Any, is_given: bool = True) -> Any:
        kept["given"][path] = reference(value)
        kinds: Kinds = {}
        try:
            if isinstance(value, str) and SECRET.search(name.lower()):
                raise NotKeptError("a secret, by its name")
            note_kinds(value, path, kinds, room)
            plain = map_tensors(to_plain(value), lambda tensor: tensor.detach().cpu().clone())
        except Exception as error:  # also one of a value's own code
            if is_given:
                kept["missing"][name] = str(error) if isinstance(error, NotKeptError) else type(value).__name__
            return MISSING
        kept["kinds"].update(kinds)
        return plain

    for parameter in parameters:
        name, found = parameter.name, given.get(parameter.name, parameter.default)
        if parameter.kind == parameter.VAR_POSITIONAL:
            star = f"*{name}"
            each = [keep(f"{star}[{i}]", (star, i), value) for i, value in enumerate(given.get(name, ()))]
            kept["arguments"][star] = tuple(None if value is MISSING else value for value in each)
        elif parameter.kind == parameter.VAR_KEYWORD:
            kept["arguments"].update({key: keep(key, (key,), value) for key, value in given.get(name, {}).items()})
        elif found is not parameter.empty:
            kept["arguments"][name] = keep(name, (name,), found, name in given)
    kept["arguments"] = {name: value for name, value in kept["arguments"].items() if value is not MISSING}
    return kept


def reference(value: Any) -> Callable[[], Any]:
    """Gives ``value`` while it is there, if it may be somebody's hparams; otherwise None."""
    try:
        return weakref.ref(value)
    except TypeError:
        return (lambda: value) if type(value) is dict else (lambda: None)


def note_kinds(value: Any, path: tuple[Any, ...], kinds: Kinds, room: list[int] | None) -> None:
    """Put into ``kinds`` what ``to_plain`` changes of ``value``. ``room`` is how many bytes it may take; with None,
    it may be anything that ``plain_hparams`` takes.

    Raises ``NotKeptError`` for what wouldn't come back as it is.
    """
    value = without_omegaconf(value)
    kind = kind_of(value, is_strict=room is not None)
    if room is not None:
        length = len(value) if isinstance(value, (str, bytes)) else 8
        room[0] -= value.nbytes if hasattr(value, "nbytes") else length
        if room[0] < 0 or len(path) > MOST_DEPTH:
            raise NotKeptError(f"data: together with the others more than {MOST_BYTES:,} bytes, or {MOST_DEPTH} deep")
    if kind not in (None, "list", "tuple", "dict"):
        kinds[path] = str(kind)
    if kind in (None, "Path", "array") or len(path) > MOST_DEPTH:
        return
    items = enumerate(value) if isinstance(value, (list, tuple, set, frozenset)) else named_values(value).items()
    for key, item in items:
        note_kinds(item, (*path, key), kinds, room)


def kind_of(value: Any, *, is_strict: bool) -> str | None:
    """The kind of a container; None for what is plain, or where nothing is known of it unless ``is_strict``."""
    own = type(value)
    if own in LEAVES and not (own is torch.Tensor and value.requires_grad):
        return None
    if own in (list, tuple, set, frozenset, Namespace):
        return own.__name__
    if isinstance(value, PurePath):
        return "Path"
    if own.__module__ == "numpy" and value.dtype.kind in "biufcUS":
        return "array" if value.ndim else None
    if isinstance(value, Mapping):
        is_of_attributes = own is not dict and all(isinstance(k, str) and hasattr(value, k) for k in value)
        return "Namespace" if value and is_of_attributes else "dict"
    if is_strict:
        raise NotKeptError(own.__name__)
    return "Namespace" if dataclasses.is_dataclass(value) else None


def made_of(value: Any, kinds: Kinds, path: tuple[Any, ...] = ()) -> Any:
    """What a plain ``value`` was, of the ``kinds`` that ``note_kinds`` gave."""
    if isinstance(value, Mapping):
        value = {key: made_of(item, kinds, (*path, key)) for key, item in value.items()}
    elif isinstance(value, (list, tuple)):
        value = type(value)(made_of(item, kinds, (*path, i)) for i, item in enumerate(value))
    kind = kinds.get(path)
    if kind == "Namespace" and isinstance(value, Mapping):
        return namespace_of(value, "the checkpoint")
    if kind == "array" and isinstance(value, torch.Tensor):
        return value.numpy()
    wanted: Any = {"set": set, "frozenset": frozenset, "Path": Path}.get(str(kind))
    return value if wanted is None else wanted(value)


def arguments_part(module: Any) -> dict[str, Any]:
    """What a checkpoint keeps of how ``module`` was made, and of which kind its hparams are."""
    kept = vars(module).get("_init_arguments")
    hparams = without_omegaconf(module.hparams)
    kinds: Kinds = {}
    if hparams is not None:
        values = named_values(hparams)
        note_kinds(hparams if values is hparams else Namespace(**values), (), kinds, None)
    return {
        "call": None if kept is None else {name: kept[name] for name in ("arguments", "kinds", "missing")},
        "hparams_argument": hparams_argument(module),
        "hparams_kinds": None if hparams is None else kinds,
    }


def hparams_argument(module: Any) -> tuple[Any, ...] | None:
    """The path of the argument that is ``module.hparams``; None where there is none, or nothing is known."""
    kept = vars(module).get("_init_arguments")
    if kept is None or module.hparams is None:
        return None
    known: tuple[Any, ...] | None = kept.get("is_hparams")
    return next((path for path, value in kept["given"].items() if value() is module.hparams), known)


def without_references(module: Any) -> dict[str, Any]:
    """What is known of how ``module`` was made, for a copy of it."""
    kept = vars(module).get("_init_arguments")
    is_known = kept is not None and "hparams" in vars(module)
    return {"_init_arguments": {**kept, "given": {}, "is_hparams": hparams_argument(module)} if is_known else kept}
