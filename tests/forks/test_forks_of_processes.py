"""Forks of runs of two processes, or of two virtual ranks, made in one and trained by one or two: a loop by hand of two
replicas that is edited at that batch."""

import json
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytorch_lightning.forks.child import rows_of
from pytorch_lightning.seeding import step_scope
from tests.forks.models import SEEN, ByHand
from tests.forks.test_fork_cases import end_of, same
from tests.forks.test_forks import HPARAMS, QUIET, forked, refusal, saves_of, trained
from tests.forks.test_forks_of_gans import ByItself

ROOT = Path(__file__).parents[2]
LARGER = {"nb": 48, "schedule": "lambda"}
EDITS = ("--set", "lr=0.01", "dropout=0.4", "gradient_clip=0.2", "--skip_batches", "12:14")
MODULE = ("--module", "tests.forks.models")


class Pairs:
    """The batches of a loader, two at a time: those of the replicas."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Any]:
        batches = list(self._loader)
        return iter(zip(batches[::2], batches[1::2], strict=True))


class Replicas(ByHand):
    """Two replicas in plain torch: each has its batch and its random numbers, and their gradients are added."""

    def __init__(self, nb_epochs: int = 2, **hparams: Any) -> None:
        self.hparams_before = Namespace(**{**HPARAMS, **LARGER, **hparams})
        super().__init__(self.hparams_before, QUIET["seed"], nb_epochs)
        self.loader = Pairs(self.loader)

    def window(self, batches: Any, step: int) -> None:
        for n, pair in enumerate(batches):
            self.seen[step + n] = self.weights()
            replicas: list[tuple[Tensor, ...]] = []
            for rank, (x, y) in enumerate(pair):
                with step_scope(self.seed, step + n, rank):
                    loss = self.alpha * (self.net(x) - y).pow(2).mean() / 2
                replicas.append(torch.autograd.grad(loss, [*self.net.parameters()]))
            for p, first, second in zip(self.net.parameters(), *replicas, strict=True):
                p.grad = first + second
        if self.clip:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.clip)
        self.optimizer.step()
        if self.schedule is not None:
            self.schedule[0].step()

    def edit(self) -> None:
        """What ``EDITS`` are."""
        self.set_rate(0.01)
        self.clip = 0.2
        for layer in self.net:
            if isinstance(layer, nn.Dropout):
                layer.p = 0.4


def compare(run: Path, child: Path, hand: Replicas) -> None:
    """Each save of the fork is the loop, and each row up to the fork is the parent's."""
    assert same(end_of(child), hand.end)
    steps = [step for step in saves_of(child) if step in hand.seen]
    assert min(steps) == 10
    for step in steps:
        state = torch.load(child / "checkpoints" / f"step-{step:012d}.ckpt", weights_only=True)["state_dict"]
        assert same([*state.values()], hand.seen[step]), step
    before, now = ([r for r in rows_of(f / "metrics.csv") if int(r["global_step"]) < 10] for f in (run, child))
    assert before == now != []


def test_a_fork_of_two_virtual_ranks_in_one_process(tmp_path: Path) -> None:
    run = trained(tmp_path, hparams=LARGER, virtual_ranks=2)
    child = forked(run, 10, *EDITS)
    hand = Replicas().train(10, Replicas.edit, (12, 13))
    assert sorted(SEEN) == [n for n in hand.seen if n >= min(SEEN)]
    for step, weights in SEEN.items():
        assert same(weights, hand.seen[step]), step
    compare(run, child, hand)


@pytest.mark.slow
def test_a_fork_of_two_processes_is_trained_by_one_and_by_two(tmp_path: Path) -> None:
    run = trained(tmp_path, hparams=LARGER, nb_processes=2)
    assert json.loads((run / "run.json").read_text())["starts"][0]["processes"] == 2
    hand = Replicas().train(10, Replicas.edit, (12, 13))
    for words, nb in ((["--nb_processes", "1"], 1), ([], 2)):
        child = forked(run, 10, *EDITS, *words)
        (start,) = json.loads((child / "run.json").read_text())["starts"]
        assert (start["processes"], start["state"], start["from_step"]) == (nb, "complete", 10)
        compare(run, child, hand)


def ran(folder: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command], env=environment, cwd=folder, capture_output=True, text=True, timeout=120
    )


