"""What happens in a step on the GPU: the process never waits for it, and every kind of step gives the right weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from tests.gpu.measuring import Watched
from tests.gpu.models import Images, Plain, assert_same_bits, batches_on, bits_of, farthest, trainer_in
from tests.gpu.places import Place

pytestmark = pytest.mark.gpu


class Many(Images):
    """60 batches in order, with everything that a step has: buffers, dropout, a schedule of steps, a value for the
    log."""

    def __init__(self, hparams: Any = None) -> None:
        super().__init__(hparams, nb_batches=60)

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(self.data(), batch_size=8)


STEPS: dict[str, dict[str, Any]] = {
    "plain": {},
    "clipped by norm": {"gradient_clip": 1.0},
    "clipped by value": {"gradient_clip": 0.1, "gradient_clip_algorithm": "value"},
    "accumulated": {"accumulate_grad_batches": 4},
    "fused": {"fused_optimizers": True},
    "bf16": {"precision": "bf16"},
    "64": {"precision": "64"},
    "two virtual ranks": {"virtual_ranks": 2},
    "three, exactly": {"virtual_ranks": 3, "exact_elastic": True},
    "stop_on_nan off": {"stop_on_nan": False},
    "with a clock": {"max_time": 100},
    "no bundle": {"crash_bundle": False},
}


@pytest.mark.parametrize("name", list(STEPS))
def test_no_step_waits_for_the_gpu(place: Place, tmp_path: Path, name: str) -> None:
    """In 38 batches in which no row is due the process waits for the GPU not once, in any kind of step: not to look
    for a NaN, to clip, to seed, to keep buffers or to copy a batch."""
    virtual_ranks = STEPS[name].get("virtual_ranks", 1)
    seen = Watched(place, tmp_path, first=12 // virtual_ranks, last=50 // virtual_ranks)
    options = {"add_log_row_interval": 10**6, "log_save_interval": 10**6, "callbacks": [seen]}
    trainer_in(tmp_path, gpus=place.gpus, **options, **STEPS[name]).fit(Many())
    assert seen.waits == []


def test_float16_waits_once_in_a_step(place: Place, tmp_path: Path) -> None:
    """With precision='16' the one time that a step waits is torch's own: its scaler asks whether gradients are
    finite."""
    seen = Watched(place, tmp_path)
    options = {"add_log_row_interval": 10**6, "callbacks": [seen], "gradient_clip": 1.0}
    trainer_in(tmp_path, gpus=place.gpus, precision="16", **options).fit(Many())
    assert len(seen.waits) == seen.nb_batches


def test_gradient_norms_are_read_together(place: Place, tmp_path: Path) -> None:
    """With track_grad_norm a step waits once, however many parameters there are."""
    seen = Watched(place, tmp_path)
    options = {"add_log_row_interval": 10**6, "callbacks": [seen], "track_grad_norm": 2}
    trainer_in(tmp_path, gpus=place.gpus, **options).fit(Many())
    assert len(seen.waits) == seen.nb_batches


# ------------------------------------------------------------------ compiled steps
@pytest.mark.stands_in("CPU")
@pytest.mark.share(90)
@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_compiled_steps_train_alike(
    place: Place, tmp_path: Path, precision: str, capsys: pytest.CaptureFixture[str], record_property: Any
) -> None:
    """compile=True really compiles on the GPU, trains to the weights of plain steps up to rounding, waits for nothing,
    and a resume gives its own bits again."""
    plain, compiled, first, second = (Plain(nb_batches=60) for _ in range(4))
    options: dict[str, Any] = {"gpus": place.gpus, "precision": precision, "add_log_row_interval": 10**6}
    trainer_in(tmp_path, **options).fit(plain)
    options["compile"] = True
    seen = Watched(place, tmp_path)
    trainer_in(tmp_path, callbacks=[seen], **options).fit(compiled)
    assert "[not-compiled]" not in capsys.readouterr().err
    found = farthest(bits_of(compiled), bits_of(plain))
    record_property("distance from plain steps", found)
    assert found <= (1e-4 if precision == "32" else 0.05)
    assert seen.waits == []
    if place.is_gpu and precision == "32":
        assert any("triton" in str(event.get("name")) for event in seen.events if event.get("cat") == "kernel")
    trainer = trainer_in(tmp_path, max_nb_steps=30, **options)
    trainer.fit(first)
    trainer.save_checkpoint(tmp_path / "cut.ckpt")
    trainer_in(tmp_path, resume=tmp_path / "cut.ckpt", **options).fit(second)
    assert_same_bits(bits_of(second), bits_of(compiled))


# ------------------------------------------------------------------ optimizers
class Fused(Plain):
    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=0.01)


@pytest.mark.parametrize("precision", ["32", "16"])
def test_fused_optimizers_step_alike(place: Place, tmp_path: Path, precision: str) -> None:
    """fused_optimizers=True takes torch's fused kernel on the GPU, gives the weights of the plain one up to rounding,
    and goes through a resume of a run that began without it."""
    plain, fused, first, second = Fused(), Fused(), Fused(), Fused()
    options: dict[str, Any] = {"gpus": place.gpus, "precision": precision}
    trainer_in(tmp_path, **options).fit(plain)
    trainer = trainer_in(tmp_path, fused_optimizers=True, **options)
    trainer.fit(fused)
    assert trainer.optimizers[0].param_groups[0]["fused"] is True
    assert 0 <= farthest(bits_of(fused), bits_of(plain)) <= 1e-3
    trainer = trainer_in(tmp_path, max_nb_steps=5, **options)
    trainer.fit(first)
    trainer.save_checkpoint(tmp_path / "cut.ckpt")
    trainer = trainer_in(tmp_path, resume=tmp_path / "cut.ckpt", fused_optimizers=True, **options)
    trainer.fit(second)
    assert trainer.optimizers[0].param_groups[0]["fused"] is True
    assert farthest(bits_of(second), bits_of(plain)) <= 1e-3


class Searching(Plain):
    def configure_optimizers(self) -> Any:
        return torch.optim.LBFGS(self.net.parameters(), lr=0.1, max_iter=4)


def test_lbfgs_is_a_hand_written_loop(place: Place, tmp_path: Path) -> None:
    """LBFGS, which evaluates the loss itself, gives on the GPU the bits of a hand-written loop, and of a run that was
    resumed."""
    model, first, second = Searching(), Searching(), Searching()
    raw: Any = Searching().net.to(place.device)
    options: dict[str, Any] = {"gpus": place.gpus, "deterministic": True}
    trainer_in(tmp_path, **options).fit(model)
    optimizer = torch.optim.LBFGS(raw.parameters(), lr=0.1, max_iter=4)
    for x, y in batches_on(place.device, model.loader()):

        def evaluate(x: Any = x, y: Any = y) -> Any:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(raw(x), y)
            loss.backward()
            return loss

        optimizer.step(evaluate)
    assert_same_bits(bits_of(model.net), bits_of(raw))
    trainer = trainer_in(tmp_path, max_nb_steps=5, **options)
    trainer.fit(first)
    trainer.save_checkpoint(tmp_path / "cut.ckpt")
    trainer_in(tmp_path, resume=tmp_path / "cut.ckpt", **options).fit(second)
    assert_same_bits(bits_of(second), bits_of(model))


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_clipping_is_a_hand_written_loop(place: Place, tmp_path: Path, algorithm: str) -> None:
    """Gradients are clipped on the GPU as torch's own functions do it, to the last bit."""
    model = Plain()
    raw = Plain().net.to(place.device)
    options = {"gradient_clip": 0.05, "gradient_clip_algorithm": algorithm}
    trainer_in(tmp_path, gpus=place.gpus, **options).fit(model)
    optimizer = torch.optim.SGD(raw.parameters(), lr=0.05, momentum=0.9)
    for x, y in batches_on(place.device, model.loader()):
        nn.functional.mse_loss(raw(x), y).backward()
        if algorithm == "norm":
            nn.utils.clip_grad_norm_(raw.parameters(), 0.05)
        else:
            nn.utils.clip_grad_value_(raw.parameters(), 0.05)
        optimizer.step()
        optimizer.zero_grad()
    assert_same_bits(bits_of(model.net), bits_of(raw))
