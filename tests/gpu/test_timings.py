"""Where the time is spent on the GPU, and the memory that rows report."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.gpu import stand_in
from tests.gpu.measuring import Watched
from tests.gpu.models import Images, Plain, rows_of, trainer_in
from tests.gpu.places import STAND_IN, Place

pytestmark = pytest.mark.gpu

MS = 4.0
"""What the GPU is kept busy in each forward pass."""


def busy(place: Place) -> Any:
    """A function that keeps the GPU busy for about ``MS`` milliseconds, and what it takes by the clock on the wall."""
    if not place.is_gpu:
        return lambda: time.sleep(MS / 1000), MS / 1000
    torch.cuda._sleep(1000)
    torch.cuda.synchronize()
    start = time.perf_counter()
    torch.cuda._sleep(200_000_000)
    torch.cuda.synchronize()
    cycles = int(MS / 1000 / (time.perf_counter() - start) * 200_000_000)
    start = time.perf_counter()
    for _ in range(50):
        torch.cuda._sleep(cycles)
    torch.cuda.synchronize()
    return lambda: torch.cuda._sleep(cycles), (time.perf_counter() - start) / 50


def test_the_phases_of_a_step_are_the_gpus_own_time(place: Place, tmp_path: Path, record_property: Any) -> None:
    """trainer.timings gives the forward pass the time that the GPU spends in it, as measured by hand with
    synchronising, though nothing waits for the GPU; and the phases add up to the whole fit."""
    work, seconds = busy(place)

    class Busy(Plain):
        def training_step(self, data_batch: Any, batch_nb: int) -> Tensor:
            work()
            return self.loss(data_batch)

    model, nb_before = Busy(nb_batches=120), stand_in.Event.nb_recorded
    seen = Watched(place, tmp_path)
    trainer = trainer_in(tmp_path, gpus=place.gpus, add_log_row_interval=10**6, callbacks=[seen])
    trainer.fit(model)
    place.wait()
    assert seen.waits == []
    assert place.kind != STAND_IN or stand_in.Event.nb_recorded > nb_before
    found = trainer.timings.seconds
    record_property("forward, seconds a step by events", found["forward"] / 120)
    record_property("seconds a step by hand", seconds)
    assert 0.8 * seconds <= found["forward"] / 120 <= (1.5 if place.is_gpu else 8) * seconds + 0.002
    assert sum(found.values()) == pytest.approx(trainer.timings.total, rel=0.01)


def test_rows_hold_the_memory_in_use(place: Place, tmp_path: Path, record_property: Any) -> None:
    """Each row of a fit has gpu_0, the megabytes in use on the device: more than what the model keeps there, and no
    more than there are."""

    class Keeping(Plain):
        """Keeps another 512 MB from batch 20 on."""

        def training_step(self, data_batch: Any, batch_nb: int) -> Tensor:
            if batch_nb == 20 and place.is_gpu:
                self.kept = torch.ones(2**27, device=place.device)
            return self.loss(data_batch)

    trainer_in(tmp_path, gpus=place.gpus).fit(Keeping(nb_batches=40))
    used = [float(row["gpu_0"]) for row in rows_of(tmp_path, "Keeping")]
    record_property("megabytes", used)
    _, total = torch.get_device_module(place.device).mem_get_info(place.device)
    assert len(used) == 4
    assert all(0 < value <= total / 2**20 for value in used)
    if place.is_gpu:
        assert used[-1] - used[0] == pytest.approx(512, abs=128)
    trainer_in(tmp_path / "cpu").fit(Plain())
    assert not [key for key in rows_of(tmp_path / "cpu", "Plain")[0] if key.startswith("gpu_")]


def test_a_trace_of_some_steps(place: Place, tmp_path: Path) -> None:
    """profile=True writes a trace, which on a GPU holds its kernels."""
    trainer_in(tmp_path, gpus=place.gpus, profile=True).fit(Images(nb_batches=20))
    text = (tmp_path / "Images" / "version_0" / "trace.json").read_text()
    assert "aten::conv2d" in text or "aten::convolution" in text
    if place.is_gpu:
        assert '"cat": "kernel"' in text


def test_the_line_at_the_end_and_the_summary(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a fit shows: the sizes of each layer, from an example on the CPU, the device that it trains on, and where
    the time went."""
    model = Plain()
    model.example_input_array = torch.ones(2, 8)
    trainer_in(tmp_path, gpus=place.gpus, print_weights_summary=True).fit(model)
    shown = capsys.readouterr().out
    assert "[2, 8]" in shown
    assert f"on {place.device}" in shown
    assert "fit took" in shown