@pytest.mark.slow
def test_a_fork_is_made_alone_and_trained_by_torchrun(tmp_path: Path) -> None:
    run = trained(tmp_path, hparams=LARGER, virtual_ranks=2)
    words = ["-m", "pytorch_lightning", "fork", str(run), "10", *MODULE, *EDITS]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *words]
    refused = ran(tmp_path, *torchrun)
    assert refused.returncode
    assert "torchrun started 2 processes, and a fork is made by one. Run the same command alone" in refused.stderr
    made = ran(tmp_path, *words, "--make_only")
    assert made.returncode == 0, made.stderr
    child = run.with_name("version_1")
    assert "starts" not in json.loads((child / "run.json").read_text())
    done = ran(tmp_path, *torchrun, "--resume")
    assert done.returncode == 0, done.stderr
    assert json.loads((child / "run.json").read_text())["starts"][0]["processes"] == 2
    compare(run, child, Replicas().train(10, Replicas.edit, (12, 13)))


@pytest.mark.slow
def test_a_script_is_known_to_the_processes_that_train_its_fork(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import sys\nfrom argparse import Namespace\nfrom tests.forks import models\n"
        "from tests.forks.test_forks import HPARAMS, trained\nfrom pathlib import Path\n\n\n"
        "class Model(models.Model):\n    pass\n\n\n"
        "if __name__ == '__main__':\n"
        "    trained(Path('.'), Model, {'nb': 48, 'schedule': 'lambda'}, nb_processes=2)\n"
    )
    done = ran(tmp_path, str(script))
    assert done.returncode == 0, done.stderr
    run = tmp_path / "Model" / "version_0"
    done = ran(tmp_path, "-m", "pytorch_lightning", "fork", str(run), "10", "--script", "train.py", *EDITS)
    assert done.returncode == 0, done.stderr
    compare(run, run.with_name("version_1"), Replicas().train(10, Replicas.edit, (12, 13)))


@pytest.mark.slow
def test_sums_that_one_process_makes_otherwise_are_not_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    several: dict[str, Any] = {"nb_processes": 2, "virtual_ranks": 4, "save_every_nb_batches": 2}
    run = trained(tmp_path / "1", hparams=LARGER, **several)
    said = refusal(capsys, run, 3, module="tests.forks.models")
    assert "was trained on 4 virtual ranks by several processes, and one sums their gradients otherwise" in said
    steps = sorted(saves_of(run))
    assert f"one of {', '.join(map(str, steps))}. Runs with exact_elastic=True have no such limit" in said
    assert forked(run, 0, "--set", "lr=0.01").name == "version_1"
    if 4 in steps:  # the disk was fast enough
        said = refusal(capsys, run, 4, module="tests.forks.models")
        assert "a validation, or the end of an epoch, comes between the save and that batch, and has sums too" in said
    exact = trained(tmp_path / "2", hparams=LARGER, **several, exact_elastic=True)
    assert forked(exact, 3, "--nb_processes", "1").name == "version_1"
    assert same(end_of(exact.with_name("version_1")), end_of(exact))  # no edit: it is its parent


def test_what_one_process_can_not_repeat_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path, hparams=LARGER, virtual_ranks=2)
    options = (run / "options.yaml").read_text()
    for changed, said in (
        ("data_is_sharded: true", "trained with data_is_sharded=True, so each process had data of its own"),
        ('distributed_backend: "fsdp"', "was trained on several devices. A fork is made in one process"),
        ("gpus: 2", "was trained on several devices. A fork is made in one process"),
    ):
        name = changed.partition(":")[0]
        lines = [changed if line.startswith(f"{name}:") else line for line in options.splitlines()]
        (run / "options.yaml").write_text("\n".join(lines))
        assert said in refusal(capsys, run, 10, module="tests.forks.models")


@pytest.mark.slow
def test_own_steps_in_several_processes_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hparams = {"rate": 0.02, "critic_rate": 0.05, "dropout": 0.2}
    run = trained(tmp_path, ByItself, hparams, nb_processes=2)
    said = refusal(capsys, run, 3, "--model", "ByItself", module="tests.forks.test_forks_of_gans")
    assert "training_step makes its own steps, and" in said
    assert "Train with Trainer(resume=...) from a save of it instead" in said
