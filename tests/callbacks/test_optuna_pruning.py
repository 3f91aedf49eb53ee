"""Trials of Optuna that are reported to and end early. The oracle is what Optuna's own storage holds."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Callback, EarlyStopping, OptunaPruning
from pytorch_lightning.errors import FitError, MisconfigurationException
from tests.callbacks.test_weight_averaging import Net
from tests.faults import warm
from tests.faults.killing import run_example
from tests.launchers.ranks import in_ranks
from tests.recorder import Recorder, quiet_trainer

pytestmark = pytest.mark.neighbours

optuna = pytest.importorskip("optuna", reason='optuna isn\'t installed: pip install -e ".[neighbours]"')
optuna.logging.set_verbosity(optuna.logging.WARNING)


class Watcher(Callback):
    """What the hooks of another callback see."""

    def __init__(self) -> None:
        self.validations: list[float] = []
        self.epochs: list[float] = []

    def on_validation_end(self, run: Any, metrics: Any) -> None:
        self.validations.append(metrics["val_loss"])

    def on_epoch_end(self, run: Any) -> None:
        self.epochs.append(run.metrics.of_training()["twice"])

    def state_dict(self) -> dict[str, Any]:
        return {"seen": [self.validations, self.epochs]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.validations, self.epochs = state["seen"]


def study_with(pruner: Any = None) -> Any:
    return optuna.create_study(pruner=pruner or optuna.pruners.NopPruner())


def fit(folder: Path, trial: Any, monitor: str = "val_loss", model: Any = None, **options: Any) -> Watcher:
    watcher = Watcher()
    trainer = quiet_trainer(folder, callbacks=[watcher, OptunaPruning(trial, monitor)], **options)
    assert trainer.fit(model or Recorder(val_values=(3.0, 2.0, 1.5, 1.0, 0.5))) == 1
    return watcher


@pytest.mark.parametrize(
    ("options", "nb"),
    [
        ({"max_nb_epochs": 3}, 3),
        ({"max_nb_epochs": 2, "val_check_interval": 0.5}, 4),
        ({"max_nb_epochs": 4, "check_val_every_n_epoch": 2, "nb_sanity_val_steps": 1}, 2),
    ],
)
def test_each_validation_is_a_step(tmp_path: Path, options: dict[str, Any], nb: int) -> None:
    study = study_with()
    trial = study.ask()
    watcher = fit(tmp_path, trial, **options)
    assert len(watcher.validations) == nb
    assert study.trials[0].intermediate_values == dict(enumerate(watcher.validations))


@pytest.mark.parametrize("check_every", [1, 2])
@pytest.mark.parametrize("nb_sanity", [0, 1])
def test_each_epoch_is_a_step_for_a_metric_of_training(tmp_path: Path, check_every: int, nb_sanity: int) -> None:
    study = study_with()
    trial = study.ask()
    options = {"check_val_every_n_epoch": check_every, "nb_sanity_val_steps": nb_sanity, "max_nb_epochs": 4}
    watcher = fit(tmp_path, trial, "twice", **options)
    assert study.trials[0].intermediate_values == dict(enumerate(watcher.epochs))
    assert len(set(watcher.epochs)) == 4


def open_files(folder: Path) -> list[str]:
    links = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if _is_open(name)]
    return [link for link in links if link.startswith(str(folder))]


def _is_open(name: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{name}")


def test_a_pruned_fit_raises_trial_pruned_with_its_files_closed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    study = study_with(optuna.pruners.ThresholdPruner(lower=1.8))
    trial = study.ask()
    with pytest.raises(optuna.TrialPruned, match=r"^val_loss is 1.5 in epoch 3"):
        fit(tmp_path, trial, max_nb_epochs=9, add_log_row_interval=1, log_save_interval=1)
    assert open_files(tmp_path) == []
    rows = next(tmp_path.rglob("metrics.csv")).read_text().splitlines()
    assert sum(",1.5" in row for row in rows) == 1
    assert not list(tmp_path.rglob("*failed*"))
    assert capfd.readouterr().err == ""
    assert study.trials[0].intermediate_values == {0: 3.0, 1: 2.0, 2: 1.5}


def test_a_study_prunes_and_goes_on(tmp_path: Path) -> None:
    """And its sampler draws what it would draw without a fit: the seed of the Trainer isn't its own."""

    def objective(trial: Any, trains: bool = True) -> float:
        value = trial.suggest_float("value", 0.0, 1.0)
        if trains:
            fit(tmp_path / str(trial.number), trial, model=Recorder(val_values=(value,)), max_nb_epochs=2)
        return value  # type: ignore[no-any-return]

    pruner = optuna.pruners.ThresholdPruner(upper=0.6)
    searches = []
    for trains in (True, False):
        sampler = optuna.samplers.RandomSampler(seed=5)
        study = optuna.create_study(sampler=sampler, pruner=pruner)
        study.optimize(lambda trial, trains=trains: objective(trial, trains), n_trials=6)
        searches.append(study.trials)
    values = [trial.params["value"] for trial in searches[1]]
    assert [trial.params["value"] for trial in searches[0]] == values
    assert [t.state.name for t in searches[0]] == ["PRUNED" if value > 0.6 else "COMPLETE" for value in values]
    assert {t.state.name for t in searches[0]} == {"PRUNED", "COMPLETE"}


