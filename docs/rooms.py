"""The rooms of the package, read from its imports: a picture, a table, and the lines that one step runs through.

``python docs/rooms.py`` draws docs/rooms.svg; docs/generate.py puts the tables into docs/architecture.md.
"""

import ast
import sys
import tempfile
from collections import defaultdict
from html import escape
from pathlib import Path
from types import FrameType
from typing import Any

import torch

import pytorch_lightning
from pytorch_lightning import LightningModule, Trainer

PACKAGE = Path(pytorch_lightning.__file__).parent
PICTURE = Path(__file__).parent / "rooms.svg"

LEFT_OUT = {"__init__", "models", "utils", "utilities", "faults", "templates", "__main__"}
"""Import paths of 2019, and the points at which a test can make the library fail: they may be imported anywhere. And
the templates, which are copied and never imported, and the program that runs the commands."""


def room_of(path: Path) -> str:
    """The folder or the file of the package that ``path`` belongs to."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports() -> dict[str, set[str]]:
    """Each room with the rooms that it imports."""
    found: dict[str, set[str]] = defaultdict(set)
    rooms = {room_of(path) for path in PACKAGE.rglob("*.py")} - LEFT_OUT
    for path in PACKAGE.rglob("*.py"):
        room = room_of(path)
        if room in LEFT_OUT:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            parts = [name.split(".") for name in names if name.startswith("pytorch_lightning.")]
            found[room] |= {part[1] for part in parts if part[1] in rooms} - {room}
        found.setdefault(room, set())
    return dict(found)


def floors(arrows: dict[str, set[str]]) -> list[list[str]]:
    """The rooms from the top floor down: each stands above all that it imports."""
    height: dict[str, int] = {}

    def height_of(room: str) -> int:
        if room not in height:
            height[room] = 1 + max(map(height_of, arrows[room]), default=-1)
        return height[room]

    by_height = defaultdict(list)
    for room in sorted(arrows):
        by_height[height_of(room)].append(room)
    return [by_height[n] for n in sorted(by_height, reverse=True)]


def direct(arrows: dict[str, set[str]]) -> dict[str, set[str]]:
    """``arrows`` without those that another way through the rooms says already."""
    below: dict[str, set[str]] = {}

    def below_of(room: str) -> set[str]:
        if room not in below:
            below[room] = arrows[room].union(*map(below_of, arrows[room]))
        return below[room]

    return {room: {to for to in tos if not any(to in below_of(other) for other in tos)} for room, tos in arrows.items()}


def purpose(room: str) -> str:
    """The first sentence of a room's docstring."""
    path = PACKAGE / room / "__init__.py"
    text = ast.get_docstring(ast.parse((path if path.exists() else PACKAGE / f"{room}.py").read_text())) or ""
    return " ".join(text.split("\n\n")[0].split())


def table_of_rooms() -> str:
    """A Markdown table: room, purpose, what it imports directly."""
    arrows = imports()
    lines = ["| room | what it holds | imports |", "| --- | --- | --- |"]
    for floor in floors(arrows):
        for room in floor:
            what = purpose(room).replace("``", "`").replace("|", r"\|")
            lines.append(f"| `{room}` | {what} | {', '.join(f'`{to}`' for to in sorted(arrows[room])) or '-'} |")
    return "\n".join(lines)


# ------------------------------------------------------------------ the picture
WIDTH, BOX, HEIGHT, GAP, MOST = 440, 98, 28, 34, 4
"""A telephone shows a picture of this width nearly as it is drawn. ``MOST``: boxes in a row."""
COLORS = """
.card{fill:#fff}.arrow{fill:none;stroke:#8a8f98}.tip{fill:#8a8f98}
.room{fill:#eef3fb;stroke:#3b6ea8}text{fill:#16324f;text-anchor:middle}
@media (prefers-color-scheme:dark){.card{fill:#1a1c1e}.room{fill:#22303f;stroke:#7fb2ec}text{fill:#e3e6ea}}
"""


