"""A checkpoint is the dict of named parts, as plain data."""

import codecs
import contextlib
import dataclasses
import enum
import inspect
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any, Protocol

import torch

from pytorch_lightning.checkpoints.layout import PARTS, RESUMABLE, Fits, unfit
from pytorch_lightning.errors import CheckpointError, LightningError, Notices, describe, one_line
from pytorch_lightning.version import __version__

FORMAT = 3
"""The number of this layout. A change of layout raises it; what was written in the ones before is still read."""

ADDED_IN = {"attributes": 2, "groups": 2, "modes": 2, "settings": 3}
"""The first layout of a part that wasn't in layout 1: what such a part holds is left as the program makes it where a
file is older. Since layout 3 a random stream may be a number that it is seeded with."""

TRAINER_KEYS = (
    *("epoch", "global_step", "optimizer_states", "lr_schedulers", "hparams", "init_arguments", "format", "library"),
    "parts",
)
"""The top level keys that are the trainer's own; ``get_save_dict`` and hooks may use any other."""

AVERAGING = "WeightAveraging "
"""How the names of the states begins that hold averages of the weights."""

LEAVES = frozenset(
    (str, bytes, int, float, complex, bool, type(None), torch.Tensor, torch.Size, torch.dtype, torch.device)
)

QUICK = frozenset((str, float, bool, type(None), torch.Tensor))
"""Those that are plain whatever their value is, so that nothing has to be looked at."""


class _NoBytes(bytes):
    """``b""``, which torch writes and can't read, written as bytes that aren't empty are."""

    def __reduce__(self) -> Any:
        return codecs.encode, ("", "latin1")


NO_BYTES = _NoBytes()


class Part(Protocol):
    """Something with state."""

    def state_dict(self) -> dict[str, Any]:
        """The state."""

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Put it back."""


MOST_DEPTH = 100
"""So deep may containers lie in each other: what walks over a checkpoint calls itself for each."""


def to_plain(value: Any, path: str = "", depth: int = 0) -> Any:
    """``value`` as data that ``torch.load(..., weights_only=True)`` accepts.

    numpy arrays and scalars, Namespaces, dataclasses, enums, paths, sets and mappings are converted. Raises
    ``CheckpointError``, naming the key path, for anything else, and for what couldn't be read again: whole numbers of
    more than 2,040 bits, and containers in more than 100 others. ``depth``: in so many it lies.
    """
    kind = type(value)
    if kind in LEAVES or isinstance(value, (torch.Tensor, _NoBytes)):
        if kind is int and value.bit_length() > 2039:
            raise CheckpointError(f"{path or 'the value'} can't be saved: it is a number of more than 2,040 bits.")
        return NO_BYTES if kind is bytes and not value else value
    if depth > MOST_DEPTH:
        raise CheckpointError(f"{path[:60]}... can't be saved: it lies in more than {MOST_DEPTH} others, or in itself.")
    if kind is dict:
        return _plain_dict(value, path, depth)
    if kind is list or kind is tuple:
        return kind(_plain_items(value, path, depth))
    if isinstance(value, enum.Enum):
        return to_plain(value.value, path, depth)
    if isinstance(value, PurePath):
        return str(value)
    value = without_omegaconf(value)
    if isinstance(value, Mapping):
        plain = _plain_dict(value, path, depth)
        metadata = getattr(value, "_metadata", None)  # what nn.Module.state_dict() adds, for upgrades of old layers
        if metadata is None:
            return plain
        from collections import OrderedDict

        kept = OrderedDict(plain)
        kept._metadata = to_plain(metadata, path, depth + 1)  # type: ignore[attr-defined]
        return kept
    if isinstance(value, (list, tuple, set, frozenset)):
        plain_items = _plain_items(value, path, depth)
        return tuple(plain_items) if isinstance(value, tuple) else plain_items
    if isinstance(value, Namespace):
        return to_plain(vars(value), path, depth)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: to_plain(getattr(value, name), f"{path}.{name}", depth + 1) for name in names}
    if type(value).__module__ == "numpy":
        return _from_numpy(value, path, depth)
    for base in (str, bool, int, float):  # subclasses of plain types
        if isinstance(value, base):
            return to_plain(base(value), path)
    raise CheckpointError(
        f"{path or 'the value'} can't be saved: {describe(value)} isn't plain data. Save its numbers, text or tensors"
        " (its state_dict(), say), or leave it out."
    )


def _plain_dict(value: Mapping[Any, Any], path: str, depth: int) -> dict[Any, Any]:
    return {
        key if type(key) is str else _key(key, path): item
        if type(item) in QUICK
        else to_plain(item, f"{path}[{key!r}]", depth + 1)
        for key, item in value.items()
    }


def _plain_items(value: Iterable[Any], path: str, depth: int) -> list[Any]:
    return [item if type(item) in QUICK else to_plain(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(value)]


def _key(key: Any, path: str) -> Any:
    return key if isinstance(key, (str, int, float, bool, tuple, type(None))) else str(to_plain(key, f"{path} key"))


def _from_numpy(value: Any, path: str, depth: int) -> Any:
    if value.ndim == 0:
        return to_plain(value.item(), path, depth + 1)
    if value.dtype.kind in "biufc":
        return torch.from_numpy(value.copy())
    return to_plain(value.tolist(), path, depth)


def without_omegaconf(value: Any) -> Any:
    """``value``, or the dict or list that it is where it is OmegaConf's."""
    if not type(value).__module__.startswith("omegaconf."):
        return value
    omegaconf: Any = sys.modules["omegaconf"]
    return omegaconf.OmegaConf.to_container(value, resolve=True)


