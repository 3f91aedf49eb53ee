"""Processes that the Trainer starts itself."""

import csv
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from test_tube import Experiment

import pytorch_lightning
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.errors import MisconfigurationException
from pytorch_lightning.loggers import CSVLogger
from tests.launchers import program
from tests.launchers.nets import Net, NotingTrainer, trainer
from tests.launchers.signalled import run, run_script, saves_of, session_of

ROOT = Path(pytorch_lightning.__file__).parent.parent


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if value and key != "created_at"} for row in rows]


def run_program(arguments: list[str], folder: Path, code: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run python on ``code``, given on stdin, or as ``arguments`` say."""
    variables = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, input=code, env=variables, cwd=folder, capture_output=True, text=True, timeout=200)


def watched(folder: Path, **options: Any) -> Trainer:
    """A Trainer with everything that has a state to bring home. The learning rate is so cut that epoch 3 is worse."""
    return trainer(
        folder,
        experiment=Experiment(save_dir=str(folder), name="exp"),
        early_stop_callback=EarlyStopping(min_delta=1.0, patience=2),
        checkpoint_callback=ModelCheckpoint(folder / "best", save_best_only=True),
        max_nb_epochs=6,
        virtual_ranks=2,
        **options,
    )


def fit_and_go_on(folder: Path, **options: Any) -> tuple[Trainer, Net, dict[str, Any]]:
    """A fit, and what users read afterwards."""
    there, model = watched(folder, **options), Net()
    assert there.fit(model) == 1
    assert multiprocessing.active_children() == []
    names = ("current_epoch", "global_step", "nb_tng_batches", "nb_val_batches", "tqdm_metrics", "seed")
    (adam,), (schedule,) = there.optimizers, there.lr_schedulers
    after = {
        **{name: getattr(there, name) for name in names},
        "weights": [value.tolist() for value in model.state_dict().values()],
        "stop": there.progress.stop_reason,
        "early": there.early_stop_callback.state_dict(),
        "best": Path(there.checkpoint_callback.best_path).name,
        "exp_avg": adam.state[model.layer.weight]["exp_avg"].tolist(),
        "lr": schedule.get_last_lr(),
    }
    assert [str(path) for path in (folder / "best").iterdir()] == [there.checkpoint_callback.best_path]
    there.experiment.log({"afterwards": 1.0})
    after["test"] = there.test(ckpt="best")
    there.experiment.log({"at the end": 2.0})
    there.experiment.save()
    there.save_checkpoint(folder / "last.ckpt")
    after["rows"] = rows_of(folder / "exp" / "version_0")
    assert len(list((folder / "exp").iterdir())) == 1, "no other process made a version"
    return there, model, after


def test_after_a_fit_in_two_processes_everything_is_as_after_one_here(tmp_path: Path) -> None:
    here, _, expected = fit_and_go_on(tmp_path / "alone")
    there, _, after = fit_and_go_on(tmp_path / "several", nb_processes=2)
    assert after == expected
    assert after["stop"].startswith("early stopping: val_loss didn't improve")
    assert [sorted(row) for row in after["rows"][-3:]][::2] == [["afterwards"], ["at the end"]]
    assert (there.use_ddp, here.use_ddp, there.proc_rank) == (True, False, 0)
    assert multiprocessing.active_children() == []

    first, second = (torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("alone", "several"))
    for key in ("epoch", "global_step", "optimizer_states", "lr_schedulers"):
        torch.testing.assert_close(second[key], first[key], rtol=0, atol=0)
    last = tmp_path / "several" / "last.ckpt"
    stop = EarlyStopping(min_delta=1.0, patience=2)
    options: Any = {"experiment": False, "early_stop_callback": stop, "silence": ("absent-callbacks",)}
    resumed = trainer(tmp_path / "resumed", resume=last, max_nb_epochs=7, **options)
    assert resumed.fit(Net()) == 1
    assert resumed.progress.state_dict() == {**there.progress.state_dict(), "seconds": resumed.progress.seconds}


def test_an_experiment_whose_version_is_not_that_of_the_run_keeps_it(tmp_path: Path) -> None:
    """The logger before it had an earlier run, and holds the saves."""
    (tmp_path / "csv/version_0").mkdir(parents=True)
    for nb_epochs in (1, 2):
        experiment = Experiment(save_dir=str(tmp_path), name="exp")
        loggers = [CSVLogger(tmp_path, "csv"), experiment]
        trainer(tmp_path, experiment=loggers, nb_processes=2, resume="auto", max_nb_epochs=nb_epochs).fit(Net())
        experiment.log({"after": 1.0})
        experiment.save()
        assert experiment.version == 0
        assert [path.name for path in (tmp_path / "exp").iterdir()] == ["version_0"]
        assert sorted(path.name for path in (tmp_path / "csv").iterdir()) == ["version_0", "version_1"]
        assert "after" in rows_of(tmp_path / "exp/version_0")[-1]


def test_the_best_file_of_processes_that_wrote_elsewhere_is_the_one_that_is_read(tmp_path: Path) -> None:
    """A ``fast_dev_run`` writes to a temporary folder, and a resumed run to that of its version."""
    kept = tmp_path / "kept" / "_ckpt_epoch_1.ckpt"
    keeper, stale = ModelCheckpoint(kept.parent), Net()
    trainer(tmp_path, checkpoint_callback=ModelCheckpoint(kept.parent), max_nb_epochs=1).fit(stale)
    model, trial = Net(), trainer(tmp_path, checkpoint_callback=keeper, fast_dev_run=True, nb_processes=2)
    trial.fit(model)
    trained = model.layer.weight.detach().clone()
    assert keeper.best_path != str(kept)
    trial.test(model, ckpt="best")
    assert torch.equal(model.layer.weight, trained)
    assert not torch.equal(model.layer.weight, stale.layer.weight)

    def versioned(number: int, **options: Any) -> tuple[Trainer, ModelCheckpoint]:
        keeper = ModelCheckpoint(tmp_path / "versions" / f"version_{number}", save_best_only=True)
        fixed: dict[str, Any] = {"checkpoint_callback": keeper, "nb_processes": 2, "save_every_nb_batches": 1}
        return trainer(tmp_path / "runs", **{**fixed, **options}), keeper

    versioned(0, max_nb_epochs=1)[0].fit(Net())
    second, keeper = versioned(1, resume="auto")
    second.fit(model)
    assert keeper.best_path is not None
    assert Path(keeper.best_path).parent == tmp_path / "versions" / "version_0"
    assert Path(keeper.best_path).exists()
    assert second.test(model, ckpt="best")["val_loss"] == pytest.approx(keeper.best)


def test_predictions_come_in_the_loaders_order_and_rows_of_a_plain_run_continue(tmp_path: Path) -> None:
    model = Net()
    several = trainer(tmp_path, nb_processes=2)
    predicted = several.predict(model)
    expected = torch.cat([model(x) for x, _ in model.test_dataloader])
    assert torch.equal(torch.cat(predicted), expected)

    several.fit(model)
    metrics = several.validate()
    assert metrics["nb"] == 5, "the whole set"
    assert metrics["val_loss"] == pytest.approx(several.tqdm_metrics["val_loss"])
    rows = rows_of(tmp_path / "Net" / "version_0")
    assert [float(row["val_loss"]) for row in rows if "val_loss" in row][-1] == metrics["val_loss"]
    assert len([row for row in rows if "val_loss" in row]) == 3


MISHAPS = """
import json, multiprocessing, time, traceback
import torch._dynamo  # once here, and not in each copy
from tests.launchers.nets import Net, NotingTrainer, trainer
class Own(Net):  # known to this process alone
    pass
told = {}
for mishap in ("", "raise_own", "raise_ours", "die", "leave", "leave_well", "hang"):
    began = time.monotonic()
    try:
        options = {"process_timeout_minutes": 0.1} if mishap == "hang" else {}
        told[mishap] = [trainer("logs", nb_processes=2, experiment=False, **options).fit(Own(mishap))]
    except Exception as error:
        shown = "".join(traceback.format_exception(error))
        told[mishap] = [type(error).__name__, str(error), shown, f"{type(error.__cause__).__name__}: {error.__cause__}"]
    told[mishap].append(time.monotonic() - began)
    assert multiprocessing.active_children() == []
print(json.dumps(told))
"""


def test_the_first_error_of_any_process_is_the_one_that_is_raised(tmp_path: Path) -> None:
    """In a program that has no file, whose processes are copies and start at once."""
    done = run_program(["-"], tmp_path, MISHAPS)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told[""][0] == 1
    kind, message, shown, cause, _ = told["raise_own"]
    assert (kind, message) == ("ZeroDivisionError", "something of the user's own")
    assert cause.startswith("ProcessError: process 1 of 2 raised an exception:")
    assert "in raise_own" in shown
    own = "ZeroDivisionError: something of the user's own\nraised while fitting Own (epoch 0, batch_nb 1)\n"
    assert shown.endswith(own), "with the note of where it was raised"
    assert shown.count(own) == 2, "in the traceback of the process, and in that of the program"
    assert told["raise_ours"][:2] == ["FitError", "one of ours. (epoch 0, batch_nb 2)"]
    killed = "process 1 of 2 was killed by SIGKILL. The machine may have run out of memory."
    assert told["die"][:2] == ["ProcessError", killed]
    assert told["leave"][:2] == ["ProcessError", "process 1 of 2 left with exit code 7."]
    assert told["leave_well"][:2] == ["ProcessError", "process 1 of 2 left with exit code 0."]
    # the time that processes wait for each other is ten minutes, but for the last one
    assert all(told[mishap][-1] < 40 for mishap in ("raise_own", "raise_ours", "die", "leave", "leave_well"))

    kind, message, *_ = told["hang"]
    assert kind == "ProcessError"
    assert "process 0 of 2 raised an exception" in message
    assert "another process of this run has ended or hangs" in message
    stacks = done.stderr.splitlines()
    assert any("[rank 1] no batch has ended for" in line for line in stacks)
    assert len([s for s in stacks if s.startswith("[rank 1]") and "threading.Event().wait()" in s]) == 1, done.stderr
    # it waits for the gradients of the other one
    assert any(s.startswith("[rank 0]") and "in _engine_run_backward" in s for s in stacks), done.stderr


def test_what_cannot_be_sent_is_named_before_anything_starts(tmp_path: Path) -> None:
    model = Net()
    model.activation = lambda x: x  # type: ignore[assignment]
    with pytest.raises(MisconfigurationException, match=r"can't be sent to another process: .*lambda"):
        trainer(tmp_path, nb_processes=2).fit(model)


def test_several_machines_are_not_started_from_here(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match=r"torchrun --nnodes=2 --nproc-per-node=N .*or srun --nodes="):
        trainer(tmp_path, nb_gpu_nodes=2).fit(Net())
    assert not list(tmp_path.iterdir())


def test_virtual_ranks_that_processes_cannot_share_evenly_are_refused(tmp_path: Path) -> None:
    uneven = r"^2 processes can't share 3 virtual ranks evenly\. Start 1 or 3 processes, "
    with pytest.raises(MisconfigurationException, match=uneven + "or pass another virtual_ranks"):
        trainer(tmp_path, nb_processes=2, virtual_ranks=3).fit(Net())
    path = tmp_path / "begun.ckpt"
    begun = trainer(tmp_path, virtual_ranks=3, max_nb_epochs=1)
    begun.fit(Net())
    begun.save_checkpoint(path)
    with pytest.raises(MisconfigurationException, match=uneven + "as this run began with so many"):
        trainer(tmp_path, nb_processes=2, resume=path).fit(Net())
    with pytest.raises(MisconfigurationException, match=r"virtual_ranks=2, and the run that is resumed has 3"):
        trainer(tmp_path, virtual_ranks=2, resume=path).fit(Net())
    again = Net()
    assert trainer(tmp_path, resume=path).fit(again) == 1


# ------------------------------------------------------------------ how a program is started
PROGRAM = """
import sys
from tests.launchers.nets import Net, NotingTrainer, trainer
print("the file is run", flush=True)
class Own(Net):
    pass
def main():
    print(trainer("logs", nb_processes=2, experiment=False).fit(Own()), sys.argv[1:])
"""
UNGUARDED = PROGRAM + "main()\n"
GUARDED = PROGRAM + 'if __name__ == "__main__":\n    main()\n'


def test_a_file_without_a_guard_gets_an_error_that_says_how_to_add_it_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(UNGUARDED)
    (tmp_path / "importing.py").write_text('if __name__ == "__main__":\n    import program\n')
    line = len(UNGUARDED.splitlines())
    for started in ("program.py", "importing.py"):
        done = run_program([started], tmp_path)
        assert done.returncode == 1
        assert done.stdout == "the file is run\n", "and no process began"
        error = f"program.py, line {line}, starts several processes, and each of them imports this file first"
        assert error in done.stderr
        assert done.stderr.endswith('if __name__ == "__main__":\n    main()\n\nor start the script with torchrun.\n')


def test_a_guarded_file_runs_by_its_name_and_as_a_module(tmp_path: Path) -> None:
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "program.py").write_text(GUARDED)
    done = run_program(["-m", "package.program", "an argument"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [
        "1 ['an argument']",
        "[rank 1] the file is run" if "[rank 1]" in done.stdout else "the file is run",
        "the file is run",
        "the file is run",
    ]


def test_a_class_that_other_processes_do_not_find_is_named(tmp_path: Path) -> None:
    hidden = GUARDED.replace("class Own(Net):\n    pass\n", "").replace(
        "    main()\n", "    class Own(Net):\n        pass\n    main()\n"
    )
    (tmp_path / "program.py").write_text(hidden)
    done = run_program(["program.py"], tmp_path)
    assert (
        "a new process doesn't find what the model or a callback is made of: Can't get attribute 'Own'" in done.stderr
    )
    assert done.returncode == 1


# ------------------------------------------------------------------ Ctrl-C
LONG = """
from tests.launchers.nets import Net, NotingTrainer, trainer
import torch
class Long(Net):
    def on_epoch_end(self):
        super().on_epoch_end()
        if self.trainer.proc_rank == 0:
            print("epoch", self.current_epoch, flush=True)
    def training_step(self, data_batch, batch_nb):
        if stuck and self.trainer.proc_rank == 0:
            print("stuck", flush=True)
        while stuck:
            pass
        return super().training_step(data_batch, batch_nb)
stuck = {stuck}
model = Long()
before = model.layer.weight.clone()
trainer = trainer("logs", nb_processes=2, experiment=False, max_nb_epochs=10**6)
result = trainer.fit(model)
print("returned", result, trainer.interrupted, not torch.equal(before, model.layer.weight), trainer.global_step >= 3)
"""


def start_long(folder: Path, stuck: bool) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", LONG.replace("{stuck}", str(stuck))],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("stuck", [False, True], ids=["once", "twice"])
def test_ctrl_c_ends_all_processes(tmp_path: Path, stuck: bool) -> None:
    """Once: each finishes its step, and fit returns. Twice: at once, also where a process is busy."""
    with start_long(tmp_path, stuck=stuck) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == ("stuck\n" if stuck else "epoch 0\n")
        os.killpg(program.pid, signal.SIGINT)
        if stuck:
            with pytest.raises(subprocess.TimeoutExpired):
                program.wait(2)
            os.killpg(program.pid, signal.SIGINT)
        out, err = program.communicate(timeout=60)
        if stuck:
            assert err.rstrip().endswith("KeyboardInterrupt")
            assert program.returncode != 0
        else:
            assert program.returncode == 0, err
            assert out.splitlines()[-1] == "returned 0 True True True"
            assert "Traceback" not in err
        assert session_of(program.pid) == []


def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    with start_long(tmp_path, stuck=False) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "epoch 0\n"
        program.kill()
        program.communicate(timeout=60)  # until no process holds its streams any more
        until = time.monotonic() + 10  # it lets go of them a moment before it is gone
        while session_of(program.pid) and time.monotonic() < until:
            time.sleep(0.05)
        assert session_of(program.pid) == []


def test_a_kill_of_the_one_that_started_them_leaves_no_process_and_no_loss(tmp_path: Path) -> None:
    """In a script, with loader workers. The next start, of one process, resumes to the same end."""
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    assert run(calm, virtual_ranks=2).code == 0
    options: dict[str, Any] = {"nb_processes": 2, "workers": 1, "context": "fork", "save_every_nb_batches": 1}
    code, said = run_script(killed, send=("step", 6, "parent", ["SIGKILL"]), **options)
    assert code == -signal.SIGKILL, said
    assert not (killed / "result.json").exists()
    assert saves_of(killed)
    code, said = run(killed, resume="auto")
    assert code == 0, said
    assert program.outcome(killed) == program.outcome(calm)


def test_a_subclass_of_the_trainer_is_itself_in_new_processes(tmp_path: Path) -> None:
    options: dict[str, Any] = {"progress_bar": False, "print_weights_summary": False, "silence": ("not-shuffled",)}
    there = NotingTrainer(tmp_path, nb_processes=2, max_nb_epochs=1, default_save_path=tmp_path / "logs", **options)
    assert there.fit(Net()) == 1
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["0 kept", "1 kept", "parent kept"]
