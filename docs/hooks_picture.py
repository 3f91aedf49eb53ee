"""The hooks of a fit as a drawing: ``python docs/hooks_picture.py`` draws docs/hooks.svg.

It is drawn from the recording of a real fit that docs/generate.py makes; a test compares the two.
"""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

PICTURE = Path(__file__).parent / "hooks.svg"

Call = tuple[str, str]
"""Who was called ('module', 'callback' or 'torch'), and what."""


class Row(NamedTuple):
    """A name, and who was called by it: the module first."""

    name: str
    who: tuple[str, ...]


class Box(NamedTuple):
    """What belongs together, under a title."""

    title: str
    inside: list["Row | Box"]


SCOPES = (
    ("configure_optimizers", "val_dataloader", "plan: once, before the first batch"),
    ("on_sanity_check_start", "on_evaluation_end", "sanity check: a few validation batches"),
    ("on_epoch_start", "on_epoch_end", "each epoch"),
    ("on_batch_start", "on_optimizer_step", "each window"),
    ("on_batch_start", "on_batch_end", "each batch"),
    ("on_pre_performance_check", "on_validation_end", "validation, where one is due"),
    ("validation_step", "on_evaluation_batch_end", "each validation batch"),
    ("get_save_dict", "on_save_checkpoint", "checkpoint, where one is due"),
)
"""What opens a box, the last call in it, and its title. The outer one of two that open together comes first."""
LAST_BATCH = ("on_after_backward", "last batch of the window")
"""A call that only the batch has which completes a window, and its title."""


def rows_of(calls: Sequence[Call]) -> list[Row]:
    """Calls of one name that follow each other are one row."""
    rows: list[Row] = []
    for who, name in calls:
        if rows and rows[-1].name == name and who not in rows[-1].who:
            rows[-1] = Row(name, (*rows[-1].who, who))
        else:
            rows.append(Row(name, (who,)))
    return rows


def boxed(rows: Sequence[Row], around: frozenset[str] = frozenset()) -> list[Row | Box]:
    """``rows`` with those of ``SCOPES`` in boxes; ``around``: the titles of the boxes that they are in already."""
    found: list[Row | Box] = []
    place = 0
    while place < len(rows):
        names = [row.name for row in rows[place:]]
        for first, last, title in SCOPES:
            if title not in around and names[0] == first and last in names:
                end = place + names.index(last) + 1
                is_last = title == "each batch" and LAST_BATCH[0] in names[: end - place]
                inside = boxed(rows[place:end], around | {title})
                found.append(Box(LAST_BATCH[1] if is_last else title, inside))
                place = end
                break
        else:
            found.append(rows[place])
            place += 1
    return found


# ------------------------------------------------------------------ the picture
WIDTH, LINE, TITLE, INSET, BETWEEN, HEAD = 400, 19, 20, 9, 7, 44
MODULE_AT, CALLBACK_AT = 286, 350
COLORS = """
.card{fill:#fff}.box{fill:#3b6ea8;fill-opacity:.07;stroke:#3b6ea8;stroke-opacity:.55}text{fill:#1f2328}
.title{font:600 12px sans-serif;fill:#2b5c96}.head{font:600 12px sans-serif}.torch{fill:#66707b;font-style:italic}
.module{fill:#2f6fb5}.callback{fill:#b4531a}
@media (prefers-color-scheme:dark){.card{fill:#1a1c1e}.box{fill:#7fb2ec;stroke:#7fb2ec}text{fill:#e3e6ea}
.title{fill:#9cc6f5}.torch{fill:#9aa4af}.module{fill:#6fb0f7}.callback{fill:#f0955a}}
"""


def drawn(things: Sequence[Row | Box], y: float, depth: int, lines: list[str]) -> float:
    """Draw ``things`` from ``y`` down; returns where they end."""
    for thing in things:
        if isinstance(thing, Row):
            lines.extend(_row(thing, y, 14 + INSET * depth))
            y += LINE
        else:
            top, place = y + BETWEEN / 2, len(lines)
            y = drawn(thing.inside, top + TITLE, depth + 1, lines) + BETWEEN / 2
            left = 6 + INSET * depth
            wide = WIDTH - left - 6 - 3 * depth
            lines[place:place] = [
                f'<rect class="box" x="{left}" y="{top:g}" width="{wide:g}" height="{y - top:g}" rx="6"/>',
                f'<text class="title" x="{left + 8}" y="{top + 15:g}">{escape(thing.title)}</text>',
            ]
            y += BETWEEN / 2
    return y


def _row(row: Row, y: float, left: float) -> Iterator[str]:
    kind = ' class="torch"' if row.who == ("torch",) else ""
    yield f'<text{kind} x="{left:g}" y="{y + 14:g}">{escape(row.name)}</text>'
    if "module" in row.who:
        yield f'<circle class="module" cx="{MODULE_AT}" cy="{y + 10:g}" r="5"/>'
    if "callback" in row.who:
        yield f'<rect class="callback" x="{CALLBACK_AT - 5}" y="{y + 5:g}" width="10" height="10"/>'


def draw(calls: Sequence[Call]) -> str:
    """The calls from top to bottom, in boxes, with marks for who was called."""
    lines: list[str] = []
    height = drawn(boxed(rows_of(calls)), HEAD, 0, lines) + 6
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}"'
        ' font-family="ui-monospace, monospace" font-size="12" role="img"'
        ' aria-label="The hooks of a fit in the order in which they are called">',
        f"<style>{COLORS}</style>",
        f'<rect class="card" width="{WIDTH}" height="{height:g}" rx="8"/>',
    ]
    for what, x in (("module", MODULE_AT), ("callbacks", CALLBACK_AT)):
        head.append(f'<text class="head" x="{x}" y="18" text-anchor="middle">{what}</text>')
    head.append(f'<circle class="module" cx="{MODULE_AT}" cy="30" r="5"/>')
    head.append(f'<rect class="callback" x="{CALLBACK_AT - 5}" y="25" width="10" height="10"/>')
    head.append('<text class="torch" x="14" y="18">in italics: calls of torch</text>')
    return "\n".join([*head, *lines, "</svg>", ""])


if __name__ == "__main__":
    from generate import record  # type: ignore[import-not-found]

    PICTURE.write_text(draw(record(with_torch=True)))
