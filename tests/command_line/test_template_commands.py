"""The template project by its command line, by Python, and by a search."""

import csv
import os
import re
import subprocess
import sys
import warnings
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import pytorch_lightning
from pytorch_lightning import Trainer, add_default_args, seed_everything
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from test_tube import Experiment, HyperOptArgumentParser, argparse_hopt

ROOT = Path(pytorch_lightning.__file__).parent.parent
TEMPLATES = ROOT / "examples" / "new_project_templates"

MODEL = {"drop_prob": 0.5, "hidden_dim": 6, "learning_rate": 0.005, "batch_size": 32, "data_root": "/nowhere"}
RUN = {
    "tt_name": "group/mine",
    "tt_description": "everything at once",
    "early_stop_metric": "val_acc",
    "early_stop_mode": "min",
    "early_stop_patience": 2,
    "model_save_monitor_value": "val_acc",
    "model_save_monitor_mode": "min",
}
OPTIONS = {
    "gradient_clip": 0.5,
    "gradient_clip_algorithm": "value",
    "gradient_clip_norm_type": 1.0,
    "process_position": 1,
    "current_gpu_name": "cpu",
    "progress_bar": False,
    "track_grad_norm": 1,
    "check_val_every_n_epoch": 1,
    "accumulate_grad_batches": "1:2,3:3",
    "max_nb_epochs": 6,
    "min_nb_epochs": 3,
    "max_nb_steps": 12,
    "max_time": 30.0,
    "train_percent_check": 0.04,
    "val_percent_check": 0.2,
    "test_percent_check": 0.1,
    "val_check_interval": 0.5,
    "log_save_interval": 3,
    "add_log_row_interval": 2,
    "lr_scheduler_milestones": "1,2",
    "precision": "bf16",
    "print_nan_grads": True,
    "stop_on_nan": False,
    "print_weights_summary": False,
    "nb_sanity_val_steps": 2,
    "seed": 7,
    "deterministic": True,
    "silence": ("not-shuffled",),
}


def words_of(*tables: dict[str, Any]) -> list[str]:
    return [
        word
        for table in tables
        for name, value in table.items()
        for word in (f"--{name}", ",".join(value) if isinstance(value, tuple) else str(value))
    ]


def files_in(folder: Path) -> set[str]:
    """What lies there, the numbers in the names of TensorBoard's files aside."""
    return {re.sub(r"tfevents.*", "tfevents", str(p.relative_to(folder))) for p in folder.rglob("*") if not p.is_dir()}


