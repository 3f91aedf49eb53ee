"""What else may happen around a run: locks, races, disks, clocks, memory, other folders and shells."""

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.checkpoints import folders, store
from pytorch_lightning.checkpoints.store import read_checkpoint
from pytorch_lightning.errors import CheckpointError
from pytorch_lightning.printing import STDERR
from tests.faults import surroundings, warm
from tests.faults.killing import CONFIGURATIONS, Reference, kill_at_point, result_of, run_to_the_end, train
from tests.faults.models import Network
from tests.faults.surroundings import wait_for_saves
from tests.recorder import Recorder, quiet_trainer

References = Callable[[str], Reference]
PLAIN = CONFIGURATIONS["plain"]
ROOT = Path(__file__).parents[2]
SHARED_MEMORY = Path("/dev/shm")


@pytest.mark.parametrize("how", ["full disk", "reader gone", "closed", "none"])
def test_output_that_nobody_takes_ends_no_fit(tmp_path: Path, references: References, how: str) -> None:
    # not its exit code: multiprocessing can't flush stdout either
    warm.run(surroundings.train_silenced, str(tmp_path), how, output=tmp_path / "said")
    assert result_of(tmp_path) == references("plain").result


def test_a_line_of_tqdm_clears_the_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    tqdm = pytest.importorskip("tqdm").tqdm
    said = io.StringIO()
    monkeypatch.setattr("sys.stderr", said)
    with tqdm(total=3, file=STDERR) as bar:
        bar.update()
        tqdm.write("a line", file=sys.stderr)
    assert said.getvalue().partition("a line")[0].endswith("\r")


# ------------------------------------------------------------------------------------------------- locks and races
@pytest.mark.parametrize("open_file_locks", [True, False], ids=["open file locks", "as on macOS"])
def test_a_lock_outlives_what_opens_its_file_and_goes_with_its_process(tmp_path: Path, open_file_locks: bool) -> None:
    folder, said = tmp_path / "run", tmp_path / "said"
    holder = warm.started(surroundings.hold, str(folder), open_file_locks, True, output=tmp_path / "holder")
    deadline = time.monotonic() + 60
    while not (folder / "held").exists():
        assert time.monotonic() < deadline, (tmp_path / "holder").read_text()
        time.sleep(0.01)
    refused = warm.run(surroundings.take, str(folder), open_file_locks, output=said)
    assert (refused.code, f"in use by process {holder.pid}" in refused.said) == (1, True), refused.said
    children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()
    holder.kill()
    holder.join()
    try:
        assert warm.run(surroundings.take, str(folder), open_file_locks, output=said).code == 0, "though a fork lives"
    finally:
        for child in children:
            os.kill(int(child), signal.SIGKILL)


def test_a_backup_of_a_running_run_lets_nobody_in(tmp_path: Path) -> None:
    class Backed(Network):
        second: Any = None

        def on_epoch_end(self) -> None:
            wait_for_saves()
            shutil.copytree(tmp_path / "runs/Backed", tmp_path / "backup", dirs_exist_ok=True)
            if Backed.second is None:
                folder = f"{tmp_path}/runs/Backed/version_0/checkpoints"
                Backed.second = warm.run(surroundings.take, folder, True, output=tmp_path / "said")

    train(str(tmp_path / "runs"), PLAIN, Backed())
    assert Backed.second.code == 1
    assert f"in use by process {os.getpid()}" in Backed.second.said


