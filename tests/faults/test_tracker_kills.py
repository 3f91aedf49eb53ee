"""A run that logs to W&B, MLflow, TensorBoard and CSV, killed again and again: one run in each, the same points in all.

``pytest tests/faults/test_tracker_kills.py --tracker-kills 50`` kills it 50 times.
"""

import importlib.util
import random
import shutil
import signal
from pathlib import Path

import pytest

from tests.faults import warm
from tests.faults.tracking import check_all, train

pytestmark = [
    pytest.mark.neighbours,
    pytest.mark.filterwarnings("ignore"),  # what they import warns of what it imports
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("wandb", "mlflow", "sqlalchemy")),
        reason='needs pip install -e ".[neighbours]"',
    ),
]

POINTS = {
    "batch.run": 14, "update.end": 14, "validation.begin": 1, "validation.end": 1, "write.renamed": 4, "store.prune": 3,
    "rows.columns": 12, "rows.written": 12, "tracker.tried": 2, "tracker.sent": 2, "rows.rewritten": 8,
}  # fmt: skip


def test_one_run_and_equal_curves_after_many_kills(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    wanted, seed = request.config.getoption("--tracker-kills"), request.config.getoption("--first-seed")
    draw, nb_epochs = random.Random(seed), 2 + wanted // 2
    empty, folder, said = tmp_path / "empty", tmp_path / "run", tmp_path / "said"
    done = list[str]()
    empty.mkdir()
    assert warm.run(_make_database, str(empty), output=said).code == 0
    _begin_anew(folder, empty)
    while len(done) < wanted:
        if draw.random() < 0.3:
            process = warm.started(train, str(folder), nb_epochs, output=said)
            seconds = draw.uniform(4, 9)  # it imports for about four
            process.join(seconds)
            process.kill()
            process.join()
            code, way = process.exitcode, f"after {seconds:.2f} s"
        else:
            point = draw.choice(sorted(POINTS))
            way = f"{point}:{draw.randint(1, POINTS[point])}"
            code = warm.run(train, str(folder), nb_epochs, output=said, fault=way).code
        assert code in (0, -signal.SIGKILL), f"{done} {way} {said.read_text()}"
        if code == 0:  # a thread sends the rows, so how often it comes by a point isn't known
            _check(folder, nb_epochs, f"seed {seed}, killed {done}")
            _begin_anew(folder, empty)
            continue
        done.append(way)
        if not list(folder.rglob("step-*.ckpt")):  # before the first save: the next start is a new run
            _begin_anew(folder, empty)
    ended = warm.run(train, str(folder), nb_epochs, output=said)
    assert ended.code == 0, f"{done} {ended.said}"
    _check(folder, nb_epochs, f"seed {seed}, killed {done}")


def _begin_anew(folder: Path, empty: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    shutil.copy(empty / "mlflow.db", folder)


def _check(folder: Path, nb_epochs: int, note: str) -> None:
    try:
        check_all(folder, nb_epochs)
    except AssertionError as error:
        error.add_note(note)
        raise


def _make_database(folder: str) -> None:
    """An empty one: MLflow takes ten seconds for that."""
    import os

    from tests.faults.tracking import OFFLINE

    os.environ.update(OFFLINE)
    from mlflow import MlflowClient

    MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db").create_experiment("kills")