def rows_in(folder: Path) -> list[dict[str, str]]:
    with open(folder / "tt/group/mine/version_0/metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k != "created_at"} for row in csv.DictReader(file)]


def test_the_command_line_and_python_give_the_same_weights_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, python = tmp_path / "line", tmp_path / "python"
    folders = words_of({"tt_save_path": line / "tt", "model_save_path": line / "weights"})
    done = subprocess.run(
        [sys.executable, TEMPLATES / "single_cpu_template.py", *words_of(MODEL, RUN, OPTIONS), *folders],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr

    monkeypatch.syspath_prepend(str(TEMPLATES))
    from lightning_module_template import LightningTemplateModel

    seed_everything(7)
    model = LightningTemplateModel(Namespace(**MODEL, in_features=784, out_features=10))
    experiment = Experiment(save_dir=str(python / "tt"), name="group/mine", description="everything at once")
    stop = EarlyStopping("val_acc", mode="min", patience=2)
    keep = ModelCheckpoint(python / "weights/group/mine/version_0", "val_acc", mode="min", save_best_only=True)
    options = {**OPTIONS, "accumulate_grad_batches": {1: 2, 3: 3}, "lr_scheduler_milestones": [1, 2]}
    trainer = Trainer(experiment, stop, keep, **options)
    trainer.fit(model)
    metrics = trainer.test(ckpt="best")
    experiment.close()

    assert files_in(line) == files_in(python)
    assert rows_in(line) == rows_in(python)
    assert {"grad_1_norm_total", "lr_0", "val_loss", "test_acc", "output_weight_norm"} <= set(rows_in(line)[0])
    assert f"test accuracy   {metrics['test_acc']:.3f}" in done.stdout
    name = Path(keep.best_path or "").relative_to(python)
    by_line, by_python = torch.load(line / name), torch.load(python / name)
    assert by_line["global_step"] == by_python["global_step"]
    assert all(torch.equal(by_line["state_dict"][k], v) for k, v in by_python["state_dict"].items())
    assert by_line["hparams"]["hidden_dim"] == 6


@pytest.mark.parametrize("template", ["single_cpu_template.py", "multi_gpu_template.py"])
def test_a_debug_run_leaves_weights_and_no_folder_of_a_version(tmp_path: Path, template: str) -> None:
    few = {"hidden_dim": 4, "max_nb_epochs": 1, "train_percent_check": 0.01, "val_percent_check": 0.1}
    options = {**few, "gpus": "none", "data_root": "/nowhere", "progress_bar": False, "model_save_path": tmp_path / "w"}
    done = subprocess.run(
        [sys.executable, TEMPLATES / template, "--debug", *words_of(options), "--tt_save_path", str(tmp_path / "tt")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert files_in(tmp_path) == {"w/default/debug/_ckpt_epoch_1.ckpt"}
    assert "version_None" not in done.stdout + done.stderr


@pytest.fixture
def parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    made = []
    monkeypatch.setattr(argparse_hopt, "sleep", lambda seconds: None)  # it waits up to 4 s before each trial
    monkeypatch.syspath_prepend(str(TEMPLATES))
    monkeypatch.chdir(tmp_path)

    def build(strategy: str) -> Any:
        from lightning_module_template import LightningTemplateModel

        parent = HyperOptArgumentParser(strategy=strategy, add_help=False)
        add_default_args(parent, str(tmp_path))
        parser = LightningTemplateModel.add_model_specific_args(parent, str(tmp_path))
        for name in ("--learning_rate", "--drop_prob"):
            parser.opt_args[name].tunable = True
        parser.opt_range(
            "--gradient_clip",
            default=0.0,
            type=float,
            low=0.1,
            high=1.0,
            nb_samples=2,
            tunable=strategy != "grid_search",
        )
        made.append(parser)
        few = {"train_percent_check": 0.01, "val_percent_check": 0.1, "test_percent_check": 0.02, "max_nb_epochs": 1}
        return parser.parse_args(words_of({"hidden_dim": 4, "progress_bar": False, **few}))

    yield build
    for parser in made:  # test-tube leaves its pool of processes open
        parser.pool.terminate()
        parser.pool.join()


@pytest.mark.parametrize(("strategy", "asked", "trials"), [("grid_search", 99, 8), ("random_search", 3, 3)])
def test_a_search_over_the_template_trains_each_trial(
    tmp_path: Path, parse: Any, strategy: str, asked: int, trials: int
) -> None:
    hparams = parse(strategy)
    from single_cpu_template import main

    # one worker: test-tube's version numbers race between processes
    hparams.optimize_parallel_cpu(main, nb_trials=asked, nb_workers=1)
    folders = sorted((tmp_path / "test_tube_logs/default").iterdir())
    assert len(folders) == trials
    tried = set()
    for folder in folders:
        with open(folder / "meta_tags.csv", newline="") as file:
            tags = {row["key"]: row["value"] for row in csv.DictReader(file)}
        tried.add((tags["learning_rate"], tags["drop_prob"], tags["gradient_clip"]))
        assert re.fullmatch(r"[0-9.e-]+", tags["gradient_clip"])
        with open(folder / "metrics.csv", newline="") as file:
            assert [row for row in csv.DictReader(file) if row["test_acc"]]
    assert len(tried) == trials
    assert len(list((tmp_path / "model_weights").rglob("*.ckpt"))) == trials