def named_values(hparams: Any) -> Mapping[Any, Any]:
    """The entries of a mapping, the fields of a dataclass, or the attributes of another object."""
    hparams = without_omegaconf(hparams)
    if isinstance(hparams, Mapping):
        return hparams
    if dataclasses.is_dataclass(hparams) and not isinstance(hparams, type):
        return {f.name: getattr(hparams, f.name) for f in dataclasses.fields(hparams)}
    return getattr(hparams, "__dict__", {})


def plain_hparams(hparams: Any, notices: Notices | None = None) -> dict[Any, Any]:
    """``hparams`` (a Namespace, dict, dataclass, or any object with attributes) as a plain dict.

    Functions are left out silently (test-tube adds some); anything else that isn't plain is left out with a line.
    """
    if hparams is None:
        return {}
    has_names = isinstance(hparams, Mapping) or dataclasses.is_dataclass(hparams) or hasattr(hparams, "__dict__")
    if notices is not None and not has_names:
        notices.say("hparams-left-out", f"hparams aren't saved: {describe(hparams)} has no names; use a Namespace")
    hparams = named_values(hparams)
    plain: dict[Any, Any] = {}
    left_out = []
    for key, value in hparams.items():
        if inspect.isroutine(value):
            continue
        try:
            plain[_key(key, "hparams")] = to_plain(value)
        except CheckpointError:
            left_out.append(str(key))
    if left_out and notices is not None:
        notices.say("hparams-left-out", f"hparams that aren't plain data aren't saved: {', '.join(left_out)}")
    return plain


def module_part(module: Any) -> dict[str, Any]:
    """What ``get_save_dict`` returns, as plain data.

    Raises ``CheckpointError`` where it isn't a dict, isn't plain, or uses a key of the trainer's.
    """
    saved = module.get_save_dict()
    name = f"get_save_dict of {type(module).__name__}"
    if not isinstance(saved, Mapping):
        raise CheckpointError(
            f"{name} returned {describe(saved)}; expected a dict. Return {{'state_dict': self.state_dict()}}."
        )
    taken = sorted(set(saved) & set(TRAINER_KEYS))
    if taken:
        raise CheckpointError(f"{name} returned the keys {taken}, which are the trainer's own. Rename them.")
    return {str(key): to_plain(value, f"{name}[{key!r}]") for key, value in saved.items()}


def upgrade(checkpoint: dict[str, Any], path: Any) -> dict[str, Any]:
    """``checkpoint`` in today's layout. Raises ``CheckpointError`` where it is newer, or not one of ours."""
    check_format(checkpoint, path)
    parts = checkpoint.get("parts")
    absent = [key for key in ("format", "parts", "optimizer_states", "lr_schedulers") if key not in checkpoint]
    absent += [f"parts[{name!r}]" for name in ("progress", "data") if isinstance(parts, dict) and name not in parts]
    if absent or not isinstance(parts, dict):
        weights = "" if "library" not in checkpoint else " It was written with save_weights_only=True, perhaps."
        raise CheckpointError(
            f"{path} doesn't hold all that a resume needs; it has {sorted(map(str, checkpoint))[:8]}, without"
            f" {', '.join(absent) or 'a dict as parts'}.{weights} For its weights alone use load_from_checkpoint."
        )
    return checked(checkpoint, RESUMABLE, path)


