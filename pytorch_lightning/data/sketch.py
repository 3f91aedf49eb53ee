"""What a batch of a stream was like, in a few numbers: a stream has no indices that could be compared."""

from collections.abc import Mapping, Sequence
from math import isclose, isnan
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

MOST_LEAVES, MOST_NUMBERS = 32, 31
RELATIVE = 1e-3
"""Another processor or another version rounds otherwise; another sample differs by more."""


def sketch(batch: Any) -> list[Any]:
    """Plain data that describe ``batch``: of each tensor and array its size and at most 31 of its numbers.

    >>> sketch({"x": torch.arange(3), "name": ["a"]})
    [['int64 (3,)', [0, 1, 2]], 3904355907]
    """
    found: list[Any] = []
    stack = [batch]
    while stack and len(found) < MOST_LEAVES:
        value = stack.pop()
        if isinstance(value, (Tensor, np.ndarray)):
            found.append([f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}", _numbers_in(value)])
        elif isinstance(value, (str, bytes)):
            found.append(crc32(value.encode(errors="replace") if isinstance(value, str) else value))
        elif isinstance(value, Mapping):
            stack.extend(reversed(list(value.values())[:MOST_LEAVES]))
        elif isinstance(value, Sequence):
            stack.extend(reversed(value[:MOST_LEAVES]))
        elif isinstance(value, (bool, int, float)):
            found.append(float(value))
        else:
            inside = getattr(value, "__dict__", None)
            stack.extend(reversed(list(inside.values())[:MOST_LEAVES]) if isinstance(inside, dict) else ())
    return found


def is_alike(one: Any, other: Any) -> bool:
    """Whether two sketches are of the same batch.

    >>> is_alike([["float32 (2,)", [0.5, 1.0]]], [["float32 (2,)", [0.5, 1.000001]]])
    True
    >>> is_alike([["float32 (2,)", [0.5, 1.0]]], [["float32 (2,)", [0.5, 1.1]]])
    False
    """
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return isclose(one, other, rel_tol=RELATIVE, abs_tol=RELATIVE) or (isnan(one) and isnan(other))
    return bool(one == other)


def _numbers_in(value: Any) -> list[Any]:
    nb = value.numel() if isinstance(value, Tensor) else value.size
    step = max(1, nb // MOST_NUMBERS) | 1  # an odd step meets other columns in each row
    try:
        if not isinstance(value, Tensor):
            return [] if value.dtype.hasobject else _plain(torch.from_numpy(value.reshape(-1)[::step].copy()))
        # to read from an accelerator would wait for it
        return _plain(value.detach().reshape(-1)[::step]) if value.device.type == "cpu" else []
    except (RuntimeError, TypeError, NotImplementedError, ValueError):  # sparse, quantized, text, dates, ...
        return []


def _plain(numbers: Tensor) -> list[Any]:
    numbers = numbers[:MOST_NUMBERS]
    return list(torch.view_as_real(numbers).reshape(-1).tolist() if numbers.is_complex() else numbers.tolist())