def test_a_metric_that_is_missing_is_an_error_as_for_early_stopping(tmp_path: Path) -> None:
    said = []
    for callback in (OptunaPruning(study_with().ask(), "val_los"), EarlyStopping("val_los")):
        with pytest.raises(FitError, match=r"needs the metric 'val_los'.*Available: .*val_loss") as caught:
            quiet_trainer(tmp_path / str(len(said)), callbacks=[callback], max_nb_epochs=1).fit(Recorder())
        said.append(str(caught.value).replace(type(callback).__name__, "it"))
    assert said[0] == said[1]


def test_what_can_not_be_reported_to_is_refused(tmp_path: Path) -> None:
    two = optuna.create_study(directions=["minimize", "maximize"])
    for trial, monitor, word in ((two.ask(), "a", "several objectives"), (3, "a", "a trial of Optuna"), (None, 4, "4")):
        with pytest.raises(MisconfigurationException, match=word):
            OptunaPruning(trial, monitor)  # type: ignore[arg-type]
    with pytest.raises(MisconfigurationException, match="None in the first process"):
        fit(tmp_path, None)
    fit(tmp_path, optuna.trial.FixedTrial({}), max_nb_epochs=2)  # keeps nothing, and never prunes


def test_another_run_of_the_same_trial_says_that_its_steps_are_taken(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    study = study_with()
    trial = study.ask()
    fit(tmp_path / "a", trial, max_nb_epochs=2)
    fit(tmp_path / "b", trial, max_nb_epochs=2)
    assert "[reported-before]" not in capfd.readouterr().err
    fit(tmp_path / "c", trial, model=Recorder(val_values=(7.0,)), max_nb_epochs=3)
    assert "reported as 3 before, which stays; val_loss is 7 now" in capfd.readouterr().err
    assert study.trials[0].intermediate_values == {0: 3.0, 1: 2.0, 2: 7.0}


def test_finders_leave_it_out(tmp_path: Path) -> None:
    trainer = Trainer(callbacks=[OptunaPruning(None, "tng_loss")], default_save_path=str(tmp_path))
    trainer.find_lr(Net(), nb_steps=30)  # where a fit would ask for the trial


def test_the_search_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "callbacks.md").read_text()
    model, search = (
        b for b in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "class Model" in b or "optuna" in b
    )
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {}
    exec(model + search.replace("n_trials=20", "n_trials=2"), space)
    states = [trial.state.name for trial in space["study"].trials]
    assert states == ["COMPLETE", "COMPLETE"]  # Optuna's pruner compares with five trials at least
    assert [len(trial.intermediate_values) for trial in space["study"].trials] == [5, 5]


# ------------------------------------------------------------------ killed
KILLED = """
import sys, warnings, optuna
from pathlib import Path
from pytorch_lightning.callbacks import OptunaPruning
from tests.callbacks.test_optuna_pruning import Watcher
from tests.recorder import Recorder, quiet_trainer

warnings.simplefilter("error", UserWarning)  # Optuna's, for a step that is reported twice
study = optuna.create_study(storage="sqlite:///search.db", study_name="s", load_if_exists=True)
trials = study.get_trials()
anew = not trials or sys.argv[1] == "anew"
trial = study.ask() if anew else optuna.trial.Trial(study, trials[0]._trial_id)
trainer = quiet_trainer(Path("."), callbacks=[OptunaPruning(trial, sys.argv[2])],
    max_nb_epochs=4, val_check_interval=0.5, save_every_nb_batches=3, resume="auto", nb_sanity_val_steps=0)
trainer.fit(Net())
"""
NET = """
from tests.callbacks.test_weight_averaging import Net as Base
class Net(Base):
    def training_step(self, data_batch, batch_nb):
        loss = super().training_step(data_batch, batch_nb)
        return {"loss": loss, "prog": {"own": loss}}
"""


def values_of(folder: Path) -> list[dict[int, float]]:
    study = optuna.load_study(storage=f"sqlite:///{folder / 'search.db'}", study_name="s")
    return [trial.intermediate_values for trial in study.trials]