def checked(checkpoint: dict[str, Any], wanted: Mapping[str, Fits], path: Any) -> dict[str, Any]:
    """``checkpoint``. Raises ``CheckpointError`` where something in it isn't what is ``wanted``."""
    found = unfit(checkpoint, wanted)
    if found is None:
        return checkpoint
    parts = checkpoint.get("parts")
    if found.startswith("parts is") and isinstance(parts, dict):
        found = next(f"its part {n!r} is another's" for n, fits in PARTS.items() if n in parts and not fits(parts[n]))
    raise CheckpointError(f"{path} isn't a whole checkpoint: {one_line(found)}. Use the file as the run wrote it.")


@contextlib.contextmanager
def fitting(where: str) -> Iterator[None]:
    """A scope in which state is put back: whatever values make of it that aren't a fit's is a ``CheckpointError``."""
    try:
        yield
    except LightningError:
        raise
    except Exception as error:
        why = one_line(f"{type(error).__name__}: {error}").rstrip(".")
        raise CheckpointError(f"{where} doesn't fit: {why}. Resume with the model that wrote it.") from error


def may_be_absent(checkpoint: dict[str, Any]) -> set[str]:
    """The parts that there weren't yet when ``checkpoint`` was written."""
    written = checkpoint["format"]
    return {name for name, first in ADDED_IN.items() if type(written) is int and written < first}


def check_format(checkpoint: dict[str, Any], path: Any) -> None:
    """Raises ``CheckpointError`` where ``checkpoint`` was written by a version newer than this one."""
    written = checkpoint.get("format")
    if isinstance(written, int) and written > FORMAT and "library" in checkpoint:
        raise CheckpointError(
            f"{path} has format {written} and this version ({__version__}) reads up to {FORMAT}."
            " Upgrade pytorch-lightning-classic."
        )


def averages_in(callbacks: Any) -> dict[str, Any]:
    """The averages of the weights among the states of ``callbacks``."""
    states = callbacks if isinstance(callbacks, dict) else {}
    averages = {name: state for name, state in states.items() if str(name).startswith(AVERAGING)}
    return {name: state for name, state in averages.items() if isinstance(state, dict) and state.get("weights")}


@torch.no_grad()
def restore_average(module: Any, checkpoint: dict[str, Any], path: Any) -> None:
    """Put the averaged weights of ``checkpoint`` into ``module``, which has its own weights already. Raises
    ``CheckpointError`` where there are none, or they don't fit."""
    parts = checkpoint.get("parts")
    found = [*averages_in(parts.get("callbacks") if isinstance(parts, dict) else None).values()]
    if not found:
        raise CheckpointError(
            f"{path} holds no average of the weights, so weights='average' can't be loaded from it. Leave weights out,"
            " or train with callbacks=[WeightAveraging('ema')] and load what was saved after its first update."
        )
    with fitting(path):
        there, averaged = {**dict(module.named_parameters()), **dict(module.named_buffers())}, found[0]["weights"]
        absent = sorted({*averaged} - {*there} | {*dict(module.named_parameters())} - {*averaged})
        wrong = absent or [name for name in averaged if there[name].shape != averaged[name].shape]
        if wrong:
            raise ValueError(f"the average has other weights than {type(module).__name__}: {', '.join(wrong[:3])}")
        for name, value in averaged.items():
            there[name].copy_(value)


def restore_module(module: Any, checkpoint: dict[str, Any], path: Any) -> None:
    """Restore ``module`` through its own hooks. Raises ``CheckpointError`` where the weights don't fit."""
    check_format(checkpoint, path)
    module.on_load_checkpoint(checkpoint)
    try:
        module.load_model_specific(checkpoint)
    except (LookupError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        use = "Use the model, with the hyperparameters, that wrote it."
        if checkpoint and all(isinstance(value, torch.Tensor) for value in checkpoint.values()):
            use = "It holds weights alone. Use model.load_state_dict(torch.load(PATH))."
        raise CheckpointError(
            f"load_model_specific of {type(module).__name__} can't restore {path}, which has"
            f" {one_line(str(sorted(map(str, checkpoint))[:8]))}:"
            f" {one_line(f'{type(error).__name__}: {error}', 600).rstrip('.')}."
            f" {use}"
        ) from error
