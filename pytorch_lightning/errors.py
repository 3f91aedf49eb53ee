"""What can go wrong, and how it is said.

    LightningError
    ├── MisconfigurationException   seen before the first batch: options, hooks, loaders
    ├── FitError                    seen while a batch is run
    └── CheckpointError             a file that can't be written, read or trusted

Every message has four short parts: what, where, what was received, what to do. A *notice* is one line about
something that is probably a mistake but may be meant; its code silences it: ``Trainer(silence=('not-shuffled',))``.
"""

import sys
from collections.abc import Collection, Iterable
from typing import NamedTuple


class LightningError(Exception):
    """Any error that this library raises on purpose."""


class MisconfigurationException(LightningError):
    """A run that can't work, found before its first batch."""


class FitError(LightningError):
    """Something that a hook, a loader or a batch did while it ran."""


class CheckpointError(LightningError):
    """A checkpoint that can't be written, read or trusted."""


class Problem(NamedTuple):
    """One mistake: ``what`` is wrong and where, what was ``received``, what to ``do``."""

    what: str
    received: str = ""
    do: str = ""

    def __str__(self) -> str:
        """The problem in one paragraph.

        >>> str(Problem("gradient_clip must be a number", "'x' (str)", "Pass 0 to turn it off"))
        "gradient_clip must be a number; received 'x' (str). Pass 0 to turn it off."
        """
        text = self.what + (f"; received {self.received}" if self.received else "")
        return text + "." + (f" {self.do}." if self.do else "")


def describe(value: object) -> str:
    """``value`` for a message: short, with its type, and with its shape where it is a tensor.

    >>> describe(3)
    '3 (int)'
    """
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"a {type(value).__name__} of shape {tuple(shape)}"
    if value is None:
        return "None"
    text = repr(value)
    return f"{text if len(text) <= 80 else text[:77] + '...'} ({type(value).__name__})"


def raise_together(problems: Iterable[Problem]) -> None:
    """Raise one ``MisconfigurationException`` that lists every problem; nothing where there is none."""
    found = list(dict.fromkeys(problems))
    if len(found) == 1:
        raise MisconfigurationException(str(found[0]))
    if found:
        lines = "\n".join(f"  {number}. {problem}" for number, problem in enumerate(found, 1))
        raise MisconfigurationException(f"{len(found)} things must be mended before this can run:\n{lines}")


class Notices:
    """Says each notice once, on stderr, unless its code is silenced."""

    def __init__(self, silence: Collection[str] = ()) -> None:
        self._done = set(silence)

    def say(self, code: str, text: str) -> None:
        """Print ``text`` with its ``code``; nothing where that code was said before or silenced."""
        if code not in self._done:
            self._done.add(code)
            self.report(f"{text}  [{code}]")

    def report(self, text: str) -> None:
        """Print ``text``, each time: something that went wrong, and that training survived."""
        print(f"pytorch_lightning: {text}", file=sys.stderr, flush=True)
