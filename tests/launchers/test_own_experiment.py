"""A script that makes an Experiment of its own, and is started several times by torchrun."""

import json
from pathlib import Path
from typing import Any

import torch

from tests.launchers.ranks import in_ranks
from tests.launchers.test_spawned import rows_of

SCRIPT = """
import json, os, sys
from pathlib import Path
from test_tube import Experiment
from pytorch_lightning.callbacks import ModelCheckpoint
from tests.launchers.nets import Net, trainer

rank = os.environ["RANK"]
before = int(os.environ.get("VERSION", -1))
if rank == "1":  # so that it is the second in any case
    import time
    while not list(Path("logs/mine").glob(f"version_[{before + 1}-9]/tf/events*")):
        time.sleep(0.01)
experiment = Experiment(save_dir="logs", name="mine", **OPTIONS)
numbers = [experiment.version]
experiment.argparse(type("Hparams", (), {})())
best = ModelCheckpoint(f"weights/version_{experiment.version}", save_best_only=True)
one = trainer("logs", experiment=experiment, checkpoint_callback=best, **json.loads(os.environ.get("MORE", "{}")))
experiment.save()
result = one.fit(Net())
numbers.append(experiment.version)
experiment.log({"after": float(rank)})
experiment.add_text("note", "a word")
experiment.save()
experiment.close()
told = [result, one.test(ckpt="best"), best.best_path, one.experiment.version]
Path(f"told_{rank}.json").write_text(json.dumps([numbers, told]))
"""


def told_by(folder: Path, options: str = "", **variables: Any) -> list[Any]:
    done = in_ranks(folder, SCRIPT.replace("**OPTIONS", options), **variables)
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"told_{rank}.json").read_text()) for rank in (0, 1)]


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_all_that_is_logged_is_in_the_version_of_rank_0(tmp_path: Path) -> None:
    (numbers, said), (other_numbers, other_said) = told_by(tmp_path)
    assert (numbers, other_numbers) == ([0, 0], [1, 0]), "the numbers at first, and after fit"
    assert said == other_said
    assert [path.name for path in (tmp_path / "logs/mine").iterdir()] == ["version_0"]
    writers = {path.name.split(".")[-2] for path in tmp_path.glob("logs/mine/version_0/tf/events*")}
    assert len(writers) == 1, "one process's number in all names"
    rows = rows_of(tmp_path / "logs/mine/version_0")
    assert [row["after"] for row in rows if "after" in row] == ["0.0"]
    assert len(rows) == 2 * (3 + 1 + 1) + 2, "batches, validations, by hand; after fit and of the test"
    # the other process would have named another folder
    assert files_in(tmp_path / "weights") == [str(Path(said[2]).relative_to("weights"))]

    # the same command again resumes the same run, and leaves no other version
    more = {"VERSION": "0", "MORE": json.dumps({"resume": "auto", "max_nb_epochs": 3})}
    (numbers, said), _ = told_by(tmp_path, **more)
    assert numbers == [1, 1], "there were no saves to go on from"
    (numbers, said), _ = told_by(tmp_path, **{**more, "VERSION": "1"})
    assert numbers == [2, 1]
    assert sorted(path.name for path in (tmp_path / "logs/mine").iterdir()) == ["version_0", "version_1"]


def test_a_folder_that_anybody_else_uses_is_left(tmp_path: Path) -> None:
    taken = tmp_path / "logs/mine/version_7"
    (taken / "tf").mkdir(parents=True)
    (taken / "tf/events.out.tfevents.1.elsewhere.1.0").write_text("")
    told_by(tmp_path, "version=int(rank) + 6")
    assert files_in(taken / "tf") == ["events.out.tfevents.1.elsewhere.1.0"], "but it left"
    assert sorted(path.name for path in (tmp_path / "logs/mine").iterdir()) == ["version_6", "version_7"]


def test_a_race_for_the_same_number_costs_rank_0_no_row(tmp_path: Path) -> None:
    half_written = tmp_path / "logs/mine/version_4/meta.experiment"
    half_written.parent.mkdir(parents=True)
    half_written.write_text("")
    told_by(tmp_path, "version=4")
    assert len(rows_of(half_written.parent)) == 2 * (3 + 1 + 1) + 2
    assert torch.load(next(tmp_path.glob("weights/*/*.ckpt")), weights_only=True)["epoch"] >= 1
