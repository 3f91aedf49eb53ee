"""The template of the examples, killed as often as ``--kills`` and ``--kills-at-points`` say: always the same bits."""

import itertools
import random
import shutil
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.faults.killing import POINTS, Reference, Result, kill_at_point, kill_at_time, run_to_the_end

pytestmark = pytest.mark.slow

MOST_KILLS_OF_A_RUN = 4
LONG = 3
"""So many times as often as of a small model, a run of the template visits what recurs."""

Kill = Callable[[Path, random.Random], "str | None"]
"""Start a run and kill it; says where it was. None: it came to its end before that."""
Record = Callable[[str, object], None]


@dataclass
class Figures:
    """What was killed, and what didn't end the same."""

    nb_runs: int = 0
    where: Counter[str] = field(default_factory=Counter)
    mismatches: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        where = ", ".join(f"{place} {n}" for place, n in sorted(self.where.items()))
        return (
            f"{self.where.total()} kills in {self.nb_runs} runs of the template, {len(self.mismatches)} mismatches."
            f" Where: {where}"
        )


def kill_runs(base: Path, reference: Result, nb_kills: int, kill: Kill) -> Figures:
    """Run after run, each killed one to four times and then run to its end, until ``nb_kills`` kills have happened."""
    figures = Figures()
    for seed in itertools.count():
        wanted = nb_kills - figures.where.total()
        if not wanted:
            return figures
        draw, folder, killed = random.Random(seed), base / str(seed), list[str]()
        folder.mkdir()
        for _ in range(min(wanted, draw.randint(1, MOST_KILLS_OF_A_RUN))):
            where = kill(folder, draw)
            if where is None:
                break
            killed.append(where)
        figures.where.update(killed)
        figures.nb_runs += bool(killed)
        different = difference(folder, reference)
        print(f"run {seed}, killed: {', '.join(killed) or 'never'}: {different or 'the same'}", flush=True)
        if different:
            figures.mismatches.append(f"run {seed}, killed {', '.join(killed)}: {different}")
        else:
            shutil.rmtree(folder)
    raise AssertionError


def difference(folder: Path, reference: Result) -> str:
    """How the run in ``folder``, started once more, doesn't end as ``reference``; empty where it does."""
    try:
        result = run_to_the_end(folder, "template")
    except AssertionError as error:
        return f"it fails: {error}"
    return ", ".join(f"other {name}" for name in Result._fields if getattr(result, name) != getattr(reference, name))


def unfinished(folder: Path) -> set[tuple[str, int]]:
    """The files that a run was writing when it was killed, or one before it."""
    paths = [*folder.glob("*/*/checkpoints/.step-*.tmp"), *folder.glob("best/.*.tmp")]
    return {(path.name, path.stat().st_mtime_ns) for path in paths}


def test_the_template_that_is_killed_at_random_times_has_the_same_result(
    tmp_path: Path, references: Callable[[str], Reference], request: pytest.FixtureRequest, record_property: Record
) -> None:
    reference = references("template")

    def kill(folder: Path, draw: random.Random) -> str | None:
        noted, before = folder / "phase", unfinished(folder)
        noted.unlink(missing_ok=True)
        if not kill_at_time(folder, "template", draw.uniform(0, reference.seconds)):
            return None
        if unfinished(folder) - before:
            return "writing a checkpoint"
        return (noted.read_text().strip() if noted.exists() else "") or "start"

    figures = kill_runs(tmp_path, reference.result, request.config.getoption("--kills") or 2, kill)
    record_property("figures", f"at random times: {figures}")
    assert not figures.mismatches


def test_the_template_that_is_killed_at_points_has_the_same_result(
    tmp_path: Path, references: Callable[[str], Reference], request: pytest.FixtureRequest, record_property: Record
) -> None:
    points = deque(sorted(POINTS))
    random.Random(0).shuffle(points)

    def kill(folder: Path, draw: random.Random) -> str | None:
        visits = POINTS[points[0]] * (LONG if POINTS[points[0]] > 3 else 1)
        if not kill_at_point(folder, "template", f"{points[0]}:{draw.randint(1, visits)}"):
            return None  # the same point is the next run's first
        points.rotate(-1)
        return points[-1]

    figures = kill_runs(tmp_path, references("template").result, request.config.getoption("--kills-at-points"), kill)
    record_property("figures", f"at named points: {figures}")
    assert not figures.mismatches
