"""The options of a trial travel to its job as a command line that test-tube writes, and come out as they were."""

import subprocess
import warnings
from pathlib import Path
from typing import Any

import pytest

from pytorch_lightning import Trainer, add_default_args
from pytorch_lightning.options.config import OBJECT_OPTIONS
from pytorch_lightning.trainer.trainer import option_defaults

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from test_tube import HyperOptArgumentParser, SlurmCluster

READ_BY_A_SHELL = """
srun() { shift 2; printf '%s\\0' "$@"; }
set -e
"""


def new_parser(**defaults: Any) -> Any:
    parent = HyperOptArgumentParser(strategy="grid_search", add_help=False)
    add_default_args(parent, "/root", possible_model_names=["a"])
    parser = HyperOptArgumentParser(strategy=parent.strategy, parents=[parent])
    parser.opt_list("--lr", default=0.1, type=float, options=[1e-05], tunable=True)
    parser.set_defaults(**defaults)
    return parser


def of_the_job(folder: Path, parser: Any, words: list[str]) -> tuple[Any, Any]:
    """What was parsed from ``words``, and what the job of its one trial parses."""
    hparams = parser.parse_args(words)
    SlurmCluster(hyperparam_optimizer=hparams, log_path=str(folder)).optimize_parallel_cluster_cpu(print, 1, "search")
    (script,) = folder.glob("search/slurm_scripts/*")
    done = subprocess.run(["bash", "-c", READ_BY_A_SHELL + script.read_text()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return hparams, parser.parse_args(done.stdout.split("\0")[:-1])


def plain(hparams: Any) -> dict[str, Any]:
    own = ("lr", "hpc_exp_number")
    return {k: v for k, v in vars(hparams).items() if not callable(v) and k not in own and "test_tube" not in k}


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SlurmCluster.__mro__[1], "RUN_CMD", "true")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--silence", "none", "--tt_description", "", "-td", "", "--current_gpu_name", ""],
        ["--silence", "unfinished-run", "--tt_description", "two words"],
        ["--silence", "unfinished-run,first-save", "--gpus", "0;1", "--lr_scheduler_milestones", "1,2"],
        ["--accumulate_grad_batches", "1:2,5:8", "--gradient_clip", "-1", "--val_check_interval", "5"],
        ["--max_time", "none", "--seed", "0", "--fast_dev_run", "--tt_save_path", "/a folder/[1]"],
        ["--debug", "false", "--eval_test_set"],
    ],
)
def test_options_come_out_as_they_were(tmp_path: Path, words: list[str]) -> None:
    here, there = of_the_job(tmp_path, new_parser(), words)
    assert plain(there) == plain(here)
    assert there.lr == 1e-05
    assert Trainer.from_args(there).options == Trainer.from_args(here).options


def test_what_is_true_by_default_can_be_turned_off(tmp_path: Path) -> None:
    names = [n for n, d in option_defaults().items() if d is True and n not in OBJECT_OPTIONS]
    assert len(names) > 4
    words = [word for name in names for word in (f"--{name}", "false")]
    here, there = of_the_job(tmp_path, new_parser(), words)
    for name in names:
        assert getattr(there, name) == getattr(here, name) == False, name  # noqa: E712
        assert f"{getattr(here, name)}" == "False"
    assert Trainer.from_args(there).config.progress_bar == False  # noqa: E712


def test_defaults_that_a_program_sets_travel_too(tmp_path: Path) -> None:
    set_here = new_parser(silence=("first-save", "unfinished-run"), max_nb_epochs=3)
    here, _ = of_the_job(tmp_path, set_here, [])
    (script,) = tmp_path.glob("search/slurm_scripts/*")
    assert " --silence first-save,unfinished-run " in script.read_text()
    assert here.silence == ("first-save", "unfinished-run")
