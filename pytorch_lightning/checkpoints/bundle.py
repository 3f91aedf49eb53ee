"""The layout of a crash bundle: what a file must hold before a step is replayed from it.

A bundle names the model's class and nothing else of the program: the person who replays it chooses which code runs.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from pytorch_lightning.checkpoints.store import read_checkpoint
from pytorch_lightning.errors import CheckpointError, describe

FORMAT = 3
"""The number of this layout."""

OPTIONS = (
    "precision", "max_nb_epochs", "min_nb_epochs", "accumulate_grad_batches", "stop_on_nan", "deterministic",
)  # fmt: skip
"""The options of the Trainer that a step may look at. No others are in a bundle: their values may be private."""

Fits = Callable[[Any], bool]


def _number(least: int = 0, most: int = 2**62) -> Fits:
    return lambda value: type(value) is int and least <= value <= most


def _is(*kinds: type) -> Fits:
    return lambda value: type(value) in kinds


def _or_none(fits: Fits) -> Fits:
    return lambda value: value is None or fits(value)


def _named(fits: Fits) -> Fits:
    """A dict of text to what ``fits``."""
    return lambda value: isinstance(value, dict) and all(type(k) is str and fits(v) for k, v in value.items())


def _record(**fields: Fits) -> Fits:
    return lambda value: isinstance(value, dict) and all(k in value and fits(value[k]) for k, fits in fields.items())


def _row(*fields: Fits) -> Fits:
    return lambda value: (
        type(value) is tuple and len(value) == len(fields) and all(f(v) for f, v in zip(fields, value, strict=True))
    )


def _texts(value: Any) -> bool:
    return type(value) is list and all(type(item) is str for item in value)


def _anything(value: Any) -> bool:
    return True


_tensor: Fits = lambda value: isinstance(value, Tensor)  # noqa: E731
_simple = _is(str, int, float, bool, type(None))

FIELDS: dict[str, Fits] = {
    "kind": lambda value: type(value) is str and value in ("step", "hook", "loader"),
    "module": _is(str),
    "error": _record(type=_is(str), message=_is(str)),
    "threads": _number(1, 1024),
    "seed": _number(-(2**63), 2**64),
    "epoch": _number(),
    "batch_nb": _number(),
    "global_step": _number(),
    "virtual_rank": _number(),
    "virtual_ranks": _number(1),
    "optimizer_i": _or_none(_number(0, 1000)),
    "window": _row(_number(1), _is(bool, type(None)), _is(int, float)),
    "loader": _record(batch_nb=_number(), indices=_anything, in_order=_is(bool)),
    "hparams": _or_none(_named(_anything)),
    "hparams_is_dict": _is(bool),
    "init_arguments": _record(call=_anything, hparams_argument=_anything, hparams_kinds=_anything),
    "options": _named(_simple),
    "precision": _is(str),
    "scaler": _named(_anything),
}
"""What every bundle holds."""

STATE: dict[str, Fits] = {
    "state_dict": _named(_anything),
    "buffers": _named(_tensor),
    "buffers_kept": _is(bool),
    "evaluated": _texts,
    "frozen": _texts,
    "gradients": _named(_tensor),
}
"""What is there beside where a batch was being trained on."""


def read_bundle(path: str | Path) -> dict[str, Any]:
    """The bundle at ``path``. No code runs. Raises ``CheckpointError`` for a file that is damaged, of another kind, or
    of another version."""
    bundle = read_checkpoint(path)
    if type(bundle.get("bundle")) is not int or bundle["bundle"] != FORMAT:
        held = describe(sorted(map(str, bundle)))
        raise CheckpointError(f"{path} isn't a crash bundle of this version; it holds {held}.")
    wanted = FIELDS if bundle.get("kind") == "loader" else {**FIELDS, **STATE}
    for name, fits in wanted.items():
        if name not in bundle or not fits(bundle[name]):
            held = f"{name} is {describe(bundle[name])}" if name in bundle else f"it is without {name}"
            raise CheckpointError(f"{path} isn't a whole crash bundle: {held}. Use the file as the run wrote it.")
    return bundle
