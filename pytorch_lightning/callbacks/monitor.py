"""Comparison of the values of a metric."""

import math
from typing import Any

from pytorch_lightning.errors import MisconfigurationException, describe


def direction(monitor: str, mode: str) -> str:
    """'min' or 'max': ``mode`` itself, or for 'auto' max if the name contains 'acc' or starts with 'fmeasure'.

    >>> direction("val_acc", "auto"), direction("val_loss", "auto")
    ('max', 'min')
    """
    if not isinstance(monitor, str):
        raise MisconfigurationException(f"monitor must be the name of a metric; received {describe(monitor)}.")
    if mode not in ("auto", "min", "max"):
        raise MisconfigurationException(f"mode must be 'auto', 'min' or 'max'; received {describe(mode)}.")
    if mode != "auto":
        return mode
    return "max" if "acc" in monitor or monitor.startswith("fmeasure") else "min"


def worst(mode: str) -> float:
    """The value that any other one is better than."""
    return -math.inf if mode == "max" else math.inf


def is_better(value: float, than: float, mode: str, min_delta: float = 0.0) -> bool:
    """Whether ``value`` beats ``than`` by more than ``min_delta``. NaN never does."""
    return value > than + min_delta if mode == "max" else value < than - min_delta


def check_count(owner: object, name: str, value: Any, least: int) -> None:
    """Raises ``MisconfigurationException`` where ``value`` isn't a whole number of at least ``least``."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < least:
        raise MisconfigurationException(
            f"{type(owner).__name__}: {name} must be a whole number of at least {least}; received {describe(value)}."
        )