@pytest.mark.parametrize("moment", ["between list and look", "between two looks"])
def test_a_start_while_another_run_removes_its_saves(
    tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The live run has written a newer save meanwhile, which is found."""
    quiet_trainer(tmp_path, max_nb_steps=2, save_every_nb_batches=1).fit(Recorder())
    (old,) = (tmp_path / "logs/Recorder/version_0/checkpoints").glob("step-*.ckpt")
    quiet_trainer(tmp_path / "other", save_every_nb_batches=2).fit(Recorder(nb_batches=3))
    checkpoint = read_checkpoint(next((tmp_path / "other").rglob("step-*.ckpt")))
    checkpoint["parts"]["run"]["finished"] = False
    store.write_checkpoint(checkpoint, tmp_path / "new.ckpt")

    def move_on(*_: Any) -> None:
        if old.exists():
            (tmp_path / "new.ckpt").rename(old.with_name("step-000000000003.ckpt"))
            old.unlink()

    if moment == "between list and look":
        names = folders.LocalFolder.names
        monkeypatch.setattr(folders.LocalFolder, "names", lambda self: (names(self), move_on())[0])
    else:
        look = store._look_at
        monkeypatch.setattr(store, "_look_at", lambda *a, **o: (look(*a, **o), move_on())[0])
    assert quiet_trainer(tmp_path, silence=("not-shuffled",)).fit(Recorder()) == 1
    assert "unfinished run (epoch 1, global_step 3)" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------------- disks
def test_what_a_save_counts_on_is_on_the_disk_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: dict[str, int] = {}
    fsync, replace, nb_saves = os.fsync, os.replace, []

    def spy(handle: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        synced[str(path)] = path.read_bytes().count(b"\n") if path.name == "metrics.csv" else 0
        fsync(handle)

    def place(source: Any, target: Any) -> None:
        if Path(target).name.startswith("step-"):
            run = tmp_path / "a/runs/Recorder/version_0"
            state = read_checkpoint(source)["parts"]["loggers"]["CSVLogger_0"]
            assert synced.get(str(run / "metrics.csv"), 1) - 1 >= state["rows"]
            names = {str(path) for path in (run / "meta_tags.csv", run, run.parent, *run.parents[1:3], tmp_path)}
            assert names <= set(synced)
            nb_saves.append(state["rows"])
        replace(source, target)

    monkeypatch.setattr(os, "fsync", spy)
    monkeypatch.setattr(os, "replace", place)

    class Recording(Recorder):
        def on_batch_end(self) -> None:
            wait_for_saves()

    Recording.__name__ = "Recorder"
    options: dict[str, Any] = {"resume": "auto", "save_every_nb_batches": 2, "add_log_row_interval": 1}
    quiet_trainer(tmp_path, **{**options, "default_save_path": tmp_path / "a/runs"}).fit(Recording(nb_batches=6))
    assert nb_saves == [0, 2, 4, 6, 7]


class Spoiling(Network):
    """Does something to a folder after some batches."""

    spoil: Callable[["Spoiling"], None]
    holder: Any = None

    def on_batch_end(self) -> None:
        super().on_batch_end()
        type(self).spoil(self)


def test_a_folder_of_saves_that_was_removed_is_made_again_and_held(tmp_path: Path, references: References) -> None:
    class Removing(Spoiling):
        def spoil(self) -> None:
            folder = tmp_path / "Network/version_0/checkpoints"
            if self.global_step == 9:
                wait_for_saves()
                shutil.rmtree(folder)
            if self.global_step == 19:
                refused = warm.run(surroundings.take, str(folder), True, output=tmp_path / "said")
                assert f"in use by process {os.getpid()}" in refused.said

    Removing.__name__ = "Network"
    train(str(tmp_path), PLAIN, Removing())
    assert result_of(tmp_path) == references("plain").result
    assert list(tmp_path.glob("Network/version_0/checkpoints/step-*.ckpt"))


@pytest.mark.parametrize("lasts", [True, False])
def test_a_folder_of_saves_that_cannot_be_written_has_three_tries(
    tmp_path: Path, lasts: bool, capsys: pytest.CaptureFixture[str], references: References
) -> None:
    folder = tmp_path / "Network/version_0/checkpoints"

    class Blocking(Spoiling):
        def spoil(self) -> None:
            if self.global_step == 4:
                wait_for_saves()
                folder.rename(tmp_path / "away")
                folder.touch()
            if self.global_step == 9 and not lasts:
                wait_for_saves()
                folder.unlink()
                (tmp_path / "away").rename(folder)
            if self.global_step == 19 and not lasts:
                refused = warm.run(surroundings.take, str(folder), True, output=tmp_path / "said")
                assert f"in use by process {os.getpid()}" in refused.said

    Blocking.__name__ = "Network"
    if lasts:
        with pytest.raises(CheckpointError, match="can't be written"):
            train(str(tmp_path), PLAIN, Blocking())
        folder.unlink()
        (tmp_path / "away").rename(folder)
    else:
        train(str(tmp_path), PLAIN, Blocking())
    assert 1 <= capsys.readouterr().err.count("Training continues; the next save tries again.") <= 2
    if lasts:
        assert run_to_the_end(tmp_path, "plain") == references("plain").result
    else:
        assert result_of(tmp_path) == references("plain").result


@pytest.mark.parametrize("nb_failing", [2, 3])
def test_a_file_of_model_checkpoint_has_three_tries(
    tmp_path: Path, nb_failing: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that wasn't written takes no place among the best."""
    folder = tmp_path / "best"

    class Blocking(Recorder):
        def on_epoch_start(self) -> None:
            if self.current_epoch == 1:
                folder.rename(tmp_path / "away")
                folder.touch()
            elif self.current_epoch == 1 + nb_failing:
                folder.unlink()
                (tmp_path / "away").rename(folder)

    keeper = ModelCheckpoint(folder, save_top_k=2)
    trainer = quiet_trainer(tmp_path, checkpoint_callback=keeper, max_nb_epochs=4)
    model = Blocking(val_values=(4.0, 3.0, 2.0, 1.0))
    if nb_failing == 3:
        with pytest.raises(CheckpointError, match=r"_ckpt_epoch_4\.ckpt can't be written"):
            trainer.fit(model)
    else:
        assert trainer.fit(model) == 1
        assert sorted(path.name for path in folder.iterdir()) == ["_ckpt_epoch_1.ckpt", "_ckpt_epoch_4.ckpt"]
        assert keeper.best_path == str(folder / "_ckpt_epoch_4.ckpt")
    assert capsys.readouterr().err.count("Training continues; the next save tries again.") == 2


def test_a_folder_of_saves_that_another_run_took_is_not_written(tmp_path: Path) -> None:
    """Removed, and taken by a run that began meanwhile: no try writes without the lock."""
    folder = tmp_path / "Network/version_0/checkpoints"

    class Removing(Spoiling):
        def spoil(self) -> None:
            if self.global_step == 4:
                wait_for_saves()
                shutil.rmtree(folder)
                Removing.holder = warm.started(surroundings.hold, str(folder), True, False, output=tmp_path / "holder")
                while not (folder / "held").exists():
                    time.sleep(0.01)

    Removing.__name__ = "Network"
    try:
        with pytest.raises(CheckpointError, match="in use by process"):
            train(str(tmp_path), PLAIN, Removing())
        assert list(folder.glob("step-*")) == []
    finally:
        Removing.holder.kill()
        Removing.holder.join()


def test_what_a_program_does_wrong_in_a_checkpoint_is_an_error_at_once(tmp_path: Path) -> None:
    class Changing(Recorder):
        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            checkpoint["epoch"] = 9

    trainer = quiet_trainer(tmp_path, checkpoint_callback=ModelCheckpoint(tmp_path / "best"), max_nb_epochs=3)
    with pytest.raises(CheckpointError, match="changed the keys"):
        trainer.fit(Changing())
    assert trainer.current_epoch == 0


def test_a_save_that_a_program_asked_for_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    class Asking(Recorder):
        def on_batch_end(self) -> None:
            self.trainer.save_checkpoint(tmp_path / "file/a.ckpt")

    with pytest.raises(CheckpointError, match=r"a\.ckpt can't be written"):
        quiet_trainer(tmp_path).fit(Asking())


@pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="no second file system")
@pytest.mark.parametrize("linked", [False, True])
def test_a_folder_on_another_file_system(tmp_path: Path, references: References, linked: bool) -> None:
    elsewhere = SHARED_MEMORY / f"plc_{os.getpid()}_{linked}"
    elsewhere.mkdir()
    try:
        assert elsewhere.stat().st_dev != tmp_path.stat().st_dev
        folder = tmp_path / "link" if linked else elsewhere
        if linked:
            folder.symlink_to(elsewhere)
        assert kill_at_point(folder, "validations", "batch.run:11")
        assert run_to_the_end(folder, "validations") == references("validations").result
    finally:
        shutil.rmtree(elsewhere)


