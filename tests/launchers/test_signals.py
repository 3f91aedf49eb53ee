"""A signal ends a fit where its state is whole, and nothing is lost."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from pytorch_lightning.callbacks import Callback
from pytorch_lightning.errors import CheckpointError
from pytorch_lightning.resume import save_points
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


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.nightly)])
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


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_validation_is_left_at_once_also_without_resume(tmp_path: Path, undisturbed: Any, name: str) -> None:
    """The program counts the batches of validations in an attribute: what it counted in this one isn't saved."""
    code, said = run(tmp_path, send=("validation", 2, "self", [name]))
    assert (code, saves_of(tmp_path)) == (0 if name == "SIGINT" else 75, ["step-000000000009.ckpt"]), said
    assert "val_loss" not in next(tmp_path.glob("lightning_logs/*/*/metrics.csv")).read_text(), "it wasn't finished"
    assert ("Ctrl-C: the fit leaves the validation and saves the state" in said) == (name == "SIGINT")
    assert run(tmp_path, resume="auto").code == 0
    assert program.outcome(tmp_path) == undisturbed


def test_a_validation_is_left_where_nothing_can_be_saved(tmp_path: Path) -> None:
    code, said = run(tmp_path, send=("validation", 2, "self", ["SIGINT"]), experiment=False)
    assert (code, result_of(tmp_path)["interrupted"]) == (0, True), said
    assert "Ctrl-C: the fit leaves the validation and saves nothing, since it has no folder" in said
    assert list(tmp_path.glob("lightning_logs/*/*")) == []


class Averaging(Recorder):
    """Validates other weights than those that it trains, counts in attributes and a buffer, and draws."""

    stop_at: ClassVar[int | None] = None
    swaps: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen_by_validation", torch.zeros(1))
        self.drawn: list[float] = []
        self.nb_validated = 0

    def on_pre_performance_check(self) -> None:
        self.drawn.append(float(torch.rand(())))
        self.kept = self.weight.detach().clone()
        if Averaging.swaps:
            self.weight.data.mul_(0.5)

    def on_post_performance_check(self) -> None:
        self.weight.data.copy_(self.kept)

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        self.nb_validated += 1
        self.seen_by_validation += 1
        if self.nb_validated == Averaging.stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        return super().validation_step(data_batch, batch_nb)


class Counting(Averaging):
    on_pre_performance_check = Recorder.on_pre_performance_check
    on_post_performance_check = Recorder.on_post_performance_check

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        self.experiment.log({"validated": self.nb_validated})
        return super().validation_step(data_batch, batch_nb)

    def on_epoch_end(self) -> None:
        self.drawn.append(float(torch.rand(())))


