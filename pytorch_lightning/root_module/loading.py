"""A model from files."""

import csv
import inspect
from argparse import Namespace
from pathlib import Path
from typing import Any, TypeVar

from pytorch_lightning.checkpoints.checkpoint import restore_module
from pytorch_lightning.checkpoints.sharded import read_any
from pytorch_lightning.errors import CheckpointError, noting

M = TypeVar("M")


def parse_tag(text: str) -> bool | int | float | str | None:
    """A value of meta_tags.csv: None, a bool, an int, a float, else the text.

    >>> [parse_tag(t) for t in ("", "None", "true", "32", "1e-3", "adam", "007")]
    [None, None, True, 32, 0.001, 'adam', '007']
    """
    if text in ("", "None", "nan"):
        return None
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        # '007' is a name, not seven
        return text if kind is int and str(value) != text.lstrip("+") else value
    return text


def read_tags(path: str | Path) -> Namespace:
    """The rows of a meta_tags.csv (columns ``key`` and ``value``) as a Namespace."""
    try:
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise CheckpointError(f"tags_csv={str(path)!r} can't be read: {error.strerror}.") from error
    if rows and set(rows[0]) != {"key", "value"}:
        raise CheckpointError(f"{path} isn't a meta_tags.csv: its columns are {list(rows[0])}, not key and value.")
    return Namespace(**{row["key"]: parse_tag(row["value"] or "") for row in rows})


def load_from_metrics(cls: type[M], weights_path: Any, tags_csv: Any, on_gpu: Any, map_location: Any) -> M:
    hparams = read_tags(tags_csv)
    hparams.on_gpu = bool(on_gpu)
    return _restore(cls, weights_path, hparams, map_location or _default_location(on_gpu))


def load_from_checkpoint(cls: type[M], path: Any, hparams: Any, map_location: Any) -> M:
    return _restore(cls, path, hparams, map_location or "cpu")


def _default_location(on_gpu: Any) -> str:
    import torch

    accelerator = torch.accelerator.current_accelerator() if on_gpu and torch.accelerator.is_available() else None
    return "cpu" if accelerator is None else accelerator.type


def _restore(cls: type[M], path: Any, hparams: Any, map_location: Any) -> M:
    checkpoint = read_any(path, map_location)
    if hparams is None and isinstance(checkpoint.get("hparams"), dict):
        hparams = Namespace(**checkpoint["hparams"])
    takes_hparams = [
        p for p in list(inspect.signature(cls.__init__).parameters.values())[1:] if p.kind != p.VAR_KEYWORD
    ]
    needs = takes_hparams and (hparams is not None or _required(takes_hparams[0]))
    from pytorch_lightning import seeding

    # the weights that it begins with are replaced, so nobody need notice what they drew
    with (
        seeding.preserved(),
        noting(f"raised by {cls.__name__}.__init__ with hparams={hparams!r} (from {path}, or as given)"),
    ):
        model: Any = cls(hparams) if needs else cls()  # type: ignore[call-arg]
    restore_module(model, checkpoint, path)
    return model  # type: ignore[no-any-return]


def _required(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind != parameter.VAR_POSITIONAL
