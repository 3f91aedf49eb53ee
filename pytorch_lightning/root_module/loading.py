"""A model from files."""

import inspect
from collections.abc import Mapping
from operator import itemgetter
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from pytorch_lightning import seeding
from pytorch_lightning.checkpoints.checkpoint import restore_average, restore_module
from pytorch_lightning.checkpoints.sharded import read_any
from pytorch_lightning.errors import CheckpointError, MisconfigurationException, describe, near, noting, one_line
from pytorch_lightning.printing import warn
from pytorch_lightning.root_module.arguments import made_of, parameters_of
from pytorch_lightning.root_module.tags import namespace_of, read_tags

M = TypeVar("M")


def load_from_metrics(
    cls: type[M], weights_path: Any, tags_csv: Any, on_gpu: Any, map_location: Any, overrides: dict[str, Any]
) -> M:
    hparams = read_tags(tags_csv)
    hparams.on_gpu = bool(on_gpu)
    call = Call(cls, weights_path, read_any(weights_path, map_location or _default_location(on_gpu)))
    call.give_hparams(hparams)
    return call.make(overrides)


def load_from_checkpoint(cls: type[M], path: Any, hparams: Any, map_location: Any, overrides: dict[str, Any]) -> M:
    call = Call(cls, path, read_any(path, map_location or "cpu"))
    if hparams is not None and not call.give_hparams(hparams):
        raise MisconfigurationException(
            f"{cls.__name__}.__init__ takes no hparams; received {describe(hparams)}. Pass its own arguments by name:"
            f" {', '.join(call.names) or 'it has none'}."
        )
    return call.make(overrides)


def _default_location(on_gpu: Any) -> str:
    import torch

    accelerator = torch.accelerator.current_accelerator() if on_gpu and torch.accelerator.is_available() else None
    return "cpu" if accelerator is None else accelerator.type


