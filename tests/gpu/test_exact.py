"""A resume on the GPU gives the bits of a run that was never cut, and runs move between GPU and CPU."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pytorch_lightning import LightningModule, seeding
from pytorch_lightning.errors import MisconfigurationException
from tests.gpu.models import (
    Images,
    Plain,
    assert_same_bits,
    bits_of,
    farthest,
    rows_of,
    trainer_in,
)
from tests.gpu.places import Place, run_program

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("precision", ["32", "bf16", "16"])
def test_a_resume_gives_the_bits_of_a_run_that_was_never_cut(place: Place, tmp_path: Path, precision: str) -> None:
    """With deterministic=True a fit that is resumed in the middle of an epoch, with dropout, BatchNorm, Adam and a
    schedule of steps, ends with the bits of one that was never cut, in each precision."""
    options: dict[str, Any] = {"gpus": place.gpus, "precision": precision, "deterministic": True}
    options["add_log_row_interval"] = 1
    whole, first, second = Images(), Images(), Images()
    trainer_in(tmp_path / "a", max_nb_epochs=2, **options).fit(whole)
    trainer = trainer_in(tmp_path / "b", max_nb_steps=11, max_nb_epochs=2, **options)
    trainer.fit(first)
    trainer.save_checkpoint(tmp_path / "cut.ckpt")
    trainer_in(tmp_path / "c", max_nb_epochs=2, resume=tmp_path / "cut.ckpt", **options).fit(second)
    assert 0 < len(second.losses) < len(whole.losses)
    assert_same_bits(bits_of(second), bits_of(whole))
    assert torch.equal(torch.stack(first.losses + second.losses).cpu(), torch.stack(whole.losses).cpu())
    rows = {
        name: [{k: v for k, v in row.items() if k[:4] != "gpu_"} for row in rows_of(tmp_path / name, "Images")]
        for name in "abc"
    }
    assert rows["b"] + rows["c"] == rows["a"]


@pytest.mark.parametrize("precision", ["32", "16"])
def test_after_kill_9_a_resume_ends_with_the_same_bits(place: Place, tmp_path: Path, precision: str) -> None:
    """What a program has saved that is killed by kill -9 while it trains on the GPU is resumed by resume='auto', and
    ends bit-identical to an undisturbed run."""
    options: dict[str, Any] = {"gpus": place.gpus, "precision": precision, "deterministic": True, "max_nb_epochs": 3}
    options |= {"resume": "auto", "save_every_nb_batches": 2}
    whole, rest = Images(), Images()
    trainer_in(tmp_path / "whole", **options).fit(whole)
    (tmp_path / "killed").mkdir()
    killed = run_program(tmp_path / "killed", "tests.gpu.program", json.dumps({**options, "kill_at": 13}))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    trainer_in(tmp_path / "killed", **options).fit(rest)
    assert 0 < len(rest.losses) < len(whole.losses)
    assert_same_bits(bits_of(rest), bits_of(whole))
    assert torch.equal(torch.stack(rest.losses).cpu(), torch.stack(whole.losses[-len(rest.losses) :]).cpu())


@pytest.mark.parametrize("precision", ["32", "bf16", "16"])
@pytest.mark.parametrize("begins", ["GPU", "CPU"])
def test_a_run_moves_between_gpu_and_cpu(place: Place, tmp_path: Path, begins: str, precision: str) -> None:
    """A checkpoint of the GPU resumes on the CPU, and one of the CPU on the GPU: everything comes along, the
    optimizer's state lies where the weights do, and the weights end near those of a run in one place."""
    places = [place.gpus, None] if begins == "GPU" else [None, place.gpus]
    trainer = trainer_in(tmp_path, gpus=places[0], max_nb_steps=7, precision=precision)
    first, second, whole = Plain(), Plain(), Plain()
    trainer.fit(first)
    trainer.save_checkpoint(tmp_path / "cut.ckpt")
    trainer = trainer_in(tmp_path, gpus=places[1], max_nb_epochs=2, resume=tmp_path / "cut.ckpt", precision=precision)
    trainer.fit(second)
    trainer_in(tmp_path, gpus=places[1], max_nb_epochs=2, precision=precision).fit(whole)
    assert second.on_gpu is (places[1] is not None)
    weight = second.net[0].weight
    assert trainer.optimizers[0].state[weight]["momentum_buffer"].device == weight.device
    assert farthest(bits_of(second), bits_of(whole)) <= (1e-4 if precision == "32" else 0.02)