@pytest.mark.parametrize("where", ["elsewhere", "gone", "a file", "long"])
def test_temporary_files_elsewhere(tmp_path: Path, references: References, where: str) -> None:
    """Where nothing can be written to TMPDIR, Python takes another folder."""
    temporary = tmp_path / ("x" * 120 if where == "long" else where)
    if where == "a file":
        temporary.touch()
    elif where != "gone":
        temporary.mkdir()
    ended = warm.run(surroundings.train_elsewhere, str(tmp_path), "windows", str(temporary), output=tmp_path / "said")
    assert ended.code == 0, ended.said
    assert result_of(tmp_path) == references("windows").result
    if where == "elsewhere":
        assert any(path.name.startswith("fast_dev_run") for path in temporary.iterdir())


# ------------------------------------------------------------------------------------------- clocks, memory, shells
@pytest.mark.parametrize("seconds", [-3e8, 3e8], ids=["back by ten years", "ahead by ten years"])
def test_a_clock_that_jumps_while_training_changes_nothing(
    tmp_path: Path, references: References, seconds: float
) -> None:
    said, saves = tmp_path / "said", tmp_path.glob("Jumping/version_0/checkpoints/step-*.ckpt")
    # what is jumped: the names of files, the dates of rows, and when saves are due
    jump = (surroundings.train_with_a_jump, str(tmp_path), "plain", seconds)
    ended = warm.run(*jump, output=said, fault="batch.run:12")
    assert ended.code == -signal.SIGKILL, ended.said
    assert [path.name for path in saves]
    for path in tmp_path.rglob("*.ckpt"):
        os.utime(path, (time.time() + seconds, time.time() + seconds))
    ended = warm.run(*jump, output=said)
    assert ended.code == 0, ended.said
    theirs, ours = references("plain").result, result_of(tmp_path)
    assert (ours.state, ours.rows) == (theirs.state, theirs.rows)


