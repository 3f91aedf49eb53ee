"""Processes that torchrun starts, and what several processes say and agree on."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import pytorch_lightning

ROOT = Path(pytorch_lightning.__file__).parent.parent


def torchrun(folder: Path, code: str, *options: str, nb: int = 2, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` as a script in ``nb`` processes; ends by itself."""
    (folder / "program.py").write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={nb}", *options, "program.py"]
    return subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
    )


EVERYTHING = """
import json, os, subprocess, sys, time
from pathlib import Path
import torch, torch.distributed as dist
from tests.launchers.nets import Net, trainer
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.errors import MisconfigurationException
from test_tube import Experiment

rank = int(os.environ["RANK"])
told = {}
model = Net()

# everything of a run, by every process alike
best = ModelCheckpoint("best", save_best_only=True)
first = trainer("logs", checkpoint_callback=best, progress_bar=True, print_weights_summary=True, max_nb_epochs=3)
told["fit"] = first.fit(model)
told["weights"] = [value.tolist() for value in model.state_dict().values()]
told["validate"], told["test"] = first.validate(), first.test(ckpt="best")
told["predict"] = [output.tolist() for output in first.predict()]
told["alike"] = [first.global_step, first.progress.stop_reason, best.best_path, first.world_size, first.use_ddp]

# wishes of one process
class Asks(Callback):
    def on_batch_end(self, run):
        if rank == 1 and run.progress.global_step == 4:
            run.save("of_rank_1.ckpt")
            run.stop("rank 1 has had enough")
        if rank == 0 and run.progress.global_step == 2:
            run.save("of_rank_0.ckpt")
        if run.progress.global_step == 3:
            run.module.trainer.save_checkpoint("of_all.ckpt")

asked = trainer("logs", experiment=False, callbacks=[Asks()], max_nb_epochs=1000)
asked.fit(Net())
told["asked"] = [asked.progress.stop_reason, asked.global_step]
limited = trainer("logs", experiment=False, max_time=0.0001 if rank else 100, max_nb_epochs=10**6)
limited.fit(Net())
told["limited"] = limited.progress.stop_reason[:16]
early = trainer("logs", experiment=False, early_stop_callback=EarlyStopping(min_delta=9.0, verbose=1), max_nb_epochs=50)
early.fit(Net())
told["early"] = early.global_step

# what only the first process has
if rank == 0:
    experiment = Experiment(save_dir="logs", name="mine", version=5)
else:
    experiment = Experiment(save_dir="logs", name="mine", version=5, debug=True)
mine = trainer("logs", experiment=experiment, max_nb_epochs=1)
mine.fit(Net())
told["experiment"] = [mine.experiment.version, mine.experiment.name]
assert rank == 0 or mine.experiment.add_image("a", None) is None
dev = trainer("logs", checkpoint_callback=ModelCheckpoint("never"), fast_dev_run=True)
dev.fit(Net())

for options in ({"nb_processes": 3}, {"distributed_backend": "dp"}):
    try:
        trainer("logs", **options).fit(Net())
    except MisconfigurationException as error:
        told[str(options)] = str(error)

# what a process says
import faulthandler, logging
from tqdm import tqdm
sys.stderr.flush()
logging.basicConfig()
logging.warning("from logging")
print("a", end=""); print("b", "c"); print("two\\nlines"); print()
sys.stdout.writelines(["written\\n"])
for _ in tqdm(range(2), file=sys.stdout): pass
faulthandler.enable()
faulthandler.dump_traceback()
subprocess.run([sys.executable, "-c", "print('from a program')"], check=True)
print("no end", end="")
Path(f"told_{rank}.json").write_text(json.dumps(told))
"""