def test_a_checkpoint_of_the_gpu_is_read_where_there_is_none(place: Place, tmp_path: Path) -> None:
    """A machine without a GPU resumes what a GPU has saved, and loads its weights."""
    options = {"max_nb_epochs": 2, "max_nb_steps": 11, "gpus": place.gpus, "precision": "16"}
    trainer = trainer_in(tmp_path / "logs", **options)
    model = Images()
    trainer.fit(model)
    trainer.save_checkpoint(tmp_path / "cut.ckpt")
    command = json.dumps({"max_nb_epochs": 2, "resume": "cut.ckpt", "precision": "16"})
    done = run_program(tmp_path, "tests.gpu.program", command, without_device=True)
    assert done.returncode == 0, done.stderr
    assert "trained on cpu, from batch 11" in done.stdout
    loaded = Images.load_from_checkpoint(tmp_path / "cut.ckpt")
    assert_same_bits(bits_of(loaded), bits_of(model))


def test_where_weights_are_loaded_to(place: Place, tmp_path: Path) -> None:
    """load_from_metrics(on_gpu=True) and map_location read a checkpoint to the GPU and from it; the module is the
    same."""
    model = Plain()
    trainer = trainer_in(tmp_path, gpus=place.gpus)
    trainer.fit(model)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    tags = tmp_path / "Plain" / "version_0" / "meta_tags.csv"
    for loaded in (
        Plain.load_from_metrics(tmp_path / "a.ckpt", tags, on_gpu=False),
        Plain.load_from_checkpoint(tmp_path / "a.ckpt"),
    ):
        assert not loaded.on_gpu
        assert_same_bits(bits_of(loaded), bits_of(model))
    if place.is_gpu:
        loaded = Plain.load_from_metrics(tmp_path / "a.ckpt", tags, on_gpu=True)
        assert_same_bits(bits_of(loaded), bits_of(model))


# ------------------------------------------------------------------ random numbers
class Dropping(LightningModule):
    """Keeps what dropout made of ones."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(64))
        self.masks: list[Any] = []

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        dropped = nn.functional.dropout(self.weight * data_batch[0][0, 0] * 0 + 1)
        self.masks.append(dropped.detach().cpu())
        return dropped.sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0)

    tng_dataloader = property(lambda self: [(torch.ones(1, 1),)] * 4)  # type: ignore[assignment]


def test_dropout_on_the_gpu_depends_on_seed_and_batch_alone(place: Place, tmp_path: Path) -> None:
    """The numbers that a step draws on the GPU are functions of the seed and the number of its batch, the same in
    seeding.step_scope; and a fit leaves the GPU's own stream as it found it."""
    torch.rand(3, device=place.device)  # it has begun
    torch.manual_seed(5)
    expected = torch.rand(3, device=place.device).cpu()
    torch.manual_seed(5)
    model, other, again = Dropping(), Dropping(), Dropping()
    trainer_in(tmp_path, gpus=place.gpus, seed=1).fit(model)
    trainer_in(tmp_path, gpus=place.gpus, seed=2).fit(other)
    trainer_in(tmp_path, gpus=place.gpus, seed=1).fit(again)
    assert torch.equal(torch.rand(3, device=place.device).cpu(), expected)
    every = torch.stack(model.masks)
    assert torch.equal(every, torch.stack(again.masks))
    assert len({tuple(mask.tolist()) for mask in [*model.masks, *other.masks]}) == 8
    for step in range(4):
        with seeding.step_scope(1, step):
            by_hand = nn.functional.dropout(torch.ones(64, device=place.device))
        assert torch.equal(by_hand.cpu(), every[step])


