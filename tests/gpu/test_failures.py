"""What fails on the GPU: full memory loses nothing, and a batch that raised is replayed without a GPU."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.gpu.models import Images, Plain, Validated, assert_same_bits, bits_of, trainer_in
from tests.gpu.places import Place, run_program

pytestmark = pytest.mark.gpu


def fill(device: torch.device, is_gpu: bool) -> None:
    """Take all of the GPU's memory, or as much as nothing has."""
    if not is_gpu:
        torch.empty(2**50, dtype=torch.uint8, device=device)
    taken, size = [], 2**32
    while True:
        try:
            taken.append(torch.empty(size, dtype=torch.uint8, device=device))
        except torch.OutOfMemoryError:
            if size <= 2**26:
                raise
            size //= 4


def test_full_memory_is_a_clear_error_and_loses_nothing(place: Place, tmp_path: Path) -> None:
    """A step that fills the GPU's memory raises torch's error with a line on what to do and one that says that the
    state is saved; a resume repeats the batch that failed and is bit-identical to an undisturbed run."""
    whole = Images()
    options: dict[str, Any] = {"gpus": place.gpus, "resume": "auto", "deterministic": True}
    trainer_in(tmp_path / "whole", **options).fit(whole)

    failing = Images(at=lambda step: fill(place.device, place.is_gpu) if step == 5 else None)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        trainer_in(tmp_path / "cut", **options).fit(failing)
    notes = "\n".join(caught.value.__notes__)
    assert "the device is out of memory: use smaller batches" in notes
    assert "the state at global_step 5 is saved; resume='auto'" in notes
    assert "raised while fitting Images (epoch 0, batch_nb 5)" in notes
    bundle = torch.load(tmp_path / "cut" / "Images" / "version_0" / "crash" / "bundle.pt", weights_only=True)
    assert bundle["batch"][0].shape == (8, 1, 8, 8)
    del caught

    rest = Images()
    trainer_in(tmp_path / "cut", **options).fit(rest)
    assert len(rest.losses) == 3
    assert_same_bits(bits_of(rest), bits_of(whole))


def test_full_memory_in_a_validation_says_what_to_do(place: Place, tmp_path: Path) -> None:
    """The same in validate, and in the validation of a fit: the error says where and what to do."""

    class Filling(Validated):
        def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
            return fill(place.device, place.is_gpu)

    trainer = trainer_in(tmp_path, gpus=place.gpus)
    for run in (trainer.validate, trainer.fit):
        with pytest.raises(torch.OutOfMemoryError) as caught:
            run(Filling())
        notes = "\n".join(caught.value.__notes__)
        assert notes.count("the device is out of memory: use smaller batches") == 1
        assert "validation of Filling (batch_nb 0)" in notes


class Refusing(Plain):
    """Raises where a batch holds a certain number."""

    def training_step(self, data_batch: Any, batch_nb: int) -> Tensor:
        if batch_nb == 7:
            raise ArithmeticError(f"the sum of batch {batch_nb} is {float(data_batch[0].double().sum()):.3f}")
        return self.loss(data_batch)


class RefusingAfterwards(Images):
    """Raises after the backward pass, with BatchNorm and dropout in the step."""

    def on_after_backward(self) -> None:
        if self.global_step == 5:
            total = sum(float(p.grad.double().abs().sum()) for p in self.parameters())
            raise ArithmeticError(f"the gradients add up to {total:.1f}")


@pytest.mark.parametrize("precision", ["32", "bf16", "16", "64"])
@pytest.mark.parametrize("name", ["Refusing", "RefusingAfterwards"])
def test_a_bundle_made_on_the_gpu_is_replayed_without_one(
    place: Place, tmp_path: Path, name: str, precision: str
) -> None:
    """The batch that raised on the GPU is kept as plain data of the CPU, and python -m pytorch_lightning.replay
    raises the same error, with the same numbers, on a machine without a GPU."""
    model = {"Refusing": Refusing, "RefusingAfterwards": RefusingAfterwards}[name]()
    with pytest.raises(ArithmeticError) as caught:
        trainer_in(tmp_path, gpus=place.gpus, precision=precision).fit(model)
    path = tmp_path / name / "version_0" / "crash" / "bundle.pt"
    bundle = torch.load(path, weights_only=True)  # without map_location: nothing in it asks for a GPU
    assert bundle["device"] == place.device.type
    assert {value.device.type for value in bundle["state_dict"].values()} == {"cpu"}
    if name == "Refusing" and (precision == "16" or place.is_gpu):
        arguments = [str(path), "--module", "tests.gpu.test_failures"]
        done = run_program(tmp_path, "pytorch_lightning.replay", *arguments, without_device=True)
        assert done.returncode == 1
        assert f"ArithmeticError: {caught.value}" in done.stderr, done.stderr
        assert "this isn't the" not in done.stderr


@pytest.mark.share(60)
def test_a_model_on_the_gpu_is_trained_by_processes_of_the_cpu(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that a fit has left on the GPU may be given to processes that have none: it is sent to them, trained,
    and comes back to the GPU."""
    model, other = Plain(), Plain()
    model.to(place.device)
    monkeypatch.setenv("GPU_CHECK", "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert trainer_in(tmp_path, nb_processes=2).fit(model) == 1
    assert trainer_in(tmp_path, virtual_ranks=2).fit(other) == 1
    assert next(model.parameters()).device == place.device
    assert_same_bits(bits_of(model), bits_of(other))
