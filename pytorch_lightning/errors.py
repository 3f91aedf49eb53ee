"""Exceptions, and notices.

    LightningError
    ├── MisconfigurationException   found before the first batch: options, hooks, loaders
    ├── FitError                    found while a batch is run
    ├── CheckpointError             a file that can't be written or read, or isn't safe to load
    └── ProcessError                another process of the run ended

Every message has four short parts: what, where, what was received, what to do. A *notice* is one line about something
that is probably a mistake but may be intended; its code silences it: ``Trainer(silence=('not-shuffled',))``.
"""

import contextlib
import difflib
import inspect
import re
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple, TypeVar

from pytorch_lightning.printing import detail, warn

T = TypeVar("T")


class LightningError(Exception):
    """Any error that this library raises on purpose.

    >>> from pytorch_lightning import Trainer
    >>> try:
    ...     Trainer(max_nb_epochs=0)
    ... except LightningError as error:
    ...     print(type(error).__name__)
    MisconfigurationException
    """


class MisconfigurationException(LightningError):
    """A run that can't work, found before its first batch. ``problems`` lists the mistakes if there are several.

    >>> from pytorch_lightning import Trainer
    >>> try:
    ...     Trainer(max_nb_epochs=0, gradient_clip="high")
    ... except MisconfigurationException as error:
    ...     print(*(problem.what for problem in error.problems), sep=", and ")
    max_nb_epochs must be a whole number of at least 1, and gradient_clip must be a number
    """

    problems: "tuple[Problem, ...]" = ()


class FitError(LightningError):
    """Something that a hook, a loader or a batch did while it ran.

    >>> def train(trainer, model):
    ...     try:
    ...         return trainer.fit(model)
    ...     except FitError as error:  # a loss that isn't finite, say
    ...         return f"{type(model).__name__}: {error}"
    """

    is_of_another = False
    """Whether another process raised what it tells of, so that this isn't where it began."""


class CheckpointError(LightningError):
    """A checkpoint that can't be written or read, or isn't safe to load.

    >>> from pytorch_lightning import LightningModule
    >>> try:
    ...     LightningModule.load_from_checkpoint("not_there.ckpt")
    ... except CheckpointError as error:
    ...     print(str(error).split(";")[0])
    there is no checkpoint at 'not_there.ckpt'
    """


class ProcessError(LightningError):
    """Another process of the run was killed, or raised an exception that can't be recreated here. Also the cause of an
    exception that can, with the traceback of that process.

    >>> def train(trainer, model):  # Trainer(nb_processes=2), say
    ...     try:
    ...         return trainer.fit(model)
    ...     except ProcessError as error:
    ...         print("what another process raised:", error)
    ...         raise
    """


class Problem(NamedTuple):
    """One mistake: ``what`` is wrong and where, what was ``received``, and what to ``do``."""

    what: str
    received: str = ""
    do: str = ""
    error: LightningError | None = None
    """What to raise if this is the only problem."""

    def __str__(self) -> str:
        """The problem in one paragraph.

        >>> str(Problem("gradient_clip must be a number", "'x' (str)", "Pass 0 to turn it off"))
        "gradient_clip must be a number; received 'x' (str). Pass 0 to turn it off."
        """
        text = self.what + (f"; received {self.received}" if self.received else "")
        stop = "" if "\n" in self.do or self.do.endswith("?") else "."  # a stub to write is code
        return text + "." + (f" {self.do}{stop}" if self.do else "")


def describe(value: object) -> str:
    """``value`` for a message: one short line with its type, and its shape if it is a tensor.

    >>> describe(3), describe(int), describe(print)
    ('3 (int)', 'the class int', 'the function print')
    """
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if inspect.isroutine(value):
        return f"the function {value.__name__}"
    shape, name = getattr(value, "shape", None), type(value).__name__
    if shape is not None:
        return f"a {name} of shape {tuple(shape)}"
    text = repr(value)
    if text.startswith("<") or ("\n" in text and not isinstance(value, (str, list, tuple, dict))):
        return (
            f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"  # an address, or a drawing of many lines, says no more
        )
    text = re.sub(r" at 0x[0-9a-f]+", "", " ".join(text.split()))
    return f"{text if len(text) <= 80 else text[:77] + '...'} ({name})"


