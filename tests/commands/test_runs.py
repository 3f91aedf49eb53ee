"""``python -m pytorch_lightning runs``: runs that ended in every way, seen from another process."""

import contextlib
import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import pytorch_lightning
from pytorch_lightning import Trainer
from pytorch_lightning.commands import main
from pytorch_lightning.errors import MisconfigurationException
from pytorch_lightning.run.listing import rows_of
from tests.recorder import Recorder

ROOT = Path(pytorch_lightning.__file__).parent.parent
PROGRAM = """
import json, os, signal, sys, time
from argparse import Namespace
from pathlib import Path
import torch
from pytorch_lightning import LightningModule, Trainer
from tests.saves import every_save_written

how, lr, resume = sys.argv[1], float(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None

class Model(LightningModule):
    def __init__(self):
        super().__init__(Namespace(lr=lr, width=4))
        self.layer = torch.nn.Linear(4, 1)
    def training_step(self, data_batch, batch_nb):
        if self.trainer.global_step == 7:
            if how == "raises":
                raise ValueError("two words,\\na comma and a line")
            if how == "killed":
                while not list(Path(self.trainer.folder).rglob("step-000000000006.ckpt")):
                    time.sleep(0.05)
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "waits":
                Path("waiting").touch()
                time.sleep(1000)
        return self.layer(data_batch).pow(2).mean()
    def validation_step(self, data_batch, batch_nb):
        return {}
    def validation_end(self, outputs):
        value = [0.5, 0.25 * lr, 0.75][self.current_epoch]
        return {"val_loss": value, "val_acc": 1 - value}
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr)
    @property
    def tng_dataloader(self):
        return torch.utils.data.DataLoader(torch.randn(16, 4), batch_size=4, shuffle=True)
    @property
    def val_dataloader(self):
        return torch.utils.data.DataLoader(torch.randn(4, 4), batch_size=4)

torch.manual_seed(0)
began = time.time()
options = {"max_nb_epochs": 3, "save_every_nb_batches": 2, "nb_sanity_val_steps": 0, "seed": 1, "resume": resume}
try:
    with every_save_written():
        Trainer(default_save_path="logs", progress_bar=False, log_save_interval=1, **options).fit(Model())
finally:
    Path(f"{how}.json").write_text(json.dumps(time.time() - began))
"""


def start(folder: Path, *words: str) -> "subprocess.Popen[str]":
    (folder / "train.py").write_text(PROGRAM)
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "train.py", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder: Path, *words: str) -> int:
    process = start(folder, *words)
    process.communicate(timeout=100)
    return process.returncode


