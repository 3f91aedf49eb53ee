"""The search with Optuna: it is killed, started again, and started several times at once."""

import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.faults import warm
from tests.faults.killing import run_example

pytestmark = pytest.mark.neighbours

optuna = pytest.importorskip("optuna", reason='optuna isn\'t installed: pip install -e ".[neighbours]"')

EXAMPLE = Path(__file__).parents[2] / "examples" / "search.py"
NB_TRIALS = 5
OPTIONS = (
    *("--progress_bar", "False", "--print_weights_summary", "False", "--max_nb_epochs", "2", "--nb_digits", "192"),
    *("--nb_trials", str(NB_TRIALS), "--save_every_nb_batches", "1"),
)


def start(folder: Path, fault: str = "") -> str:
    ended = warm.run(run_example, str(EXAMPLE), str(folder), *OPTIONS, output=folder / "said", fault=fault)
    assert ended.code == (-signal.SIGKILL if fault else 0), ended.said
    return ended.said


def trials_in(folder: Path) -> dict[str, list[Any]]:
    """The trials of the study by their state."""
    study = optuna.load_study(storage=f"sqlite:///{folder / 'search/search.db'}", study_name="digits")
    found: dict[str, list[Any]] = {}
    for trial in study.trials:
        found.setdefault(trial.state.name, []).append(trial)
    return found


def finished(trials: dict[str, list[Any]]) -> list[Any]:
    return sorted(trials.get("COMPLETE", []) + trials.get("PRUNED", []), key=lambda trial: trial.number)


def test_finished_trials_are_kept_and_the_one_that_was_killed_is_resumed(tmp_path: Path) -> None:
    start(tmp_path, fault="validation.run:6")  # of at most two a trial
    before = trials_in(tmp_path)
    (killed,) = before.pop("RUNNING")
    assert 2 <= len(finished(before)) < NB_TRIALS
    said = start(tmp_path)
    after = trials_in(tmp_path)
    assert after.keys() <= {"COMPLETE", "PRUNED", "FAIL"}
    assert finished(after)[: len(finished(before))] == finished(before)
    assert len(finished(after)) == NB_TRIALS
    assert [trial.number for trial in after["FAIL"]] == [killed.number]
    (again,) = [trial for trial in finished(after) if trial.params == killed.params]
    assert again.number == killed.number + 1
    assert killed.intermediate_values.items() <= again.intermediate_values.items()
    assert len(list(tmp_path.glob(f"search/trial_{killed.number}/Digits/version_*"))) == 1, "one run, which went on"
    assert not (tmp_path / f"search/trial_{again.number}").exists()
    assert len(re.findall(r"^trial ", said, re.MULTILINE)) == NB_TRIALS
    start(tmp_path)  # and a third start finds nothing to do
    assert trials_in(tmp_path) == after


def test_several_programs_share_the_trials(tmp_path: Path) -> None:
    folder = str(tmp_path)
    programs = [
        warm.started(run_example, str(EXAMPLE), folder, *OPTIONS, output=tmp_path / f"said_{i}") for i in range(2)
    ]
    for program in programs:
        program.join(100)
    assert [program.exitcode for program in programs] == [0, 0], (tmp_path / "said_0").read_text()
    trials = trials_in(tmp_path)
    assert len(finished(trials)) == NB_TRIALS == sum(map(len, trials.values()))
    assert [len(list(path.glob("Digits/version_*"))) for path in tmp_path.glob("search/trial_?")] == [1] * NB_TRIALS