def one_line(text: str, most: int = 300) -> str:
    r"""``text``, which may come out of a file, for a message: one line of at most ``most`` characters, in which a
    terminal finds nothing to obey.

    >>> one_line("two\nlines and\x1b[31m red")
    'two lines and\\x1b[31m red'
    """
    text = " ".join(text[: 10 * most].split())
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."


def near(name: str, known: Iterable[str], nb: int = 1) -> str:
    """`` Did you mean 'x'?`` if up to ``nb`` of ``known`` are spelled like ``name``; otherwise an empty string.

    >>> near("val_los", ["val_loss", "tng_loss"])
    " Did you mean 'val_loss'?"
    """
    found = difflib.get_close_matches(name, known, n=nb)
    return f" Did you mean {' or '.join(map(repr, found))}?" if found else ""


def raise_together(problems: Iterable[Problem]) -> None:
    """Raise one ``MisconfigurationException`` that lists every problem; do nothing if there is none."""
    found = list(dict.fromkeys(problems))
    if not found:
        return
    if len(found) == 1 and found[0].error is not None:
        raise found[0].error
    text = str(found[0])
    if len(found) > 1:
        lines = [f"  {number}. {textwrap.indent(str(p), ' ' * 5)[5:]}" for number, p in enumerate(found, 1)]
        text = "\n".join([f"{len(found)} problems must be fixed before this can run:", *lines])
    error = MisconfigurationException(text)
    error.problems = tuple(found)
    raise error


def attempt(problems: list[Problem], function: Callable[[], T], *, keep_type: bool = False) -> T | None:
    """What ``function`` returns; if it raises an error of ours, None and an entry in ``problems``. ``keep_type``: if
    that is the only problem, the same error is raised."""
    try:
        return function()
    except (MisconfigurationException, CheckpointError) as error:
        several = getattr(error, "problems", ())
        problems += several or [Problem(str(error).removesuffix("."), error=error if keep_type else None)]
        return None


@contextlib.contextmanager
def noting(text: str) -> Iterator[None]:
    """A context in which exceptions of others get ``text`` as a note, and keep their type and traceback."""
    try:
        yield
    except LightningError:
        raise
    except Exception as error:
        error.add_note(text)
        raise


SHOWN: set[tuple[str, str]] = set()
"""The codes and texts of the notices that this program has printed."""


class Notices:
    """Prints every notice once, on stderr, unless its code is silenced."""

    def __init__(self, silence: Collection[str] = ()) -> None:
        self._done = set(silence)
        self.quiet = False
        """Whether nothing is printed, because another process prints the same."""

    def say(self, code: str, text: str, *, key: str | None = None) -> None:
        """Print ``text`` with its ``code``, unless that is silenced, a notice of that code was printed before, or the
        same text (or ``key``, where that is given) by an earlier fit of this program."""
        known = (code, text if key is None else key)
        if code not in self._done and not self.quiet and known not in SHOWN:
            SHOWN.add(known)
            self.say_again(code, text)

    def say_again(self, code: str, text: str) -> None:
        """The same for what goes wrong in this fit, whatever was printed by an earlier one."""
        if code not in self._done and not self.quiet:
            self._done.add(code)
            self.report(f"{text}  [{code}]")

    def say_in_detail(self, code: str, text: str) -> None:
        """The same where the logger's level is DEBUG."""
        if code not in self._done and not self.quiet:
            self._done.add(code)
            detail(f"{text}  [{code}]")

    def report(self, text: str) -> None:
        """Print ``text`` every time: something went wrong, and training continues. Some of it may be from a file: a
        terminal obeys nothing in it."""
        warn("".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text))
