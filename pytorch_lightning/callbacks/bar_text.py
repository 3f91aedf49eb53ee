"""The text of a progress bar: what there is to say of a pass over data, in the width that there is."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

BAR = 20
"""Cells of the bar itself where there is room."""
LEAST_BAR = 6


@dataclass
class Shown:
    """What there is to say of a pass at a moment."""

    name: str
    done: int
    total: int | None = None
    numbers: Mapping[str, Any] = field(default_factory=dict)
    elapsed: float = 0.0
    left: float | None = None
    """Seconds; None where that isn't known."""
    rate: str = ""
    """``640 samples/s``."""
    fixed: Mapping[str, str] = field(default_factory=dict)
    """What doesn't change: it comes last, and goes first."""
    is_over: bool = False

    @property
    def counted(self) -> str:
        """``24/60``."""
        return str(self.done) if self.total is None else f"{self.done:>{len(str(self.total))}}/{self.total}"


def line(shown: Shown, width: int, ascii_only: bool = False, bars: bool = True) -> str:
    """``shown`` in at most ``width`` characters. The numbers stay: whatever else there is goes first, then names are
    shortened, then numbers rounded.

    >>> seen = Shown("epoch 1", 24, 60, {"tng_loss": 1.25, "val_loss": 0.5}, 8.0, 12.0, "640 samples/s", {"v_nb": "3"})
    >>> for width in (100, 70, 50, 34):
    ...     print(line(seen, width, ascii_only=True))
    epoch 1:  40% |####------| 24/60 tng_loss=1.250 val_loss=0.5000 [00:08<00:12, 640 samples/s, v_nb=3]
    epoch 1:  40% 24/60 tng_loss=1.250 val_loss=0.5000 [00:08<00:12]
    epoch 1: 24/60 t_loss=1.250 v_loss=0.5000 [<00:12]
    epoch 1: 24/60 t_l=1.25 v_l=0.500
    """
    for numbers, percent, ends in _choices(shown):
        head = f"{shown.name}: {percent}{shown.counted}"
        end = f" [{', '.join(ends)}]" if ends else ""
        text = f"{head}{numbers}{end}"
        if len(text) <= width:
            return (
                _with_bar(shown, text, len(shown.name) + 2 + len(percent), width, ascii_only)
                if percent and bars
                else text
            )
    return f"{shown.name}: {shown.counted}{_joined(fewest(shown.numbers, width), 2, 1)}"[:width]


def _choices(shown: Shown) -> Iterator[tuple[str, str, list[str]]]:
    """Numbers, percent, and what stands in brackets: from all that there is to less and less."""
    over, left = shown.is_over, shown.left
    percent = "" if over or not shown.total else f"{shown.done / shown.total:4.0%} "
    clock = interval(shown.elapsed) + ("" if left is None or over else f"<{interval(left)}")
    short = [clock] if over or left is None else [f"<{interval(left)}"]
    rate, fixed = [shown.rate] if shown.rate else [], [f"{name}={value}" for name, value in shown.fixed.items()]
    full = _joined(shown.numbers)
    yield full, percent, [clock, *rate, *fixed]
    yield full, percent, [clock, *rate]
    yield full, percent, [clock]
    yield full, "", [clock]
    yield full, "", [] if over else short
    first = _joined(shown.numbers, 4, 99)
    yield first, "", [clock]
    yield first, "", short
    yield full, "", []
    for digits, last in ((4, 99), (4, 4), (3, 4), (3, 2), (3, 1), (2, 1)):
        yield _joined(shown.numbers, digits, last), "", []


def _with_bar(shown: Shown, text: str, place: int, width: int, ascii_only: bool) -> str:
    cells = min(BAR, width - len(text) - 3)
    if cells < LEAST_BAR or not shown.total:
        return text
    done = min(1.0, shown.done / shown.total) * cells
    if ascii_only:
        drawn = "#" * int(done) + "-" * (cells - int(done))
    else:
        part = " ▏▎▍▌▋▊▉"[int((done - int(done)) * 8)] if done < cells else ""
        drawn = ("█" * int(done) + part).ljust(cells)
    return f"{text[:place]}|{drawn}| {text[place:]}"


def _joined(numbers: Mapping[str, Any], digits: int = 4, last: int | None = None) -> str:
    names = list(numbers) if last is None else shortened(list(numbers), last)
    return "".join(f" {name}={short(value, digits)}" for name, value in zip(names, numbers.values(), strict=True))


def shortened(names: Sequence[str], last: int = 99) -> list[str]:
    """``names`` with one letter of each word but the last, of which ``last`` are left; more where two would be alike.

    >>> shortened(["tng_loss", "val_loss", "epoch"]), shortened(["val_accuracy", "val_acc"], 3)
    (['t_loss', 'v_loss', 'epoch'], ['va_accu', 'va_acc'])
    """
    words = [re.findall(r"[^_/.\-]+|[_/.\-]", name) or [name] for name in names]
    found = [""] * len(names)
    waiting = list(range(len(names)))
    for more in count():
        for i in waiting:
            *first, end = words[i]
            found[i] = "".join([word[: 1 + more] for word in first] + [end[: last + more]])
        waiting = [i for i in waiting if found.count(found[i]) > 1 and found[i] != names[i]]
        if not waiting:
            return found
    raise AssertionError


def fewest(numbers: Mapping[str, Any], width: int) -> dict[str, Any]:
    """As many of ``numbers`` as there is room for: the first, which is the loss, then the last ones, of validation."""
    names = list(numbers)
    most = max(1, width // 8 - 2)
    return {
        name: numbers[name] for name in (names if len(names) <= most else [names[0], *names[len(names) - most + 1 :]])
    }


def short(value: Any, digits: int = 4) -> str:
    """A number with so many digits, of the same width while it changes little.

    >>> short(1.5), short(0.25), short(12), short(2e-5), short(float("nan")), short(123456.0)
    ('1.500', '0.2500', '12', '2e-05', 'nan', '1.235e+05')
    """
    if not isinstance(value, float):
        return " ".join(str(value).split())
    text = f"{value:#.{digits}g}"
    return f"{value:.{digits}g}" if "e" in text or text.endswith(".") else text


def interval(seconds: float) -> str:
    """``01:23``, or ``1:02:03``.

    >>> interval(83.4), interval(3723)
    ('01:23', '1:02:03')
    """
    minutes, left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes:02}:{left:02}"


def rate_of(nb: float, seconds: float, unit: str) -> str:
    """How many a second; or, of what takes longer, how many seconds each.

    >>> rate_of(640, 1.0, "samples"), rate_of(250_000, 2.0, "items"), rate_of(1, 4.0, "batches")
    ('640 samples/s', '125k items/s', '4 s/batch')
    """
    rate = nb / max(seconds, 1e-9)
    if not nb:
        return ""
    if rate < 1:
        return f"{1 / rate:.3g} s/{unit.removesuffix('es') if unit == 'batches' else unit.removesuffix('s')}"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if rate >= 0.9995 * size:
            return f"{rate / size:.3g}{letter} {unit}/s"
    return f"{rate:.3g} {unit}/s"
