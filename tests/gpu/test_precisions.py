"""Training on the GPU in every precision, beside float32 and beside loops that a person would write."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.gpu.models import (
    Images,
    Plain,
    Validated,
    assert_same_bits,
    batches_on,
    bits_of,
    distance,
    farthest,
    trainer_in,
)
from tests.gpu.places import Place

pytestmark = pytest.mark.gpu

FARTHEST = {"64": 1e-4, "bf16": 0.05, "16": 0.01, "bf16-true": 0.2, "16-true": 0.05}
"""How far weights may lie from float32's after 24 steps, for each of the largest."""
MADE = {"64": torch.float64, "bf16": torch.bfloat16, "16": torch.float16}
"""What a product gives."""
MADE |= {"bf16-true": torch.bfloat16, "16-true": torch.float16}
KEPT = {"64": torch.float64, "bf16-true": torch.bfloat16, "16-true": torch.float16}
"""What weights are kept in, where that isn't float32."""


def trained(folder: Path, model: Plain, **options: Any) -> Plain:
    assert trainer_in(folder, max_nb_epochs=2, **options).fit(model) == 1
    return model


@pytest.mark.parametrize("precision", list(FARTHEST))
def test_a_precision_trains_like_float32(place: Place, tmp_path: Path, precision: str, record_property: Any) -> None:
    """Each precision gives float32's weights on the same seeds, as far as its digits go, makes its products in its
    own type and keeps its weights in the right one."""
    exact = trained(tmp_path, Plain(), gpus=place.gpus)
    model = trained(tmp_path, Plain(), gpus=place.gpus, precision=precision)
    assert {p.device for p in model.parameters()} == {place.device}
    assert {p.dtype for p in model.parameters()} == {KEPT.get(precision, torch.float32)}
    assert model.made == {MADE[precision]}
    assert exact.made == {torch.float32}
    found = farthest(bits_of(model), bits_of(exact))
    record_property("distance from float32", found)
    assert 0 < found <= FARTHEST[precision]


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("clip", [0.0, 0.1])
def test_float32_is_a_hand_written_loop(place: Place, tmp_path: Path, accumulate: int, clip: float) -> None:
    """In float32 a fit on the GPU gives the bits of a hand-written loop there, also with clipping and with batches
    that are accumulated."""
    model = Plain()
    raw = Plain().net.to(place.device)
    trainer_in(tmp_path, gpus=place.gpus, accumulate_grad_batches=accumulate, gradient_clip=clip).fit(model)
    optimizer = torch.optim.SGD(raw.parameters(), lr=0.05, momentum=0.9)
    for n, (x, y) in enumerate(batches_on(place.device, model.loader()), 1):
        (nn.functional.mse_loss(raw(x), y) / accumulate).backward()
        if n % accumulate == 0:
            if clip:
                nn.utils.clip_grad_norm_(raw.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
    assert_same_bits(bits_of(model.net), bits_of(raw))


@pytest.mark.parametrize("make", [Plain, Images])
def test_the_gpu_trains_like_the_cpu(place: Place, tmp_path: Path, make: Any, record_property: Any) -> None:
    """A fit on the GPU gives the weights of one on the CPU, up to rounding: with dropout only the shapes and the
    order can be the same, since a GPU draws other numbers."""
    here, there = make(), make()
    trainer_in(tmp_path, gpus=place.gpus).fit(here)
    trainer_in(tmp_path).fit(there)
    assert not there.on_gpu
    assert here.on_gpu
    found = farthest(bits_of(here), bits_of(there))
    record_property("distance from the CPU", found)
    if make is Plain:
        assert found <= 1e-4
    else:
        assert here.net[1].num_batches_tracked == there.net[1].num_batches_tracked == here.nb_batches


@pytest.mark.parametrize("precision", ["32", "bf16", "16", "bf16-true"])
def test_what_is_evaluated_on_the_gpu(place: Place, tmp_path: Path, precision: str) -> None:
    """validate, test and predict run on the GPU in the fit's precision; predictions come back on the CPU, in the
    loader's order, and the numbers are those of the CPU up to rounding."""
    model = Validated()
    trainer = trainer_in(tmp_path, gpus=place.gpus, precision=precision)
    trainer.fit(model)
    validated, tested, predicted = trainer.validate(), trainer.test(), trainer.predict()
    assert {output.device.type for output in predicted} == {"cpu"}
    assert validated == tested
    assert trainer.tng_tqdm_dic["val_loss"] == pytest.approx(validated["val_loss"])
    on_cpu = model.float().cpu()
    with torch.no_grad():
        expected = [on_cpu(x) for x, _ in model.loader()]
        losses = [nn.functional.mse_loss(out, y) for out, (_, y) in zip(expected, model.loader(), strict=True)]
    tolerance = 1e-4 if precision == "32" else 0.05
    assert distance(torch.cat(predicted), torch.cat(expected)) <= tolerance
    assert validated["val_loss"] == pytest.approx(float(sum(losses)) / len(losses), rel=tolerance)


class Turns(Plain):
    """Two optimizers, each with its own loss."""

    def training_step(self, data_batch: Any, batch_nb: int, optimizer_i: int) -> Any:  # type: ignore[override]
        loss = self.loss(data_batch)
        return {"loss": loss if optimizer_i else loss.abs().sqrt()}

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.net[0].parameters(), 0.01), torch.optim.Adam(self.net[2].parameters(), 0.01)]


@pytest.mark.parametrize(
    "options",
    [{}, {"accumulate_grad_batches": 3}, {"virtual_ranks": 2}, {"virtual_ranks": 3, "exact_elastic": True}],
    ids=["plain", "accumulated", "two virtual ranks", "three, exactly"],
)
@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_two_optimizers_and_virtual_ranks(place: Place, tmp_path: Path, options: Any, precision: str) -> None:
    """Steps for several optimizers, and several virtual ranks, give on the GPU what they give on the CPU."""
    here, there = Turns(), Turns()
    trainer_in(tmp_path, gpus=place.gpus, precision=precision, **options).fit(here)
    trainer_in(tmp_path, precision=precision, **options).fit(there)
    assert farthest(bits_of(here), bits_of(there)) <= (1e-4 if precision == "32" else 0.05)
