"""What a program sends to the processes that it starts: pickled to a file, whose tensors and arrays they share.

Each process maps the file: what nobody writes to is in memory once, however many processes there are, and what one of
them writes is its own.
"""

import io
import mmap
import pickle
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

LEAST = 2**16
"""Smaller arrays, in bytes, are pickled as they are."""


def write_job(job: dict[str, Any], path: str) -> None:
    """Pickle ``job``."""
    # what torch takes from a module that pickles, with a pickler that knows arrays
    torch.save(job, path, pickle_module=SimpleNamespace(Pickler=_Pickler, dumps=pickle.dumps, __name__="pickle"))


def read_job(path: str) -> dict[str, Any]:
    """What ``write_job`` left, on the CPU: what was on a device is brought to this process's own later."""
    # written by the process that started this one
    return torch.load(path, weights_only=False, map_location="cpu", mmap=True)  # type: ignore[no-any-return]


class _Pickler(pickle.Pickler):
    """Leaves the contents of arrays to torch, which keeps them apart in the file."""

    def __init__(self, file: io.BufferedIOBase, protocol: int | None = None) -> None:
        super().__init__(file, protocol)

    def reducer_override(self, value: Any) -> Any:
        if type(value) is np.memmap and isinstance(value.base, mmap.mmap) and value.filename is not None:
            order = "C" if value.flags.c_contiguous else "F"
            mode = "r" if value.mode == "r" else "c"
            return np.memmap, (value.filename, value.dtype, mode, value.offset, value.shape, order)
        if type(value) is not np.ndarray or value.nbytes < LEAST or value.dtype.hasobject:
            return NotImplemented
        if not value.flags.c_contiguous:
            return NotImplemented
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one that may not be written to: nobody does
            numbers = torch.from_numpy(value.reshape(-1).view(np.uint8))
        return _array, (numbers, value.dtype, value.shape, value.flags.writeable)


def _array(numbers: torch.Tensor, dtype: np.dtype[Any], shape: tuple[int, ...], is_writeable: bool) -> Any:
    array = numbers.numpy().view(dtype).reshape(shape)
    array.flags.writeable = is_writeable
    return array
