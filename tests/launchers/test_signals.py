"""A signal ends a fit where its state is whole, and nothing is lost."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.launchers import program
from tests.launchers.signalled import result_of, run, run_script, saves_of
from tests.recorder import Recorder, quiet_trainer


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert run(folder).code == 0
    return program.outcome(folder)


def test_what_is_sent_in_a_step_ends_the_program_after_it(tmp_path: Path, undisturbed: Any) -> None:
    for name in ("SIGTERM", "SIGUSR1", "SIGUSR2"):
        folder = tmp_path / name
        code, said = run(folder, send=("step", 5, "self", [name, name]))
        assert code == 75, said
        assert f"stopped by {name} (global_step 6): run the same command with resume='auto' to resume" in said
        assert saves_of(folder) == ["step-000000000006.ckpt"], "also without resume"
        assert run(folder, resume="auto").code == 0
        assert program.outcome(folder) == undisturbed


@pytest.mark.parametrize("context", ["fork", "spawn"])
@pytest.mark.parametrize("place", ["step", "sample"])
def test_workers_of_loaders_survive_what_the_whole_group_gets(
    tmp_path: Path, undisturbed: Any, place: str, context: str
) -> None:
    for name in ("SIGTERM", "SIGUSR1", "SIGINT"):
        folder = tmp_path / name
        number = 5 if place == "step" else 1
        runner = run if context == "fork" else run_script
        code, said = runner(folder, workers=2, context=context, send=(place, number, "group", [name]))
        assert (code, "orker" in said) == (0 if name == "SIGINT" else 75, False), said
        assert run(folder, resume="auto").code == 0
        assert program.outcome(folder) == undisturbed


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_workers_make_the_rest_of_a_window_after_a_signal(tmp_path: Path, name: str) -> None:
    """More batches than it had ahead: nine, of which the first is trained on. A forked one has handlers anyway."""
    options: dict[str, Any] = {"workers": 1, "context": "spawn", "nb_sanity_val_steps": 0}
    code, said = run_script(
        tmp_path, send=("step", 0, "group, from outside", [name]), accumulate_grad_batches=9, **options
    )
    assert (code, "orker" in said, "(global_step 9)" in said) == (75, False, True), said


def test_a_signal_in_the_last_step_of_an_epoch_leaves_its_validation_to_the_next_fit(
    tmp_path: Path, undisturbed: Any
) -> None:
    assert run(tmp_path, send=("step", 8, "self", ["SIGTERM"])).code == 75
    assert saves_of(tmp_path) == ["step-000000000009.ckpt"]
    assert run(tmp_path, resume="auto").code == 0
    assert program.outcome(tmp_path) == undisturbed


def test_a_signal_in_a_save_lets_it_be_written(tmp_path: Path, undisturbed: Any) -> None:
    code, said = run(tmp_path, send=("save", 3, "self", ["SIGTERM"]), resume="auto", save_every_nb_batches=2)
    assert code == 75, said
    assert run(tmp_path, resume="auto").code == 0
    assert program.outcome(tmp_path) == undisturbed


def test_a_validation_is_left_where_the_state_before_it_is_saved(tmp_path: Path, undisturbed: Any) -> None:
    code, said = run(tmp_path, send=("validation", 2, "self", ["SIGTERM"]), resume="auto", save_every_nb_batches=9)
    assert (code, "global_step 9" in said) == (75, True), said
    # the rest of it would have been logged
    assert "val_loss" not in next(tmp_path.glob("lightning_logs/*/*/metrics.csv")).read_text()
    assert run(tmp_path, resume="auto").code == 0
    assert program.outcome(tmp_path) == undisturbed


def test_a_validation_is_finished_where_nothing_is_saved_yet(tmp_path: Path, undisturbed: Any) -> None:
    code, said = run(tmp_path, send=("validation", 2, "self", ["SIGTERM"]))
    assert (code, saves_of(tmp_path)) == (75, ["step-000000000009.ckpt"]), said
    assert run(tmp_path, resume="auto").code == 0
    assert program.outcome(tmp_path) == undisturbed


def test_a_signal_before_training_ends_the_program_with_nothing_lost(tmp_path: Path, undisturbed: Any) -> None:
    for resume in (None, "auto"):
        code, said = run(tmp_path, send=("sanity", 0, "self", ["SIGTERM"]), resume=resume)
        hint = "stopped by SIGTERM (global_step 0): nothing is lost, since training hadn't begun: run the same command"
        assert (code, hint in said) == (75, True), said
        assert list(tmp_path.glob("lightning_logs/*/*")) == [], "and nothing is left"
    assert run(tmp_path, resume="auto").code == 0
    assert program.outcome(tmp_path) == undisturbed


def test_ctrl_c_returns_to_the_caller_once_the_state_is_saved(tmp_path: Path, undisturbed: Any) -> None:
    assert run(tmp_path, send=("step", 5, "self", ["SIGINT"])) == (0, "interrupted: training isn't complete\n")
    result = result_of(tmp_path)
    assert (result["returned"], result["interrupted"], result["step"], result["restored"]) == (0, True, 6, True)
    assert saves_of(tmp_path) == ["step-000000000006.ckpt"]
    assert run(tmp_path, resume="auto").code == 0
    assert program.outcome(tmp_path) == undisturbed


def test_a_second_ctrl_c_ends_the_fit_at_once(tmp_path: Path, undisturbed: Any) -> None:
    options: dict[str, Any] = {"resume": "auto", "save_every_nb_batches": 4}
    code, _ = run(tmp_path, send=("step", 6, "self", ["SIGINT", "SIGINT"]), **options)
    result = result_of(tmp_path)
    assert (code, result["returned"], result["interrupted"], result["step"]) == (0, 0, True, 6)
    assert "step-000000000006.ckpt" not in saves_of(tmp_path)
    assert run(tmp_path, resume="auto").code == 0
    assert program.outcome(tmp_path) == undisturbed


def test_a_handler_of_the_program_is_called_after_the_save(tmp_path: Path) -> None:
    code, said = run(tmp_path, send=("step", 5, "self", ["SIGTERM"]), ignores=True, code=75)
    assert (code, result_of(tmp_path)["told"], saves_of(tmp_path)) == (0, [15], ["step-000000000006.ckpt"]), said


def test_a_run_without_a_folder_ends_as_if_killed(tmp_path: Path) -> None:
    code, said = run(tmp_path, send=("step", 5, "self", ["SIGTERM"]), experiment=False)
    assert (code, "nothing was saved, since this run has no folder" in said) == (128 + 15, True), said


def test_a_signal_that_comes_when_training_is_complete_has_its_usual_effect(tmp_path: Path) -> None:
    code, said = run(tmp_path, send=("end", 0, "self", ["SIGTERM"]), resume="auto")
    assert code == -15, said
    assert saves_of(tmp_path) == ["step-000000000027.ckpt"]


def test_a_signal_that_the_program_ignores_stays_ignored(tmp_path: Path) -> None:
    """As that of a terminal that is closed is under nohup."""

    class Signalled(Recorder):
        def on_batch_end(self) -> None:
            os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        assert quiet_trainer(tmp_path).fit(Signalled()) == 1
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, before)
