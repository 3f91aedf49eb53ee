"""Draws the losses of two real runs: ``python docs/curves.py`` writes docs/curves.svg.

Both are the run of a new project. One is never interrupted; the other is killed twice by ``kill -9``, and started again
by the same command. The rows that they logged are compared before they are drawn.
"""

import csv
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from report_picture import run

PICTURE = Path(__file__).parent / "curves.svg"
OPTIONS = (
    "train.py --max_nb_epochs 6 --seed 1 --val_check_interval 0.5 --save_every_nb_batches 15 --resume auto"
    " --log_save_interval 1"
)
KILLED_AFTER = (135, 285)
"""Saves after which the second run is killed."""
CURVES = {"tng_loss": "training", "val_loss": "validation"}

Row = dict[str, str]
Points = list[tuple[float, float]]


def rows_of(folder: Path) -> list[Row]:
    """What a run has logged so far, without the time."""
    (file,) = folder.glob("lightning_logs/*/version_0/metrics.csv")
    with file.open() as lines:
        return [{name: value for name, value in row.items() if name != "created_at"} for row in csv.DictReader(lines)]


def points(rows: Sequence[Row], name: str, start: int = 0) -> Points:
    """(training batches, loss) of the rows that have this loss, from the last one before the batch ``start`` on."""
    found = [(float(row["global_step"]), float(row[name])) for row in rows if row.get(name)]
    return found[max(0, sum(x < start for x, _ in found) - 1) :]


# ------------------------------------------------------------------ the picture
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 440, 312, 36, 14, 74, 36
COLORS = """
.card{fill:#fff}text{fill:#1f2328}.axis{stroke:#8a8f98;fill:none}.grid{stroke:#8a8f98;stroke-opacity:.25}
.curve{fill:none;stroke-linejoin:round;stroke-linecap:round}.whole{stroke:#b9c4d0;stroke-width:7}
.start1{stroke:#2f6fb5;stroke-width:2}.start2{stroke:#b4531a;stroke-width:2}.start3{stroke:#2c7f4f;stroke-width:2}
.kill{stroke:#8a8f98;stroke-dasharray:3 3}.small{font-size:11px}
@media (prefers-color-scheme:dark){.card{fill:#1a1c1e}text{fill:#e3e6ea}.whole{stroke:#4d5864}
.start1{stroke:#6fb0f7}.start2{stroke:#f0955a}.start3{stroke:#63c98f}}
"""
NAMES = ("not interrupted", "until the first kill -9", "resumed, killed again", "resumed, to the end")


def draw(whole: Sequence[Row], starts: Sequence[Sequence[Row]], saves: Sequence[int]) -> str:
    """The losses of ``whole`` as wide lines, and on them those of the ``starts`` of the other run. ``saves``: the
    batches from which the second start and the next ones resumed."""
    most = max(x for name in CURVES for x, _ in points(whole, name))
    highest = max(y for name in CURVES for _, y in points(whole, name))
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + x / most * (right - LEFT), bottom - y / highest * (bottom - TOP)

    def line(kind: str, found: Points) -> str:
        places = " ".join(f"{a:.2f},{b:.2f}" for a, b in (place(*point) for point in found))
        return f'<polyline class="curve {kind}" points="{places}"/>'

    lines = [*_frame(), *_grid(place, most, highest)]
    for save in saves:
        x, _ = place(save, 0)
        lines.append(f'<path class="kill" d="M{x:.1f} {TOP}V{bottom}"/>')
        lines.append(f'<text class="small" x="{x + 4:.1f}" y="{TOP + 10}">kill -9</text>')
    lines += [line("whole", points(whole, name)) for name in CURVES]
    for number, (rows, since) in enumerate(zip(starts, (0, *saves), strict=True), 1):
        lines += [line(f"start{number}", points(rows, name, since)) for name in CURVES]
    for name, text in CURVES.items():
        x, y = place(*points(whole, name)[3 if name == "val_loss" else 15])
        at = (x - 8, y + 18, "end") if name == "val_loss" else (x + 6, y - 10, "start")
        lines.append(f'<text x="{at[0]:.1f}" y="{at[1]:.1f}" text-anchor="{at[2]}">{text} loss</text>')
    return "\n".join([*lines, "</svg>", ""])


def _frame() -> Iterator[str]:
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH * 1.3:g}"'
        f' height="{HEIGHT * 1.3:g}" font-family="sans-serif" font-size="12" role="img"'
        ' aria-label="The losses of a run that was killed twice lie on those of one that was not interrupted">'
    )
    yield f"<style>{COLORS}</style>"
    yield f'<rect class="card" width="{WIDTH}" height="{HEIGHT}" rx="8"/>'
    for number, text in enumerate(NAMES):
        x, y = LEFT + 190 * (number % 2), 20 + 20 * (number // 2)
        kind = f"start{number}" if number else "whole"
        yield f'<path class="curve {kind}" d="M{x} {y}h22"/><text x="{x + 30}" y="{y + 4}">{text}</text>'


def _grid(place, most: float, highest: float) -> Iterator[str]:
    for y in (0.5, 1.0, 1.5, 2.0):
        if y < highest:
            left, at = place(0, y)
            yield f'<path class="grid" d="M{left:g} {at:.1f}H{WIDTH - RIGHT}"/>'
            yield f'<text class="small" x="{left - 6:g}" y="{at + 4:.1f}" text-anchor="end">{y}</text>'
    for x in range(0, int(most) + 1, 100):
        at, bottom = place(x, 0)
        yield f'<text class="small" x="{at:.1f}" y="{bottom + 16:g}" text-anchor="middle">{x}</text>'
    yield f'<path class="axis" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>'
    yield f'<text class="small" x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">training batches</text>'


def main() -> None:
    starts, saves = list[list[Row]](), list[int]()
    with tempfile.TemporaryDirectory() as name:
        for project in ("whole", "killed"):
            run(["-m", "pytorch_lightning", "new", project, "--template", "mnist"], Path(name))
        run(OPTIONS.split(), Path(name) / "whole")
        killed = Path(name) / "killed"
        for save in (*KILLED_AFTER, None):
            run(OPTIONS.split(), killed, save)
            starts.append(rows_of(killed))
            if save is not None:
                saves.append(max(int(path.stem.split("-")[1]) for path in killed.rglob("step-*.ckpt")))
        whole = rows_of(Path(name) / "whole")
    assert starts[-1] == whole, "the run that was killed has logged other rows"
    PICTURE.write_text(draw(whole, starts, saves))
    print(f"{PICTURE}: {len(whole)} rows, the same in both runs; killed after {saves}")


if __name__ == "__main__":
    main()