def listed(folder: Path, *words: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "pytorch_lightning", "runs", *words], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def headline(lines: list[str], version: int) -> str:
    return next(line for line in lines if line.startswith(f"logs/Model/version_{version}: ")).partition(": ")[2]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was complete, one that raised, and one that was killed."""
    folder = tmp_path_factory.mktemp("ended")
    codes = [run(folder, how, lr) for how, lr in (("completes", "0.4"), ("raises", "0.1"), ("killed", "0.2"))]
    assert codes == [0, 1, -signal.SIGKILL]
    return folder


def test_how_each_run_ended(ended: Path) -> None:
    lines = listed(ended, "logs")
    assert headline(lines, 0).startswith("complete, 0:0")
    assert headline(lines, 0).endswith(", 12 batches")
    assert headline(lines, 1).startswith("failed (ValueError: two words, a comma and a line), resumable, 0:0")
    assert headline(lines, 1).endswith(", 7 batches")
    assert headline(lines, 2).startswith("interrupted, resumable, 0:0")
    assert "  hparams: lr=0.1, width=4" in lines
    rows = rows_of(ended / "logs")
    assert [row["state"] for row in rows] == ["complete", "failed", "interrupted"]
    assert [row["resumable"] for row in rows] == [False, True, True]
    assert [row["global_step"] for row in rows[:2]] == [12, 7]
    assert rows[2]["global_step"] == 6  # that of its newest save
    assert [row["hparams.lr"] for row in rows] == [0.4, 0.1, 0.2]
    # epochs validate after 4, 8 and 12 batches: the first alone where the end came in the 8th
    assert [row["last.val_loss"] for row in rows] == [0.75, 0.5, 0.5]
    assert [row["best.val_loss"] for row in rows] == [0.25 * 0.4, 0.5, 0.5]
    assert [row["best.val_acc"] for row in rows] == [1 - 0.25 * 0.4, 0.5, 0.5]
    for row, how in zip(rows[:2], ("completes", "raises"), strict=True):
        assert 0 < row["seconds"] < json.loads((ended / f"{how}.json").read_text())


def test_the_best_comes_first_and_what_is_the_same_is_left_out(ended: Path) -> None:
    lines = listed(ended, "logs", "--best", "val_loss", "--differ")
    assert [line.partition(":")[0][-1] for line in lines if line.startswith("logs")] == ["0", "1", "2"]
    assert [line for line in lines if "hparams" in line] == [f"  hparams: lr={lr}" for lr in ("0.4", "0.1", "0.2")]
    rows = rows_of(ended / "logs", best="val_acc")
    assert [row["best.val_acc"] for row in rows] == [0.9, 0.5, 0.5]
    done = subprocess.run(
        [sys.executable, "-m", "pytorch_lightning", "runs", "logs", "--best", "val_los"],
        cwd=ended,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "no run in logs has the metric 'val_los'. Did you mean 'val_loss'?\n"


def test_in_python_it_is_a_table(ended: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pandas

    found = pytorch_lightning.runs(ended / "logs")
    assert isinstance(found, pandas.DataFrame)
    assert found.loc[0, "best.val_loss"] == 0.25 * 0.4
    assert list(found["state"]) == ["complete", "failed", "interrupted"]
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert pytorch_lightning.runs(str(ended / "logs"), differ=True) == rows_of(ended / "logs", differ=True)


@pytest.mark.slow
def test_a_run_that_runs_is_killed_and_resumed(tmp_path: Path) -> None:
    process = start(tmp_path, "waits", "0.4")
    try:
        for _ in range(900):
            if (tmp_path / "waiting").exists():
                break
            time.sleep(0.1)
        line = headline(listed(tmp_path, "logs"), 0)
        assert line.startswith("running, 0:00:")
    finally:
        process.kill()
    # a process that nobody waited for yet has its number still
    assert headline(listed(tmp_path, "logs"), 0).startswith("interrupted, resumable, ")
    process.communicate()
    (row,) = rows_of(tmp_path)
    assert (row["state"], row["resumable"], row["starts"]) == ("interrupted", True, 1)
    assert run(tmp_path, "completes", "0.4", "auto") == 0
    (row,) = rows_of(tmp_path)
    assert (row["state"], row["resumable"], row["starts"], row["global_step"]) == ("complete", False, 2, 12)
    assert (row["best.val_loss"], row["last.val_loss"]) == (0.25 * 0.4, 0.75)
    lines = listed(tmp_path, "logs")
    assert " in 2 starts, 12 batches" in headline(lines, 0)
    record = json.loads(next(tmp_path.rglob("run.json")).read_text())
    assert record["starts"][1]["from_step"] in (2, 4, 6)  # the last save that was whole


def fitted(folder: Path, **options: Any) -> Path:
    Trainer(default_save_path=folder, max_nb_epochs=1, progress_bar=False, **options).fit(Recorder())
    return sorted(folder.glob("Recorder/*"), key=os.path.getmtime)[-1]


def test_runs_of_earlier_versions_are_listed_with_what_can_be_known(tmp_path: Path) -> None:
    for options in ({}, {"save_every_nb_batches": 1}):
        run_folder = fitted(tmp_path, **options)
        (run_folder / "run.json").unlink()
        (run_folder / "options.yaml").unlink()
    first, second = rows_of(tmp_path)
    assert (first["state"], first["seconds"], first["resumable"]) == ("unknown", None, False)
    assert (second["state"], second["global_step"], second["resumable"]) == ("complete", 4, False)


def test_other_things_in_the_folder_do_no_harm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = fitted(tmp_path / "logs")
    other = tmp_path / "logs" / "other"
    for name, content in {
        "a/run.json": b"[" * 100_000,
        "b/run.json": b'{"starts": [3, {"began": "x", "pid": -1}]}',
        "c/run.json": b'{"starts": [{"began": 1e999, "ended": null, "state": ["\x1b[31m"]}]}',
        "d/metrics.csv": b"\xff\xfe\x00",
        "e/metrics.csv": b"val_loss,val_loss\n1,2,3,4\n,nan\n1e999,x\n",
        "f/meta_tags.csv": b"not,tags\n1,2\n",
        "version_x/checkpoints/step-000000000002.ckpt": b"no save",
        "notes.txt": b"",
    }.items():
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        (other / name).write_bytes(content)
    (other / "loop").symlink_to(tmp_path / "logs")
    (other / "pipe").mkdir()
    os.mkfifo(other / "pipe" / "run.json")
    os.mkfifo(other / "pipe" / "metrics.csv")
    rows = {row["folder"]: row for row in rows_of(tmp_path / "logs")}
    assert rows[str(good)]["state"] == "complete"
    assert len(rows) == 8
    assert main(["runs", str(tmp_path / "logs")]) == 0
    said = capsys.readouterr().out
    assert f"{good}: complete" in said
    assert "\x1b" not in said


@pytest.mark.parametrize("end", ["\n", "", "\n7,7,7"])
def test_numbers_are_those_that_python_reads_in_the_rows(tmp_path: Path, end: str) -> None:
    """Rows may be short, long or empty, cells empty or words, names there twice; a last line without its end was cut
    off."""
    text = "global_step,loss,acc,loss,name\n1,9,0.5,3,a\n\n2,8,,2.5,b,c\n3\n4,1,nan,word,x" + end
    (tmp_path / "version_0").mkdir()
    path = tmp_path / "version_0" / "metrics.csv"
    path.write_text(text)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))[: None if end == "\n" else -1]
    expected: dict[str, list[float]] = {"loss": [], "acc": [], "global_step": []}
    for row in rows:
        for name, found in expected.items():
            with contextlib.suppress(ValueError, TypeError):
                found += [value] if math.isfinite(value := float(row[name])) else []
    (listed,) = rows_of(tmp_path)
    assert listed["global_step"] == expected["global_step"][-1]
    for name in ("loss", "acc"):
        assert listed[f"last.{name}"] == expected[name][-1]
        assert listed[f"best.{name}"] == (max if name == "acc" else min)(expected[name])
    assert "last.name" not in listed


def test_a_process_of_another_machine_or_another_boot(tmp_path: Path) -> None:
    path = fitted(tmp_path) / "run.json"
    record = json.loads(path.read_text())
    here = {key: record["starts"][0][key] for key in ("pid", "born", "host", "boot", "began")}
    for changed, state in (
        ({}, "running"),  # this very process
        ({"born": "1"}, "interrupted"),
        ({"boot": "another"}, "interrupted"),
        ({"host": "another"}, "elsewhere"),
    ):
        path.write_text(json.dumps({**record, "starts": [{**here, **changed}]}))
        assert [row["state"] for row in rows_of(tmp_path)] == [state]


def test_folders_that_there_are_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MisconfigurationException, match="there is no folder"):
        pytorch_lightning.runs(tmp_path / "logs")
    assert main(["runs", str(tmp_path / "logs")]) == 1
    assert main(["runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}: no runs\n"


def test_versions_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 9, 2):
        (tmp_path / f"version_{number}").mkdir()
        (tmp_path / f"version_{number}" / "metrics.csv").touch()
    assert [Path(row["folder"]).name for row in rows_of(tmp_path)] == ["version_2", "version_9", "version_10"]


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # an import of it fails
from pytorch_lightning.commands import main
main(sys.argv[1:])
"""


def test_a_list_and_a_report_of_complete_runs_do_not_wait_for_torch(tmp_path: Path) -> None:
    """Its import takes longer than both of them."""
    run_folder = fitted(tmp_path, save_every_nb_batches=1)
    whole = rows_of(tmp_path)
    said = {}
    for words in (("runs", str(tmp_path)), ("report", str(run_folder), "-o", str(tmp_path / "report.html"))):
        done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said[words[0]] = done.stdout
    assert "complete" in said["runs"]
    assert f"{whole[0]['global_step']}" in said["runs"]
    assert "loss" in (tmp_path / "report.html").read_text()
    (run_folder / "run.json").unlink()  # then its saves have to be read
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, "runs", str(tmp_path)], capture_output=True, text=True)
    assert "torch" in done.stderr
    assert rows_of(tmp_path)[0]["state"] == "complete"
