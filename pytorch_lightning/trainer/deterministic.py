"""A scope for ``Trainer(deterministic=True)``."""

import contextlib
import os
from collections.abc import Iterator

import torch

from pytorch_lightning.errors import MisconfigurationException


@contextlib.contextmanager
def deterministic(wanted: bool, device: torch.device) -> Iterator[None]:
    """A scope in which torch uses deterministic algorithms only, if ``wanted``.

    Raises ``MisconfigurationException`` where it is too late for that on ``device``.
    """
    if not wanted:
        yield
        return
    before, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        _try(device)
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warns)
        torch.backends.cudnn.benchmark = benchmark


def _try(device: torch.device) -> None:
    """Multiply two matrices on ``device``: torch looks at the environment at the first product of a process, and
    remembers what it saw."""
    if device.type == "cpu":
        return
    matrix = torch.ones(1, 1, device=device)
    try:
        torch.mm(matrix, matrix)
    except RuntimeError as error:
        if "CUBLAS_WORKSPACE_CONFIG" not in str(error):
            raise
        raise MisconfigurationException(
            "deterministic=True can't work in this process: when it multiplied matrices on a GPU for the first time,"
            " the environment variable CUBLAS_WORKSPACE_CONFIG was unset, or neither ':4096:8' nor ':16:8'. Start it"
            " with that: CUBLAS_WORKSPACE_CONFIG=:4096:8 python train.py."
        ) from error
