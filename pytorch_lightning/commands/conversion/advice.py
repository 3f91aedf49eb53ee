"""What lightning2.toml says of a name, as something to do."""

import re
from dataclasses import dataclass

from pytorch_lightning.lightning2 import table

_WORD = re.compile(
    r"(?:Write|Read) (?:override )?((?:self\.|trainer\.|model\.)?[\w.]+)(?=$|[,;]|\(self| for | or | and |\.$|=)"
)
_EXPRESSION = re.compile(r"Write (trainer\.[^;]+)$")


@dataclass(frozen=True)
class Same:
    """The same name and meaning."""


@dataclass(frozen=True)
class Renamed:
    """Another name, or an expression, and nothing else."""

    name: str


@dataclass(frozen=True)
class LeftOut:
    """It isn't needed here."""

    why: str


@dataclass(frozen=True)
class Person:
    """Somebody has to look at it."""

    text: str


Advice = Same | Renamed | LeftOut | Person


def advice(kind: str, name: str) -> Advice:
    """What becomes of ``name``, of this section of the table.

    >>> advice("trainer_options", "max_epochs")
    Renamed(name='max_nb_epochs')
    >>> advice("callback_arguments", "enable_version_counter")
    LeftOut(why="a file is never overwritten by another epoch's")
    """
    text = table()[kind].get(name)
    if text is None:
        return Person(f"{name!r} isn't known here")
    if text.startswith("="):
        return Same()
    if text.startswith("Leave it out"):
        return LeftOut(text.partition(": ")[2] or text)
    found = _WORD.match(text) or _EXPRESSION.match(text)
    return Renamed(found[1]) if found else Person(f"{name}: {text}")