def test_all_that_a_trainer_does_is_done_alike_and_shown_once(tmp_path: Path) -> None:
    done = torchrun(tmp_path, EVERYTHING)
    assert done.returncode == 0, done.stderr
    zero, one = (json.loads((tmp_path / f"told_{rank}.json").read_text()) for rank in (0, 1))
    assert zero == one
    assert zero["fit"] == 1
    assert zero["validate"]["nb"] == 5
    assert zero["test"]["val_loss"] == zero["validate"]["val_loss"], "the last epoch is the best"
    assert len(zero["predict"]) == 5
    assert zero["alike"][3:] == [2, True]
    assert zero["asked"][0] == "rank 1 has had enough"
    assert zero["limited"] == "max_time reached"
    assert zero["experiment"] == [5, "mine"]
    said = "torchrun started 2 processes on this machine, and "
    assert zero["{'nb_processes': 3}"] == said + "nb_processes=3. Leave nb_processes out."
    assert zero["{'distributed_backend': 'dp'}"] == said + "distributed_backend='dp' is one process. Use 'ddp'."

    # the files of one process
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.c*")}
    assert files == {
        "best/_ckpt_epoch_3.ckpt",
        "of_all.ckpt",
        "of_rank_0.ckpt",
        "of_rank_1.ckpt",
        *(
            f"logs/{name}/{file}.csv"
            for name in ("Net/version_0", "mine/version_5")
            for file in ("metrics", "meta_tags")
        ),
    }
    rows = (tmp_path / "logs/Net/version_0/metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + 3 * (3 + 1 + 1) + 2, "rows of batches, validations, by hand, and of validate and test"

    # what is shown
    out, err = done.stdout, done.stderr
    assert out.count("training in 2 CPU processes (ddp),") == 1
    assert "[rank 1] training on" not in out
    assert err.count("epoch 3: 3/3 mean_loss=") == 1
    assert out.count("early stopping in epoch") == 1
    assert not re.findall("(?i)warn(?!ing:root:from logging)", err.replace("WARNING:root", "warning:root")), err
    lines = out.splitlines()
    for text in ("ab c", "two", "lines", "written"):
        assert lines.count(text) == lines.count(f"[rank 1] {text}") == 1, out
    assert out.count("[rank 1] no end") == 1
    assert out.count("no end") == 2
    assert "[rank 1] 100%" in out
    assert out.count("from a program") == 2
    assert "[rank 1] WARNING:root:from logging" in err
    assert err.count("most recent call first") >= 2, "faulthandler wrote to the stream behind"


PARTING = """
import atexit, os, sys
from pathlib import Path
def show():
    tasks = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    Path("threads_" + os.environ["RANK"]).write_text(" ".join(task for task in tasks if "gloo" in task))
atexit.register(show)  # before ours, so after it
from tests.launchers.nets import Net, trainer
kept = trainer("logs", experiment=False)
kept.fit(Net())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads are listed in /proc")
def test_threads_of_the_processes_group_end_before_the_interpreter_does(tmp_path: Path) -> None:
    done = torchrun(tmp_path, PARTING)
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / f"threads_{rank}").read_text() for rank in (0, 1)] == ["", ""]


FAILING = """
import os, sys, time
from tests.launchers.nets import Net, trainer
print("attempt", os.environ["TORCHELASTIC_RESTART_COUNT"], flush=True)
mishap = "" if os.environ["TORCHELASTIC_RESTART_COUNT"] == sys.argv[-1] else "raise_own"
trainer("logs", experiment=False).fit(Net(mishap))
print("done", flush=True)
"""


def test_torchrun_restarts_what_failed_and_the_traceback_of_that_comes_first(tmp_path: Path) -> None:
    rendezvous = ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "--max-restarts=2"]
    done = torchrun(tmp_path, FAILING.replace("sys.argv[-1]", "'1'"), *rendezvous)
    assert done.returncode == 0, done.stderr
    lines = [line.removeprefix("[rank 1] ") for line in done.stdout.splitlines()]
    assert sorted(lines) == ["attempt 0", "attempt 0", "attempt 1", "attempt 1", "done", "done"]

    shown = done.stderr[done.stderr.index("Traceback") - len("[rank 1] ") :]
    assert shown.startswith("[rank 1] Traceback (most recent call last):\n"), done.stderr
    first = shown.split("[rank 1] ZeroDivisionError: something of the user's own\n[rank 1] raised while fitting Net")
    assert len(first) == 2, done.stderr
    assert all(line.startswith("[rank 1] ") for line in first[0].splitlines()), "nothing in between"


STUCK = """
import os, signal, sys, threading, time
from tests.launchers.nets import Net, trainer
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # only it can end itself
def hang(self):
    threading.Event().wait()
Net.hang = hang
trainer("logs", experiment=False, process_timeout_minutes=0.15).fit(Net("hang"))
"""


def test_a_process_that_hangs_ends_itself_once_the_others_failed(tmp_path: Path) -> None:
    """After all stacks were shown. As under srun, where no launcher ends it."""
    (tmp_path / "program.py").write_text(STUCK)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    started = [
        subprocess.Popen(
            [sys.executable, "program.py"],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "RANK": str(rank),
                "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            },
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    errors = [process.communicate(timeout=100)[1] for process in started]
    assert [process.returncode for process in started] == [1, 1]
    assert "another process of this run has ended or hangs" in errors[0]
    assert re.search(r"^\[rank 1\] .*threading.Event\(\).wait\(\)$", errors[1], re.MULTILINE)
    assert "[rank 1] another process failed while this one was busy, so this one exits" in errors[1]


@pytest.mark.parametrize("missing", ["MASTER_PORT"])
def test_half_an_environment_is_none(missing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tests.launchers.nets import Net, trainer

    for name in {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} - {missing}:
        monkeypatch.setenv(name, "1")
    assert trainer(tmp_path, experiment=False, max_nb_epochs=1).fit(Net()) == 1
