"""The examples with Ray: it starts the processes, or the trials of a search. CI installs it for them."""

import contextlib
import csv
import importlib.util
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
VARIABLES = {
    "PYTHONPATH": str(EXAMPLES.parent),
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # so that it listens at the loopback interface alone
    "RAY_USAGE_STATS_ENABLED": "0",
}
NB_TRIALS, NB_EPOCHS, NB_BATCHES = 6, 4, 8
OPTIONS = (
    *("--folder", "search", "--nb_trials", str(NB_TRIALS), "--max_nb_epochs", str(NB_EPOCHS)),
    *("--nb_digits", str(NB_BATCHES * 64), "--save_every_nb_batches", "1", "--add_log_row_interval", "1"),
    *("--log_save_interval", "1"),
)

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray: pip install -e '.[ray]'"),
]


def test_a_ray_job_trains_in_two_processes_and_a_second_one_finds_it_done(tmp_path: Path) -> None:
    options = ("--nb_workers", "2", "--max_nb_epochs", "1", "--hidden_dim", "16")
    command, variables = [sys.executable, str(EXAMPLES / "ray_train.py"), *options], {**os.environ, **VARIABLES}
    said = []
    for _ in range(2):
        done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        said.append(done.stdout + done.stderr)
    assert "training in 2 CPU processes (ddp)" in said[0]
    assert "validated {" in said[0]
    found = [re.findall(r"validated (\{.*?\})", text) for text in said]
    assert found[0] == found[1] != [], "and the same weights"
    (save,) = tmp_path.glob("ray_logs/LightningTemplateModel/version_0/checkpoints/step-*.ckpt")
    assert save.is_file()


# ------------------------------------------------------------------ a search
def end(program: subprocess.Popen[bytes]) -> None:
    """Kill it, and the daemons that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(program.pid, signal.SIGKILL)


class Search:
    """Starts of ``ray_tune.py`` in one folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder

    def start(self, **variables: str) -> subprocess.Popen[bytes]:
        with (self.folder / "said").open("wb") as said:
            return subprocess.Popen(
                [sys.executable, str(EXAMPLES / "ray_tune.py"), *OPTIONS], cwd=self.folder, start_new_session=True,
                env={**os.environ, **VARIABLES, **variables}, stdout=said, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def run(self) -> None:
        """To its end."""
        with self.start() as program:
            try:
                assert program.wait(300) == 0, self.said()
            finally:
                end(program)

    def kill(self, trial: int, nb_batches: int, nb_done: int, **variables: str) -> int:
        """Run, and kill it and its daemons once ``trial`` has trained ``nb_batches``: the one that ends the
        ``nb_done``-th batch of this start waits there. Returns of how many the newest save is."""
        # three batches before it waits too, so that a save that is being written keeps none of those from being saved
        fault = f"update.end:{nb_done - 3}:sleep=1,update.end:{nb_done}:sleep=300"
        with self.start(FAULT=fault, **variables) as program:
            try:
                deadline = time.monotonic() + 200
                while len(self.rows(trial)) < nb_batches - 1 or not self.newest_save(trial):
                    assert program.poll() is None, self.said()
                    assert time.monotonic() < deadline, self.said()
                    time.sleep(0.05)
                time.sleep(1)  # Tune writes down what it knows
            finally:
                end(program)
        return self.newest_save(trial)

    def newest_save(self, trial: int) -> int:
        saves = self.folder.glob(f"search/trial_{trial}/Digits/version_0/checkpoints/step-*.ckpt")
        return max((int(path.stem.removeprefix("step-")) for path in saves), default=0)

    def lines(self) -> list[str]:
        """What it says about the trials."""
        return re.findall(r"^(?:trial|best) .*", self.said(), re.MULTILINE)

    def said(self) -> str:
        return (self.folder / "said").read_text()

    def rows(self, trial: int) -> list[dict[str, str]]:
        path = self.folder / f"search/trial_{trial}/Digits/version_0/metrics.csv"
        return list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []

    def numbers(self, trial: int) -> list[dict[str, str]]:
        return [{name: value for name, value in row.items() if name != "created_at"} for row in self.rows(trial)]

    def times(self, trial: int) -> list[str]:
        """When its rows were written."""
        return [row["created_at"] for row in self.rows(trial)]

    def losses(self, trial: int) -> list[float]:
        return [float(row["val_loss"]) for row in self.rows(trial) if row["val_loss"]]

    def states(self) -> list[str]:
        """Of the trials that Tune would restore."""
        newest = max(self.folder.glob("search/experiment_state-*.json"))
        found = [json.loads(trial) for trial, _ in json.loads(newest.read_text())["trial_data"]]
        return [trial["status"] for trial in sorted(found, key=lambda trial: trial["trial_id"])]


def ends_early(losses: list[float], of_others: list[list[float]]) -> bool:
    """Halving by hand: whether the last epoch's loss is one of the worse half, and those before weren't."""
    for epoch, loss in enumerate(losses, 1):
        others = [other[epoch - 1] for other in of_others if len(other) >= epoch]
        if epoch in (1, 2, 4) and others and loss > statistics.median(others):
            assert epoch == len(losses)
            return True
    return False


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Search:
    """A search that nobody kills."""
    search = Search(tmp_path_factory.mktemp("search") / "whole")
    search.run()
    return search


def test_a_search_ends_the_worse_half_early(whole: Search) -> None:
    losses = [whole.losses(trial) for trial in range(NB_TRIALS)]
    for trial, epochs in enumerate(losses):
        assert ends_early(epochs, losses[:trial]) or len(epochs) == NB_EPOCHS
    assert {len(epochs) < NB_EPOCHS for epochs in losses[2:]} == {True, False}
    best = min(range(NB_TRIALS), key=lambda trial: losses[trial][-1])
    assert whole.lines()[-1].split() == ["best", str(best)]
    assert len(whole.lines()) == NB_TRIALS + 1


@pytest.mark.parametrize("seconds", ["0", "1000"])
def test_a_search_that_is_killed_ends_with_the_same_trials(tmp_path: Path, whole: Search, seconds: str) -> None:
    """Tune writes down what it knows every so many ``seconds``: here always, or at the start alone."""
    cut = Search(tmp_path / "cut")
    nb_batches = [NB_BATCHES * len(whole.losses(trial)) for trial in range(NB_TRIALS)]
    saved = cut.kill(2, 7, sum(nb_batches[:2]) + 7, TUNE_GLOBAL_CHECKPOINT_S=seconds)
    assert cut.states() == (["PENDING"] if seconds == "1000" else ["TERMINATED", "TERMINATED", "RUNNING"])
    finished, begun = [cut.times(trial) for trial in range(2)], cut.times(2)[:saved]
    cut.run()
    assert cut.lines() == whole.lines()
    assert cut.states() == ["TERMINATED"] * NB_TRIALS
    assert len({path.name.split("_")[1] for path in cut.folder.glob("search/train_*")}) == 1, "one search"
    for trial in range(NB_TRIALS):
        assert cut.numbers(trial) == whole.numbers(trial)
        assert len(list(cut.folder.glob(f"search/trial_{trial}/Digits/*"))) == 1
    assert cut.times(0) == finished[0], "which wasn't trained again"
    assert cut.times(2)[:saved] == begun, "which was resumed"
    if seconds == "0":
        assert cut.times(1) == finished[1]
        before = {path: path.read_bytes() for path in cut.folder.glob("search/trial_*/**/*.c*")}
        cut.run()  # and another start finds nothing to do
        assert cut.lines() == whole.lines()
        assert {path: path.read_bytes() for path in before} == before