def test_a_fit_leaves_the_stream_of_a_gpu_that_it_was_the_first_to_use(place: Place, tmp_path: Path) -> None:
    """What a script draws on the GPU after a fit doesn't depend on the fit, also where that was the first to use the
    GPU."""
    drawn = [
        run_program(tmp_path, "tests.gpu.draw_after_a_fit", str(nb_batches)).stdout.splitlines()[-1]
        for nb_batches in (0, 2)
    ]
    assert drawn[0].startswith("drew 0.")
    assert len(set(drawn)) == 1


# ------------------------------------------------------------------ deterministic=True
LATE = "CUBLAS_WORKSPACE_CONFIG"


def test_deterministic_is_refused_where_it_comes_too_late(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch looks at CUBLAS_WORKSPACE_CONFIG at the first product on the GPU: where there was one without it, a fit
    with deterministic=True says so before its first batch, and leaves torch's settings as they were."""
    if place.is_gpu:
        late = run_program(tmp_path, "tests.gpu.too_late", **{LATE: ""})
        assert late.returncode == 1
        assert "MisconfigurationException: deterministic=True can't work in this process" in late.stderr
        in_time = run_program(tmp_path, "tests.gpu.too_late", **{LATE: ":4096:8"})
        assert in_time.returncode == 0, in_time.stderr
        return

    def fail(*arguments: Any) -> Any:
        raise RuntimeError(f"this operation is not deterministic because it uses CuBLAS ... {LATE}=:4096:8")

    model = Plain()
    with monkeypatch.context() as patched:
        patched.setattr(torch, "mm", fail)
        with pytest.raises(MisconfigurationException, match="deterministic=True can't work in this process"):
            trainer_in(tmp_path, gpus=place.gpus, deterministic=True).fit(model)
    assert not torch.are_deterministic_algorithms_enabled()
    assert not model.made
    trainer_in(tmp_path, gpus=place.gpus, deterministic=True).fit(model)


def test_a_batch_is_trained_again_by_replay(place: Place, tmp_path: Path) -> None:
    """trainer.replay(step) trains a copy from a rolling save up to a batch: on the GPU its loss has the bits of the
    first time."""
    model = Images(at=lambda step: 1 // (step != 7))
    trainer = trainer_in(tmp_path, gpus=place.gpus, save_every_nb_batches=3, deterministic=True)
    with pytest.raises(ZeroDivisionError):
        trainer.fit(model)
    before = bits_of(model)
    model.at = bool
    output = trainer.replay(6)
    assert output["loss"].device == place.device
    assert torch.equal(output["loss"].detach().cpu(), model.losses[6].cpu())
    assert_same_bits(bits_of(model), before)


def test_waiting_gradients_are_resumed(place: Place, tmp_path: Path) -> None:
    """Gradients that a user's optimizer_step lets wait are saved, and lie on the GPU again after a resume."""

    class Waiting(Plain):
        def optimizer_step(self, epoch_nb: int, batch_nb: int, optimizer: Any, optimizer_i: int) -> None:
            if batch_nb % 3 == 2:
                optimizer.step()

    class Cut(Waiting):
        def on_batch_end(self) -> None:
            if self.global_step == 4:
                self.trainer.save_checkpoint(tmp_path / "cut.ckpt")

    first, second = Cut(), Waiting()
    trainer_in(tmp_path, gpus=place.gpus).fit(first)
    saved = torch.load(tmp_path / "cut.ckpt", weights_only=True, map_location="cpu")
    assert len(saved["parts"]["gradients"]["waiting"][0]) == len(list(first.parameters()))
    trainer_in(tmp_path, gpus=place.gpus, resume=tmp_path / "cut.ckpt").fit(second)
    assert_same_bits(bits_of(second), bits_of(first))
