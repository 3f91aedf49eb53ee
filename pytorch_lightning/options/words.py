"""How a word of a command line becomes the value of an option."""

import argparse
from collections.abc import Callable
from typing import Any


def boolean(text: str) -> bool:
    """A word of the command line as a bool.

    >>> boolean("true"), boolean("0")
    (True, False)
    """
    word = text.lower()
    if word in ("true", "1", "yes", "on"):
        return True
    if word in ("false", "0", "no", "off"):
        return False
    raise argparse.ArgumentTypeError(f"expected true or false, received {text!r}")


def number(text: str) -> int | float:
    """A whole number where the text is one, otherwise a float."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def optional(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """``kind``, or None for the words 'none' and ''."""

    def read(text: str) -> Any:
        return None if text.lower() in ("none", "") else kind(text)

    read.__name__ = f"{kind.__name__} or none"
    return read


def windows(text: str) -> int | str:
    """A number, or a text like '1:2,5:8' as it is: test-tube's ``parse_args`` takes no value that is a dict."""
    return text if ":" in text else int(text)


def name_or_0(text: str) -> str | int:
    """A name; the words '0' and '' are the 0 that means none."""
    return 0 if text in ("0", "") else text


class Words(tuple[str, ...]):
    """A tuple that is shown as it is written on a command line: test-tube writes the options of a job so.

    >>> str(Words(["a", "b"])), str(Words())
    ('a,b', 'none')
    """

    def __str__(self) -> str:
        return ",".join(self) or "none"


class Off(int):
    """False for an option that is otherwise true: test-tube leaves ``False`` itself out of a job's command line.

    >>> Off() == False, str(Off())
    (True, 'False')
    """

    def __repr__(self) -> str:
        return "False"


def switch(text: str) -> bool | Off:
    """The same as ``boolean``, for an option that is true by default."""
    return boolean(text) or Off()


def gathering(text: str) -> bool | Off | str:
    """The same as ``switch``, or 'rank0'."""
    if text == "rank0":
        return text
    try:
        return switch(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"expected true, false or rank0, received {text!r}") from None


def words(text: str) -> Words:
    """Words between commas; 'none' for no word.

    >>> words("a,b"), words("none")
    (('a', 'b'), ())
    """
    return Words(word for word in text.split(",") if word and text != "none")
