"""An exception that ends a process, on its way to the program that started the process.

It is pickled. That is safe here: the file lies in a folder of mode 0700 that the program made for this run, and who
writes it is a process of the same user, which runs the same code.
"""

import pickle
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from pytorch_lightning.errors import FitError, ProcessError
from pytorch_lightning.launchers.environment import is_loss_of_another


class Failure(NamedTuple):
    """What a process leaves behind that ends with an exception."""

    is_consequence: bool
    """Whether it only says that another process is gone."""
    seconds: float
    """When, by the clock of the machine."""
    whole: bytes | None
    """The exception as it pickles itself; None where it doesn't."""
    parts: tuple[bytes, bytes, dict[str, bytes]] | None
    """Its type, its arguments, and those of its attributes that can be sent; None where its type can't be."""
    text: str
    trace: str


def write_failure(error: BaseException, path: Path) -> None:
    """Leave ``error`` at ``path``, where it appears complete."""
    kind, arguments = _pickled(type(error)), _pickled(error.args) or pickle.dumps((str(error),))
    sent = {name: data for name, value in vars(error).items() if (data := _pickled(value)) is not None}
    failure = Failure(
        is_loss_of_another(error) or (isinstance(error, FitError) and error.is_of_another),
        time.time(),
        _pickled(error),
        None if kind is None else (kind, arguments, sent),
        str(error),
        "".join(traceback.format_exception(error)),
    )
    temporary = path.with_suffix(".part")
    temporary.write_bytes(pickle.dumps(tuple(failure)))
    temporary.rename(path)


def read_failure(path: Path) -> Failure:
    """What ``write_failure`` left."""
    return Failure(*pickle.loads(path.read_bytes()))


def error_of(failure: Failure, rank: int, nb: int) -> BaseException:
    """What to raise for the ``failure`` of process ``rank`` of ``nb``: the exception itself, where it can be made
    again, with the process's traceback as its cause; otherwise a ``ProcessError`` that shows it."""
    told = ProcessError(f"process {rank} of {nb} raised an exception:\n\n{failure.trace}")
    if failure.is_consequence:  # it says no more than that
        return told
    for make in (_whole, _of_parts):
        with suppress(Exception):  # whatever a user's type does when one is made in another way than it expects
            error = make(failure)
            if isinstance(error, BaseException) and str(error) == failure.text:
                error.__cause__ = None if isinstance(error, KeyboardInterrupt) else told
                return error
    return told


def _whole(failure: Failure) -> Any:
    return None if failure.whole is None else pickle.loads(failure.whole)


def _of_parts(failure: Failure) -> Any:
    """Without ``__init__``, which may take other arguments than those that it keeps."""
    if failure.parts is None:
        return None
    kind, arguments = map(pickle.loads, failure.parts[:2])
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    for name, data in failure.parts[2].items():
        with suppress(Exception):  # of a type that isn't known here
            vars(error)[name] = pickle.loads(data)
    return error


def _pickled(value: Any) -> bytes | None:
    try:
        return pickle.dumps(value)
    except Exception:  # each type has its own way to say that it can't be
        return None
