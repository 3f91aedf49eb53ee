"""Whole programs on the GPU: the examples, and the networks of the benchmarks."""

import json
import re
import runpy
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import workloads
from pytorch_lightning import seeding
from tests.gpu.models import trainer_in
from tests.gpu.places import ROOT, Place, run_program

pytestmark = pytest.mark.gpu

QUICK = ("--max_nb_epochs", "1", "--train_percent_check", "0.1")
EXAMPLES = {
    "single_gpu_template.py": ("--hidden_dim", "16", "--val_percent_check", "0.5"),
    "multi_gpu_template.py": ("--hidden_dim", "16", "--val_percent_check", "0.5", "--gpus", "0"),
    "gan.py": ("--latent_dim", "8", "--gpus", "0", "--batch_size", "32"),
}


@pytest.mark.share(60)
@pytest.mark.parametrize("precision", ["32", "16"])
@pytest.mark.parametrize("name", list(EXAMPLES))
def test_an_example_runs_on_the_gpu(
    place: Place,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    precision: str,
) -> None:
    """The examples train, validate, test and save on the GPU as they are, in float32 and in float16."""
    pytest.importorskip("test_tube")
    pytest.importorskip("torchvision")
    for path in (*(ROOT / "examples").glob("*.py"), *(ROOT / "examples" / "new_project_templates").glob("*.py")):
        shutil.copy(path, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        nobody = f"http://127.0.0.1:{listening.getsockname()[1]}/"
    for variable in ("http_proxy", "https_proxy"):  # the digits come with the package
        monkeypatch.setenv(variable, nobody)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("lightning_module_template", None)
    monkeypatch.setattr(sys, "argv", [name, *QUICK, "--precision", precision, *EXAMPLES[name]])
    with seeding.preserved():
        runpy.run_path(str(tmp_path / name), run_name="__main__")
    shown = capsys.readouterr().out
    assert re.search(rf"training on {place.device}\b.* precision {precision}\b", shown)
    checkpoint = re.search(r"checkpoint\s+(\S+\.ckpt)", shown)
    assert checkpoint is not None
    saved = torch.load(tmp_path / checkpoint[1], weights_only=True, map_location="cpu")
    assert all(torch.isfinite(value).all() for value in saved["state_dict"].values() if value.is_floating_point())


@pytest.mark.share(60)
@pytest.mark.parametrize("name", ["W1", "W2", "W3", "W3large"])
def test_a_network_of_the_benchmarks_trains_on_the_gpu(place: Place, tmp_path: Path, name: str) -> None:
    """The networks of the benchmarks hold nothing that stays on the CPU: forward and backward run on the GPU, in
    float32 and in bfloat16."""
    from benchmarks.contestants import ours

    model: Any = {
        "W1": lambda: ours.Evaluated(workloads.w1_loader(3)),
        "W2": lambda: ours.Classifier(2),
        "W3": lambda: ours.Writer(2),
        "W3large": lambda: ours.Writer(2, large=True),
    }[name]()
    for precision in ("32", "bf16"):
        options = {"gpus": place.gpus, "precision": precision, "val_percent_check": 0.1}
        assert trainer_in(tmp_path, gradient_clip=1.0, **options).fit(model) == 1
    assert {p.device for p in model.parameters()} == {place.device}


def test_forward_passes_stay_on_cuda(place: Place, tmp_path: Path) -> None:
    """No forward pass of the benchmarks' networks mixes CUDA with the CPU, in any precision, by
    the rules of CUDA's own autocast: with a GPU it runs there, without one torch's fake tensors have its device."""
    done = run_program(tmp_path, "tests.gpu.forward_passes", without_device=not place.is_gpu)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["on"] == ("cuda" if place.is_gpu else "fake cuda")
    assert set(found["outputs"]) >= {"W1", "W2", "W3", "W3large"}
    kinds = {name: {kind: output["device"] for kind, output in each.items()} for name, each in found["outputs"].items()}
    assert all(set(each.values()) == {"cuda:0"} for each in kinds.values()), kinds
    for name, each in found["outputs"].items():
        assert each["16"]["dtype"] == "torch.float16", name
        assert each["bf16"]["dtype"] == "torch.bfloat16", name