class Call(Generic[M]):
    """A call of a constructor, with the arguments that a checkpoint holds; ``advice`` helps where it lacks some."""

    def __init__(self, cls: type[M], path: Any, checkpoint: dict[str, Any], advice: str = "") -> None:
        self._cls, self._path, self._checkpoint, self._advice = cls, path, checkpoint, advice
        self._parameters = parameters_of(cls)
        self._takes_any = any(p.kind == p.VAR_KEYWORD for p in self._parameters)
        self.names = [name_of(p) for p in self._parameters if p.kind != p.VAR_KEYWORD]
        self._values: dict[str, Any] = {}
        self._missing: dict[str, str] = {}
        self._hparams_at: tuple[Any, ...] | None = None
        kept = checkpoint.get("init_arguments")
        try:
            self._take(*((None, None, None) if kept is None else itemgetter(*PARTS)(kept)))
        except (TypeError, KeyError, ValueError, AttributeError, IndexError) as error:
            raise CheckpointError(f"{path} is damaged: its init_arguments can't be read ({error}).") from error

    def _take(self, call: Any, hparams_at: Any, kinds: Any) -> None:
        """The parts of what a checkpoint says of the call; all are None in an older one."""
        hparams: Any = self._checkpoint.get("hparams")
        if call is not None:
            self._values = made_of(dict(call["arguments"]), dict(call["kinds"]))
            self._missing = {str(name): one_line(str(text)) for name, text in dict(call["missing"]).items()}
            self._hparams_at = None if hparams_at is None else tuple(hparams_at)
            hparams = None if kinds is None else made_of(hparams, dict(kinds))
            if hparams is not None and (self._hparams_at is not None or "hparams" not in self._values):
                self._hparams_at = self._hparams_at or (("hparams",) if "hparams" in self.names else None)
                self._put(self._hparams_at, hparams)
        elif isinstance(hparams, dict):  # an older file doesn't tell none from empty ones
            hparams = namespace_of(hparams, self._path) if kinds is None else made_of(hparams, dict(kinds))
            first = self._parameters[0] if self._parameters else None
            if self._checkpoint["hparams"] or (first is not None and _required(first)):
                self.give_hparams(hparams)

    def give_hparams(self, hparams: Any) -> bool:
        """Pass ``hparams``, if the constructor has a place for them."""
        first = next((p for p in self._parameters if p.kind != p.KEYWORD_ONLY), None)
        at = self._hparams_at or (("hparams",) if "hparams" in self.names else None)
        if at is None and first is not None and (_required(first) or first.default is None):
            at = (first.name,)
        if at is None and first is not None and first.kind == first.VAR_POSITIONAL:
            at = (name_of(first), 0)
        self._put(at, hparams)
        return at is not None

    def _put(self, at: tuple[Any, ...] | None, value: Any) -> None:
        if at is None:
            return
        if len(at) == 2:
            before = self._values.get(at[0], ())
            value = (*before[: at[1]], value, *before[at[1] + 1 :])
            self._missing.pop(f"{at[0]}[{at[1]}]", None)
        self._values[at[0]] = value

    def make(self, overrides: dict[str, Any]) -> M:
        """The module, with the weights of the checkpoint."""
        average = overrides.get("weights") == "average" and "weights" not in self.names
        model = self.construct({k: v for k, v in overrides.items() if k != "weights"} if average else overrides)
        restore_module(model, self._checkpoint, self._path)
        if average:
            restore_average(model, self._checkpoint, self._path)
        return model

    def construct(self, overrides: Mapping[str, Any] = MappingProxyType({})) -> M:
        """The module as its constructor makes it."""
        cls, path = self._cls, self._path
        overrides = {name if name in self._values else self._starred(name): v for name, v in overrides.items()}
        unknown = [name for name in overrides if name not in self.names and not self._takes_any]
        if unknown:
            raise MisconfigurationException(
                f"{cls.__name__}.__init__ has no parameter {unknown[0]!r}. It has: {', '.join(self.names)}."
                + near(unknown[0], self.names)
            )
        values = {**self._values, **overrides}
        extra = [name for name in values if name not in self.names and not self._takes_any]
        if extra:
            warn(f"{path} was written by a model with the arguments {', '.join(extra)}, which {cls.__name__} hasn't")
        absent = {
            **{p.name: "required" for p in self._parameters if _required(p)},
            **{n: text for n, text in self._missing.items() if n.split("[")[0] in self.names or self._takes_any},
        }
        absent = {n: text for n, text in absent.items() if n not in values and n.split("[")[0] not in overrides}
        if absent:
            names = dict.fromkeys(name.split("[")[0].lstrip("*") for name in absent)
            pass_them = f"{cls.__name__}.load_from_checkpoint(path, {', '.join(f'{name}=...' for name in names)})"
            raise CheckpointError(
                f"{path} doesn't hold these arguments of {cls.__name__}.__init__, of which only plain data is kept:"
                f" {', '.join(f'{name} ({text})' for name, text in absent.items())}."
                f" {self._advice or f'Pass them: {pass_them}.'}"
            )
        positional, named = self._ordered({name: v for name, v in values.items() if name not in extra})
        shown = ", ".join(f"{name}={describe(value)}" for name, value in values.items())
        # the weights that it begins with are replaced, so nobody need notice what they drew
        with seeding.preserved(), noting(f"raised by {cls.__name__}.__init__ with {shown} (from {path}, or as given)"):
            return cls(*positional, **named)

    def _starred(self, name: str) -> str:
        return f"*{name}" if f"*{name}" in self.names else name

    def _ordered(self, values: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        positional: list[Any] = []
        for parameter in self._parameters:
            if parameter.kind == parameter.VAR_POSITIONAL:
                positional += values.pop(name_of(parameter), ())
            elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                positional.append(values.pop(parameter.name, parameter.default))
        return positional, values


def name_of(parameter: inspect.Parameter) -> str:
    """What a parameter is called: ``*args``, which a keyword argument may be called without its star."""
    return f"*{parameter.name}" if parameter.kind == parameter.VAR_POSITIONAL else parameter.name


PARTS = ("call", "hparams_argument", "hparams_kinds")


def _required(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind not in (
        parameter.VAR_POSITIONAL,
        parameter.VAR_KEYWORD,
    )