@pytest.mark.parametrize("how", ["limit", "kill"])
def test_a_program_that_runs_out_of_memory_resumes(tmp_path: Path, references: References, how: str) -> None:
    ended = warm.run(surroundings.train_within, str(tmp_path), "plain", how, output=tmp_path / "said")
    if how == "limit":
        assert (ended.code, "raised while fitting Growing (epoch 1, batch_nb 3)" in ended.said) == (1, True), ended.said
    else:
        assert ended.code == -signal.SIGKILL, ended.said
    (tmp_path / "Growing").rename(tmp_path / "Network")
    assert run_to_the_end(tmp_path, "plain") == references("plain").result


IN_A_SHELL = """
import os, signal
from pytorch_lightning import Trainer
from tests.recorder import QUIET, Recorder
class Stopping(Recorder):
    def on_batch_end(self):
        if self.global_step == 2 and stops: os.kill(os.getpid(), signal.SIGINT)
stops = True
trainer = Trainer(**{**QUIET, "progress_bar": True}, max_nb_epochs=1)
print("returned", trainer.fit(Stopping()))
print("handler", signal.getsignal(signal.SIGINT) is signal.default_int_handler)
stops, model = False, Stopping()
print("returned", Trainer(**QUIET, max_nb_epochs=1, resume="auto").fit(model), "weight", model.weight.item())
"""


def test_ipython_trains_is_interrupted_and_resumes(tmp_path: Path) -> None:
    """In cells: a class of the shell's own, Ctrl-C in a fit, and a resume in the same shell."""
    cells = [*IN_A_SHELL.strip().split("\nstops = True\n")]
    program = (
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance()\n"
        f"for cell in {[cells[0], 'stops = True', *cells[1].splitlines()]!r}:\n"
        "    shell.run_cell(cell).raise_error()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "IPYTHONDIR": str(tmp_path / "ipy")}
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    assert "Ctrl-C: the fit completes this step and saves the state" in ended.stdout
    weight = 0.0
    for _ in range(4):
        weight -= 0.1 * 2 * (weight - 3.0)
    said = [line for line in ended.stdout.splitlines() if line.startswith(("returned", "handler"))]
    assert said[:2] == ["returned 0", "handler True"]
    assert said[2].startswith("returned 1 weight")
    assert float(said[2].split()[-1]) == pytest.approx(weight)


# ------------------------------------------------------------------------------------------------------ callbacks
def test_early_stopping_knows_its_epoch_right_after_a_reload(tmp_path: Path) -> None:
    def start() -> tuple[Any, EarlyStopping]:
        stop = EarlyStopping("val_loss", patience=2)
        trainer = quiet_trainer(tmp_path, early_stop_callback=stop, resume="auto", max_nb_epochs=9)
        trainer.fit(Recorder(val_values=(1.0, 2.0, 3.0)))
        return trainer, stop

    first, again = start(), start()
    assert (first[1].stopped_epoch, again[1].stopped_epoch) == (2, 2)
    assert again[0].global_step == first[0].global_step == 12
