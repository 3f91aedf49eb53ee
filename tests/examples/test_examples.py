"""The examples run as programs: copied into another folder, without a network, and say where their files are."""

import csv
import importlib.util
import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
import threading
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import pytorch_lightning
from pytorch_lightning import seeding
from pytorch_lightning.data import digits
from pytorch_lightning.errors import MisconfigurationException

ROOT = Path(pytorch_lightning.__file__).parent.parent
EXAMPLES = ROOT / "examples"
QUICK = ("--hidden_dim", "16", "--train_percent_check", "0.2", "--val_percent_check", "0.5")


@pytest.fixture(autouse=True)
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder holds copies of all examples, and a proxy refuses at once: no network, and no waiting."""
    for path in (*EXAMPLES.glob("*.py"), *EXAMPLES.glob("new_project_templates/*.py")):
        shutil.copy(path, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        nobody = f"http://127.0.0.1:{listening.getsockname()[1]}/"
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, nobody)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(digits, "_given_up", threading.Event())


Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """``run(name, *options)``: an example as if it were started, without the seconds that a start takes; gives what
    it printed."""
    monkeypatch.syspath_prepend(tmp_path)

    def run_example(name: str, *options: str) -> str:
        monkeypatch.setattr(sys, "argv", [str(tmp_path / name), *options])
        sys.modules.pop("lightning_module_template", None)
        with seeding.preserved():
            runpy.run_path(str(tmp_path / name), run_name="__main__")
        return capsys.readouterr().out

    return run_example


def shown(output: str, name: str) -> str:
    """What a program printed behind ``name``."""
    (value,) = re.findall(rf"^{name} +(.+)$", output, re.MULTILINE)
    return str(value)


def rows_of(path: str) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_template_is_a_program_that_trains_tests_and_says_where_its_files_are(tmp_path: Path) -> None:
    options = (*QUICK, "--max_nb_epochs", "2", "--seed", "1", "--add_log_row_interval", "2")
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "single_cpu_template.py", *options]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("WARNING") == 1, "one line says that the digits are a subset"
    assert "epoch 2: 3/3 mean_loss=" in done.stderr

    metrics = shown(done.stdout, "metrics")
    assert Path(metrics).is_relative_to(tmp_path)
    rows = rows_of(metrics)
    assert [(r["epoch"], r["batch_nb"]) for r in rows if r["tng_loss"]] == [
        ("0", "0"),
        ("0", "2"),
        ("1", "0"),
        ("1", "2"),
    ]
    assert all(r["tng_acc"] and r["output_weight_norm"] for r in rows if r["tng_loss"])
    assert len([r for r in rows if r["val_loss"] and r["val_acc"]]) == 2
    tags = {row["key"]: row["value"] for row in rows_of(str(Path(metrics).with_name("meta_tags.csv")))}
    assert (tags["hidden_dim"], tags["batch_size"], tags["max_nb_epochs"]) == ("16", "256", "2")
    assert list(Path(shown(done.stdout, "tensorboard")).iterdir())

    best = shown(done.stdout, "best checkpoint")
    assert Path(best).is_relative_to(tmp_path / "model_weights")
    checkpoint = torch.load(best, weights_only=True)
    assert checkpoint["state_dict"]["hidden.weight"].shape == (16, 784)
    accuracy = float(shown(done.stdout, "test accuracy"))
    assert accuracy == round(float(rows[-1]["test_acc"]), 3)
    assert 0.05 < accuracy < 1.0


def test_a_trial_names_no_file_that_is_not_there(tmp_path: Path, run: Run) -> None:
    out = run("single_cpu_template.py", *QUICK, "--fast_dev_run")
    assert Path(shown(out, "best checkpoint")).exists()
    assert "metrics.csv" not in out
    assert not (tmp_path / "model_weights").exists()
    assert "gan.ckpt" not in run("gan.py", "--fast_dev_run", "--latent_dim", "8")


def test_the_template_begins_with_the_weights_that_it_is_given(tmp_path: Path, run: Run) -> None:
    options = (*QUICK, "--max_nb_epochs", "1", "--seed", "1")
    first = torch.load(shown(run("single_cpu_template.py", *options), "best checkpoint"), weights_only=True)
    given = ("--model_load_weights_path", str(tmp_path / "given.ckpt"), "--learning_rate", "0")
    torch.save(first, given[1])
    for name, more in (("single_cpu_template.py", ()), ("single_gpu_template.py", ("--gpus", "none"))):
        out = run(name, *options, *given, *more)
        second = torch.load(shown(out, "best checkpoint"), weights_only=True)
        assert second["hparams"]["learning_rate"] == 0, "the command line's, not that of the checkpoint"
        for key in ("hidden.weight", "output.weight"):
            assert torch.equal(second["state_dict"][key], first["state_dict"][key]), key


def test_the_gpu_template_runs_on_the_cpu_if_requested(run: Run) -> None:
    out = run("single_gpu_template.py", *QUICK, "--max_nb_epochs", "1", "--gpus", "none")
    assert Path(shown(out, "metrics")).exists()
    assert "training on cpu" in out


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU")
def test_the_gpu_template_without_a_gpu_ends_with_one_clear_error(run: Run) -> None:
    message = r"gpus='0' names GPUs that aren't there: \[0\] \(this machine has 0\). Pass .*--gpus none"
    with pytest.raises(MisconfigurationException, match=message) as caught:
        run("single_gpu_template.py", *QUICK)
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_the_gan_draws_its_digits(run: Run) -> None:
    out = run("gan.py", "--max_nb_epochs", "2", "--train_percent_check", "0.03", "--latent_dim", "8")
    folder = Path(shown(out, "images")).parent
    images = [folder / f"epoch_{n}.png" for n in (1, 2)]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in images)
    assert images[0].read_bytes() != images[1].read_bytes()
    row = rows_of(shown(out, "metrics"))[0]
    assert float(row["generator_loss"]) != float(row["discriminator_loss"])
    checkpoint = torch.load(shown(out, "checkpoint"), weights_only=True)
    assert len(checkpoint["optimizer_states"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["batch.run:6", "batch.run:13", "validation.run:4"])
def test_fine_tuning_with_an_average_ends_alike_where_it_was_killed(tmp_path: Path, fault: str) -> None:
    options = ("--max_nb_epochs", "4", "--nb_digits", "160", "--save_every_nb_batches", "1", "--progress_bar", "False")

    def run_program(folder: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "fine_tuning.py", "--folder", folder, *options]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)

    whole, killed, again = run_program("whole"), run_program("cut", FAULT=fault), run_program("cut")
    assert (whole.returncode, killed.returncode, again.returncode) == (0, -9, 0), again.stderr
    assert shown(whole.stdout, "test accuracy") == shown(again.stdout, "test accuracy")
    one, other = (torch.load(shown(done.stdout, "checkpoint"), weights_only=True) for done in (whole, again))
    average, resumed = (made["parts"]["callbacks"]["WeightAveraging 0"]["weights"] for made in (one, other))
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name
    assert all(torch.equal(value, resumed[name]) for name, value in average.items())
    assert not torch.equal(average["head.weight"], one["state_dict"]["head.weight"])


def test_the_plain_loop_runs(tmp_path: Path, run: Run) -> None:
    out = run("minimal_loop.py", "--max_nb_epochs", "1", "--hidden_dim", "16")
    assert Path(shown(out, "best checkpoint")) == tmp_path / "minimal_loop.pt"
    assert float(shown(out, "test accuracy")) > 0.3


def load(path: Path) -> Any:
    """A file of the examples as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_plain_loop_has_the_templates_network() -> None:
    hparams = Namespace(in_features=784, out_features=10, hidden_dim=7, drop_prob=0.2)
    template = load(EXAMPLES / "new_project_templates" / "lightning_module_template.py").LightningTemplateModel(hparams)
    plain = load(EXAMPLES / "minimal_loop.py").Model(hparams)
    shapes = {name: value.shape for name, value in template.state_dict().items()}
    assert shapes == {name: value.shape for name, value in plain.state_dict().items()}

    plain.load_state_dict(template.state_dict())
    images = torch.rand(3, 1, 28, 28)
    outputs = []
    for model in (template, plain):
        torch.manual_seed(0)
        outputs.append(model(images))
    assert torch.equal(*outputs)


def test_the_two_templates_differ_only_in_where_they_run() -> None:
    folder = EXAMPLES / "new_project_templates"
    cpu, gpu = ((folder / f"single_{kind}_template.py").read_text() for kind in ("cpu", "gpu"))
    assert cpu.split("def main")[1].split("# what suits")[0] == gpu.split("def main")[1].split("# what suits")[0]
