"""The names of Lightning 2, and what to write here instead: ``lightning2.toml`` holds the table.

A name that isn't known here is looked up in it before similar spellings are suggested.
"""

import difflib
from collections.abc import Iterable
from functools import cache
from typing import Any, NoReturn

from pytorch_lightning.errors import MisconfigurationException, Problem


@cache
def table() -> dict[str, dict[str, str]]:
    """For each kind of name (the section) the names and what to write instead. A text that begins with ``=`` belongs
    to a name that is the same here."""
    import tomllib
    from importlib.resources import files

    return tomllib.loads(files("pytorch_lightning").joinpath("lightning2.toml").read_text(encoding="utf-8"))


def advice(kind: str, name: str) -> str | None:
    """What to write here for ``name`` of Lightning 2; None if it isn't one, or means the same here.

    >>> advice("trainer_options", "max_epochs")
    'Write max_nb_epochs'
    """
    text = table()[kind].get(name)
    return None if text is None or text.startswith("=") else text


def refuse_arguments(where: str, kind: str, given: dict[str, Any], known: Iterable[str] = ()) -> None:
    """Raise for arguments that ``where`` doesn't have: one ``MisconfigurationException`` if all of them are Lightning
    2's or Keras's, Python's ``TypeError`` otherwise, with the nearest of the ``known`` ones."""
    if not given:
        return
    found = {name: advice(kind, name) or advice("keras_arguments", name) for name in given}
    other = next((name for name, text in found.items() if text is None), None)
    if other is not None:
        near = difflib.get_close_matches(other, [*known], n=1)
        meant = f". Did you mean {near[0]!r}?" if near else ""
        raise TypeError(f"{where} got an unexpected keyword argument {other!r}{meant}")
    problems = [Problem(f"{where} has no argument {name!r}", do=str(text)) for name, text in found.items()]
    error = MisconfigurationException("\n".join(map(str, problems)))
    error.problems = tuple(problems)
    raise error


def refuse_name(module: str, name: str, *kinds: str) -> NoReturn:
    """Raise an ``AttributeError`` for a ``name`` that ``module`` doesn't have, with what to write if Lightning 2 has
    it. (In ``from module import name`` Python replaces the text by its own.)"""
    text = next((found for kind in kinds if (found := advice(kind, name)) is not None), None)
    raise AttributeError(
        f"module {module!r} of pytorch-lightning-classic has no attribute {name!r}" + (f". {text}." if text else ""),
        name=name,
    )