@pytest.mark.parametrize("monitor", ["val_loss", "own"])
def test_a_killed_trial_has_each_step_once(tmp_path: Path, monitor: str) -> None:
    """Continued as the same trial, and as another one, which gets the steps before too."""
    whole = run_killed(tmp_path / "whole", "same", monitor, "")
    assert len(whole) == 1
    assert len(whole[0]) == (8 if monitor == "val_loss" else 4)
    point = "validation.end:3" if monitor == "val_loss" else "epoch.end:2"
    for how in ("same", "anew"):
        cut = run_killed(tmp_path / how, how, monitor, point)
        assert len(cut[0]) == (3 if monitor == "val_loss" else 2)
        ended = run_killed(tmp_path / how, how, monitor, "")
        assert ended[-1] == whole[0]
        assert len(ended) == (1 if how == "same" else 2)


def run_killed(folder: Path, how: str, monitor: str, fault: str) -> list[dict[int, float]]:
    folder.mkdir(exist_ok=True)
    program = folder / "program.py"
    program.write_text(NET + KILLED)
    ended = warm.run(run_example, str(program), str(folder), how, monitor, output=folder / "said", fault=fault)
    assert ended.code == (-signal.SIGKILL if fault else 0), ended.said
    assert "reported-before" not in ended.said
    return values_of(folder)


# ------------------------------------------------------------------ several processes
SEVERAL = """
import json, os, sys, optuna
from pathlib import Path
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import OptunaPruning
from tests.recorder import QUIET
NET

def reporting(trial, value, step):
    with open("reported", "a") as file:
        print(Net.rank(), step, file=file)
    report(trial, value, step)

report, optuna.Trial.report = optuna.Trial.report, reporting


class Net(Net):
    @staticmethod
    def rank():
        return trainer_of[0].proc_rank if trainer_of else -1

    def on_fit_start(self):
        trainer_of.append(self.trainer)
        with open("pids", "a") as file:
            print(os.getpid(), file=file)

trainer_of = []


def main(**options):
    storage = None if "in_memory" in sys.argv else "sqlite:///search.db"
    pruner = optuna.pruners.ThresholdPruner(lower=1e9, n_warmup_steps=1)
    study = trial = None
    if os.environ.get("RANK", "0") == "0":
        study = optuna.create_study(storage=storage, study_name="s", pruner=pruner)
        trial = study.ask()
    try:
        Trainer(callbacks=[OptunaPruning(trial)], default_save_path="logs", max_nb_epochs=9, **{**QUIET, **options}
            ).fit(Net())
        told = "no error"
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
    Path(f"told_{os.environ.get('RANK', '0')}.json").write_text(json.dumps(told))

if __name__ == "__main__":
    main(**json.loads(os.environ["OPTIONS"]))
""".replace("NET", NET)

PRUNED = r"TrialPruned: val_loss is "


def test_one_of_several_processes_reports_and_all_end_with_trial_pruned(tmp_path: Path) -> None:
    done = in_ranks(tmp_path, SEVERAL, OPTIONS="{}")
    assert done.returncode == 0, done.stderr
    told = [json.loads((tmp_path / f"told_{rank}.json").read_text()) for rank in range(2)]
    assert told[0] == told[1]
    assert told[0].startswith(PRUNED)
    assert (tmp_path / "reported").read_text().split() == ["0", "0", "0", "1"]
    assert list(values_of(tmp_path)[0]) == [0, 1]


@pytest.mark.parametrize("in_memory", [False, True])
def test_processes_that_the_trainer_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool) -> None:
    """A study in memory, whose reports would be lost with the processes, is refused."""
    (tmp_path / "program.py").write_text(SEVERAL)
    monkeypatch.setenv("OPTIONS", json.dumps({"nb_processes": 2}))
    root = str(Path(__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", root)
    command = [sys.executable, "program.py", *(["in_memory"] if in_memory else [])]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "told_0.json").read_text())
    if in_memory:
        assert "the study is in the memory of one process" in told
    else:
        assert told.startswith(PRUNED)
        assert (tmp_path / "reported").read_text().split() == ["0", "0", "0", "1"]
        assert list(values_of(tmp_path)[0]) == [0, 1]
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()] if (tmp_path / "pids").exists() else []
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_a_trial_of_all_processes_is_refused() -> None:
    class TorchDistributedTrial(optuna.trial.FixedTrial):
        """Its name is what counts."""

    with pytest.raises(MisconfigurationException, match="only the first process reports"):
        OptunaPruning(TorchDistributedTrial({}))