@pytest.mark.parametrize("kind", [Averaging, Counting])
@pytest.mark.parametrize("resume", [None, "auto"])
def test_what_a_validation_that_was_left_had_changed_is_not_saved(
    tmp_path: Path, kind: type[Averaging], resume: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights that a hook puts aside for the validation can't be told from trained ones: there it is completed."""
    ends = {}
    for stop_at in (5, None):
        Averaging.stop_at, Averaging.swaps = stop_at, kind is Averaging
        model, options = kind(), {"max_nb_epochs": 3, "save_every_minutes": 0}
        if stop_at is not None:
            assert quiet_trainer(tmp_path / "cut", resume=resume, **options).fit(model) == 0
            word = "completes" if kind is Averaging else "leaves"
            assert f"Ctrl-C: the fit {word} the validation and saves the state" in capsys.readouterr().out
            Averaging.stop_at, model = None, kind()
        trainer = quiet_trainer(tmp_path / ("whole" if stop_at is None else "cut"), resume="auto", **options)
        assert trainer.fit(model) == 1
        rows = next((tmp_path / ("whole" if stop_at is None else "cut")).rglob("metrics.csv")).read_text().count("\n")
        ends[stop_at] = (model.weight.item(), model.nb_validated, float(model.seen_by_validation), model.drawn, rows)
    assert ends[5] == ends[None]
    assert ends[5][1:3] == (9, 9.0), "three validations of three batches, none twice"


@pytest.mark.parametrize(("longest", "word"), [(3600.0, "completes"), (0.0, "leaves")])
def test_after_many_short_validations_one_is_completed(
    tmp_path: Path, longest: float, word: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(save_points, "SHORT", longest)
    Averaging.swaps, options = False, {"max_nb_epochs": save_points.MANY + 2, "save_every_minutes": 0}
    ends = []
    for stop_at in (3 * save_points.MANY + 2, None):
        Averaging.stop_at, model, folder = stop_at, Counting(), tmp_path / ("whole" if stop_at is None else "cut")
        if stop_at is not None:
            assert quiet_trainer(folder, **options).fit(model) == 0
            assert f"Ctrl-C: the fit {word} the validation and saves the state" in capsys.readouterr().out
            Averaging.stop_at, model = None, Counting()
        assert quiet_trainer(folder, resume="auto", **options).fit(model) == 1
        rows = next(folder.rglob("metrics.csv")).read_text().count("\n")
        ends.append((model.weight.item(), model.nb_validated, float(model.seen_by_validation), model.drawn, rows))
    assert ends[0] == ends[1]


class Locked(Callback):
    def state_dict(self) -> dict[str, Any]:
        return {"lock": threading.Lock()}


def test_a_state_that_cannot_be_copied_completes_the_validation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Averaging.stop_at, Averaging.swaps = 5, False
    with pytest.raises(CheckpointError, match="lock"):
        quiet_trainer(tmp_path, callbacks=[Locked()], max_nb_epochs=3).fit(Counting())
    assert "Ctrl-C: the fit completes the validation" in capsys.readouterr().out
    Averaging.stop_at = None
    assert quiet_trainer(tmp_path, callbacks=[Locked()]).fit(Counting()) == 1


def test_a_signal_before_training_ends_the_program_with_nothing_lost(tmp_path: Path, undisturbed: Any) -> None:
    for resume in (None, "auto"):
        code, said = run(tmp_path, send=("sanity", 0, "self", ["SIGTERM"]), resume=resume)
        hint = "stopped by SIGTERM (global_step 0): nothing is lost, since training hadn't begun: run the same command"
        assert (code, hint in said) == (75, True), said
        assert list(tmp_path.glob("lightning_logs/*/*")) == [], "and nothing is left"
    assert run(tmp_path, resume="auto").code == 0
    assert program.outcome(tmp_path) == undisturbed


def test_ctrl_c_returns_to_the_caller_once_the_state_is_saved(tmp_path: Path, undisturbed: Any) -> None:
    said = (
        "Ctrl-C: the fit completes this step and saves the state (again: ends at once)\n"
        "interrupted: training isn't complete\n"
    )
    assert run(tmp_path, send=("step", 5, "self", ["SIGINT"])) == (0, said)
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


@pytest.mark.parametrize("before", [signal.SIG_DFL, "handler"])
def test_what_a_hook_forks_ends_by_a_signal(tmp_path: Path, before: Any) -> None:
    """As the workers of a ``multiprocessing.Pool`` must: it waits for them."""
    ended = []

    class Forking(Recorder):
        def on_batch_end(self) -> None:
            told, tell = os.pipe()
            child = os.fork()
            if not child:
                os.write(tell, b".")  # python forgets what comes earlier
                time.sleep(30)
                os._exit(0)
            os.read(told, 1)
            os.kill(child, signal.SIGTERM)
            ended.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    def exits(number: int, frame: Any) -> None:
        os._exit(7)

    usual = signal.signal(signal.SIGTERM, exits if before == "handler" else before)
    try:
        assert quiet_trainer(tmp_path, max_nb_epochs=1).fit(Forking()) == 1
        assert signal.getsignal(signal.SIGTERM) == (exits if before == "handler" else before)
    finally:
        signal.signal(signal.SIGTERM, usual)
    assert {*ended} == {7 if before == "handler" else -signal.SIGTERM}


def test_what_is_forked_in_a_job_before_fit_ends_by_a_signal(tmp_path: Path) -> None:
    program = """
import os, signal, time
from pytorch_lightning import Trainer
Trainer(default_save_path=".")
assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL  # kept for the fit
told, tell = os.pipe()
child = os.fork()
if not child:
    os.write(tell, b".")
    time.sleep(30)
    os._exit(0)
os.read(told, 1)
os.kill(child, signal.SIGTERM)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    job = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_JOB_NAME": "x"}
    told = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **job}, cwd=tmp_path, capture_output=True, text=True
    )
    assert told.stdout.split()[-1:] == ["-15"], told.stderr
