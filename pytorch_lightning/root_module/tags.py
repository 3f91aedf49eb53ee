"""Hyperparameters by name, as meta_tags.csv has them. Nothing here needs torch."""

import csv
import math
import re
import stat
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.errors import CheckpointError, describe

MOST_BYTES_OF_TAGS = 10_000_000
MOST_TAGS = 10_000
SECRET = re.compile(r"(^|_)(password|passwd|passphrase|secret|credentials?|token|(api|access|secret|private)_?key)$")
"""Names, in small letters, whose values are kept and shown nowhere."""


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
        # '007' is a name, not seven; and 5,000 digits aren't infinity
        exact = str(value) == text.lstrip("+") if kind is int else math.isfinite(value) or "inf" in text.lower()
        return value if exact else text
    return text


def read_tags(path: str | Path) -> Namespace:
    """The rows of a meta_tags.csv (columns ``key`` and ``value``) as a Namespace.

    Raises ``CheckpointError`` for another file, for one of more than ``MOST_BYTES_OF_TAGS`` bytes or ``MOST_TAGS``
    rows, and for a key that a Namespace can't have.
    """
    values: dict[str, Any] = {}
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_BYTES_OF_TAGS:
            kind = f"{status.st_size:,} bytes" if stat.S_ISREG(status.st_mode) else "not a file"
            raise CheckpointError(
                f"{path} isn't a meta_tags.csv: it is {kind}; expected a file of at most {MOST_BYTES_OF_TAGS:,} bytes."
            )
        with open(path, newline="") as file:
            reader = csv.DictReader(file)
            for number, row in enumerate(reader, 1):
                if set(row) != {"key", "value"}:
                    columns = [str(name) for name in row if name is not None]
                    raise CheckpointError(
                        f"{path} isn't a meta_tags.csv: the columns of row {number} are {columns}, not key and value."
                    )
                if number > MOST_TAGS:
                    raise CheckpointError(f"{path} isn't a meta_tags.csv: it has more than {MOST_TAGS:,} rows.")
                values[row["key"]] = parse_tag(row["value"] or "")
    except OSError as error:
        raise CheckpointError(f"tags_csv={str(path)!r} can't be read: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise CheckpointError(f"{path} isn't a meta_tags.csv: {error}.") from error
    return namespace_of(values, path)


def namespace_of(values: Any, source: object) -> Namespace:
    """``values``, hparams that ``source`` holds, as a Namespace.

    Raises ``CheckpointError`` for a key that isn't text or that names a part of Namespace, such as ``__class__``.
    """
    if not isinstance(values, Mapping):
        raise CheckpointError(f"{source} has hyperparameters without names: {describe(values)}.")
    for key in values:
        if not isinstance(key, str) or hasattr(Namespace, key):
            raise CheckpointError(f"{source} has the hyperparameter {key!r:.80}, which a Namespace can't have.")
    made = Namespace()
    vars(made).update(values)  # one of them may be called self
    return made
