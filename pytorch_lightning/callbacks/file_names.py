"""Names of checkpoints from a template, in which metrics stand in braces."""

import re
from collections.abc import Mapping
from string import Formatter

from pytorch_lightning.errors import MisconfigurationException, describe

PLACES = ("epoch", "global_step")
"""What a template may name beside metrics: the epoch, counted from 1, and the number of batches trained on."""


class FileName:
    """``'{epoch}-{val_loss:.3f}'`` gives ``'epoch=2-val_loss=0.125.ckpt'``: each value follows its name, unless the
    template has ``name=`` there itself. ``/`` in the name of a metric becomes ``_``.

    Raises ``MisconfigurationException`` for a template that can't be formatted.

    >>> FileName("best-{epoch:02d}-{val/acc:.2f}").of({"epoch": 3, "val/acc": 0.5})
    'best-epoch=03-val_acc=0.50.ckpt'
    """

    def __init__(self, template: str) -> None:
        if not isinstance(template, str) or not template:
            raise _wrong(template, "must be a text like '{epoch}-{val_loss:.3f}'")
        if re.search(r"[/\\]", re.sub(r"{[^}]*}", "", template)):
            raise _wrong(template, "is the name of a file, without a folder: filepath is the folder")
        try:
            parts = list(Formatter().parse(template.removesuffix(".ckpt")))
        except ValueError as error:
            raise _wrong(template, f"can't be read ({error})") from None
        self._parts: list[tuple[str, str | None, str]] = []
        for text, name, spec, conversion in parts:
            if name is not None and (not name or name.isdigit() or conversion or "{" in (spec or "")):
                raise _wrong(template, "has a field that isn't a name with a format, as in {val_loss:.3f}")
            if name == "step":
                raise _wrong(template, "names the step: write {global_step}")
            self._parts.append((text, name, spec or ""))
            value = 1 if name in PLACES else 1.0
            try:
                format(value, spec or "")
            except ValueError as error:
                raise _wrong(template, f"can't format {name}, {describe(value)} say: {error}") from None
        self.metrics = tuple(dict.fromkeys(n for _, n, _ in self._parts if n is not None and n not in PLACES))
        """The metrics that it names."""
        self.pattern = "".join(
            re.escape(text) + ("" if name is None else f"({re.escape(_label(text, name))}[^/\\\\]*?)")
            for text, name, _ in self._parts
        )

    def of(self, values: Mapping[str, float]) -> str:
        """The name of a file with these values."""
        words = []
        for text, name, spec in self._parts:
            words.append(text if name is None else f"{text}{_label(text, name)}{format(values[name], spec)}")
        return "".join(words) + ".ckpt"


def _label(text: str, name: str) -> str:
    """What stands in front of a value, behind ``text``."""
    label = f"{name.replace('/', '_')}="
    return "" if text.endswith((label, f"{name}=")) else label


def _wrong(template: object, what: str) -> MisconfigurationException:
    return MisconfigurationException(
        f"ModelCheckpoint: filename {what}; received {describe(template)}. Pass '{{epoch}}-{{val_loss:.3f}}', say:"
        " epoch, global_step and metrics in braces."
    )
