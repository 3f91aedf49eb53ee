"""float16's gradient scaler on the GPU, beside torch's own in a hand-written loop."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from tests.gpu.models import Plain, assert_same_bits, batches_on, bits_of, trainer_in
from tests.gpu.places import Place

pytestmark = pytest.mark.gpu

LARGE = (2, 3, 9)
"""The batches whose gradients overflow float16 at first, three in each epoch."""


class Overflowing(Plain):
    """Some batches have targets that are a thousand times as large. ``make`` makes the optimizer."""

    def __init__(self, make: Any = torch.optim.SGD, hparams: Any = None) -> None:
        super().__init__(hparams)
        self.make = make

    def data(self) -> TensorDataset:
        x, y = super().data().tensors
        y = y.clone()
        for n in LARGE:
            y[16 * n : 16 * n + 16] += 1000.0
        return TensorDataset(x, y)

    def configure_optimizers(self) -> Any:
        optimizer = self.make(self.net.parameters(), lr=1e-3)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.9)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Raw:
    """The same as a hand-written loop."""

    def __init__(self, place: Place, model: Overflowing, clip: float, fused: bool) -> None:
        self.device, self.clip = place.device, clip
        self.net: Any = Overflowing().net.to(place.device)
        self.optimizer = model.make(self.net.parameters(), lr=1e-3, **({"fused": True} if fused else {}))
        self.schedule = torch.optim.lr_scheduler.StepLR(self.optimizer, 2, 0.9)
        self.scaler = torch.amp.GradScaler(place.autocast)
        self.nb_steps = 0

    def train(self, batches: Any) -> None:
        for x, y in batches:
            with torch.autocast(self.device.type, torch.float16):
                loss = nn.functional.mse_loss(self.net(x), y)
            self.scaler.scale(loss).backward()
            if self.clip:
                self.scaler.unscale_(self.optimizer)
                nn.utils.clip_grad_norm_(self.net.parameters(), self.clip)
            before = self.scaler.get_scale()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            if self.scaler.get_scale() >= before:
                self.nb_steps += 1
                self.schedule.step()
            self.optimizer.zero_grad()


def assert_same(trainer: Any, model: Overflowing, raw: Raw, folder: Path) -> None:
    assert_same_bits(bits_of(model.net), bits_of(raw.net))
    assert trainer.optimizers[0].param_groups[0]["lr"] == raw.optimizer.param_groups[0]["lr"]
    path = folder / "afterwards.ckpt"
    trainer.save_checkpoint(path)
    parts = torch.load(path, weights_only=True, map_location="cpu")["parts"]
    assert parts["precision"] == raw.scaler.state_dict()
    assert parts["progress"]["nb_optimizer_steps"] == raw.nb_steps


@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize(
    ("make", "fused"), [(torch.optim.SGD, False), (torch.optim.Adam, False), (torch.optim.Adam, True)]
)
def test_steps_that_overflow_are_skipped_as_in_a_hand_written_loop(
    place: Place, tmp_path: Path, make: Any, fused: bool, clip: float, record_property: Any
) -> None:
    """Where a gradient overflows the step is skipped, the scale halved, and the schedule of steps waits: the weights
    are, bit for bit, those of a loop around torch's own scaler, with clipping and fused optimizers too."""
    model = Overflowing(make)
    raw = Raw(place, model, clip, fused)
    trainer = trainer_in(
        tmp_path, gpus=place.gpus, precision="16", max_nb_epochs=3, gradient_clip=clip, fused_optimizers=fused
    )
    trainer.fit(model)
    for _ in range(3):
        raw.train(batches_on(place.device, model.loader()))
    skipped = 3 * model.nb_batches - raw.nb_steps
    record_property("skipped steps", skipped)
    assert 4 <= skipped <= 9
    assert_same(trainer, model, raw, tmp_path)


def test_the_scale_and_its_schedules_go_through_a_resume(place: Place, tmp_path: Path) -> None:
    """A fit that is resumed right after skipped steps keeps the same scale, and so does its growth: the bits
    are those of a hand-written loop that was never interrupted."""
    first = Overflowing()
    trainer = trainer_in(tmp_path, gpus=place.gpus, precision="16", train_percent_check=0.34)
    trainer.fit(first)
    raw = Raw(place, first, 0.0, False)
    raw.train(batches_on(place.device, first.loader())[:4])
    assert raw.nb_steps < 4
    assert_same(trainer, first, raw, tmp_path)

    # 2000 good steps double the scale; here a few do
    path = tmp_path / "edited.ckpt"
    trainer.save_checkpoint(path)
    checkpoint = torch.load(path, weights_only=True, map_location="cpu")
    checkpoint["parts"]["precision"]["growth_interval"] = 3
    torch.save(checkpoint, path)
    raw.scaler.load_state_dict(checkpoint["parts"]["precision"])

    second = Overflowing()
    options = {"max_nb_epochs": 3, "train_percent_check": 0.34, "resume": path}
    trainer = trainer_in(tmp_path, gpus=place.gpus, precision="16", **options)
    trainer.fit(second)
    for _ in range(2):
        raw.train(batches_on(place.device, second.loader())[:4])
    assert_same(trainer, second, raw, tmp_path)


def test_a_loss_that_is_not_finite_stops_and_says_where(place: Place, tmp_path: Path) -> None:
    """A NaN in the loss ends the fit by the next row, on the GPU without waiting for it in each step; with
    ``stop_on_nan=False`` it is counted, and training continues."""
    from pytorch_lightning.errors import FitError

    class Breaking(Plain):
        seen = 0

        def training_step(self, data_batch: Any, batch_nb: int) -> Tensor:
            self.seen += 1
            return self.loss(data_batch) * (float("nan") if batch_nb == 12 else 1.0)

    model = Breaking(nb_batches=40)
    with pytest.raises(FitError, match=r"the loss isn't finite in one of the batches since the last row"):
        trainer_in(tmp_path, gpus=place.gpus).fit(model)
    assert model.seen == 21  # the next row is that of batch 20
    model = Breaking(nb_batches=40)
    trainer = trainer_in(tmp_path, gpus=place.gpus, stop_on_nan=False)
    assert trainer.fit(model) == 1
    assert model.seen == 40