def rows_of(floor: list[str]) -> list[list[str]]:
    """A floor in rows of about the same length, of at most ``MOST`` rooms."""
    nb_rows = -(-len(floor) // MOST)
    size = -(-len(floor) // nb_rows)
    return [floor[start : start + size] for start in range(0, len(floor), size)]


def draw() -> str:
    """The rooms as boxes on their floors, with the arrows that no other way says already."""
    arrows = imports()
    rows, place = [row for floor in floors(arrows) for row in rows_of(floor)], dict[str, tuple[float, float]]()
    for y, row in enumerate(rows):
        space = WIDTH / len(row)
        for x, room in enumerate(row):
            place[room] = (space * (x + 0.5), 14 + y * (HEIGHT + GAP))
    height = 14 + len(rows) * (HEIGHT + GAP) - GAP + 14
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH * 1.25:g}"'
        f' height="{height * 1.25:g}" font-family="sans-serif" font-size="13" role="img"'
        ' aria-label="The rooms of pytorch_lightning and which one imports which">',
        f"<style>{COLORS}</style>",
        f'<rect class="card" width="{WIDTH}" height="{height}" rx="8"/>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="tip" d="M0 0 8 4 0 8z"/></marker></defs>',
    ]
    for room, tos in sorted(direct(arrows).items()):
        for to in sorted(tos):
            (x, y), (x_to, y_to) = place[room], place[to]
            y += HEIGHT
            bend = (y_to - y) / 2
            way = f"M{x:.0f} {y:.0f}C{x:.0f} {y + bend:.0f} {x_to:.0f} {y_to - bend:.0f} {x_to:.0f} {y_to:.0f}"
            lines.append(f'<path class="arrow" d="{way}" marker-end="url(#tip)"/>')
    for room, (x, y) in place.items():
        lines.append(
            f'<g><title>{escape(purpose(room))}</title><rect class="room" x="{x - BOX / 2:.0f}" y="{y:.0f}"'
            f' width="{BOX}" height="{HEIGHT}" rx="6"/><text x="{x:.0f}" y="{y + 19:.0f}">{escape(room)}</text></g>'
        )
    return "\n".join([*lines, "</svg>", ""])


# ------------------------------------------------------------------ the path of a step
class _Traced(LightningModule):
    """Counts the lines of the package between two of its training steps."""

    first, last = 23, 24

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.lines: dict[str, set[int]] = defaultdict(set)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        if batch_nb == self.first:
            frame: FrameType | None = sys._getframe(1)
            while frame is not None:
                frame.f_trace, frame = self._trace, frame.f_back
            sys.settrace(self._trace)
        elif batch_nb == self.last:
            sys.settrace(None)
        return {"loss": self.layer(data_batch).pow(2).mean()}

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        file = Path(frame.f_code.co_filename)
        if event == "line" and file.is_relative_to(PACKAGE):
            self.lines[file.relative_to(PACKAGE).as_posix()].add(frame.f_lineno)
        return self._trace

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)

    tng_dataloader = property(lambda self: [torch.ones(1, 1)] * 30)


def lines_of_a_step() -> dict[str, int]:
    """The lines that an ordinary training batch runs through, by file: from the user's ``training_step`` of one batch
    to that of the next one. No row, bar, save or validation is due in it."""
    model, before = _Traced(), sys.gettrace()
    with tempfile.TemporaryDirectory() as folder:
        options = {"silence": ("not-shuffled", "no-validation"), "print_weights_summary": False, "progress_bar": False}
        try:
            Trainer(default_save_path=folder, max_nb_epochs=1, **options).fit(model)
        finally:
            sys.settrace(before)
    return {file: len(lines) for file, lines in sorted(model.lines.items())}


def path_of_a_step() -> str:
    """A Markdown table of ``lines_of_a_step``."""
    found = lines_of_a_step()
    rows = [f"| `{file}` | {nb} |" for file, nb in found.items()]
    return "\n".join(["| file | lines |", "| --- | --: |", *rows, f"| together | {sum(found.values())} |"])


if __name__ == "__main__":
    PICTURE.write_text(draw())
