"""Complex tensors, buffers that are assigned, and batch objects that move themselves: as by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from pytorch_lightning.data.transfer import build_transfer
from tests.equality.models import Classifier, fit


@pytest.mark.parametrize(("precision", "dtype"), [("64", torch.complex128), ("bf16-true", torch.complex64)])
def test_complex_tensors_stay_complex(tmp_path: Path, precision: str, dtype: Any) -> None:
    class Rotary(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("turns", torch.polar(torch.ones(3), torch.arange(3.0)))

    model = fit(tmp_path, Rotary(), nb_epochs=1, precision=precision)
    assert model.turns.dtype == dtype
    torch.testing.assert_close(model.turns.to(torch.complex64), Rotary().turns)


class Averaging(Classifier):
    """Keeps a running mean by putting another tensor in its buffer's place."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(6))

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        x, y = data_batch
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return self.loss((x - self.mean, y))


def test_assigned_buffers_are_those_of_the_first_virtual_rank(tmp_path: Path) -> None:
    model, mean = fit(tmp_path, Averaging(), nb_epochs=1, virtual_ranks=2), torch.zeros(6)
    for x, _ in list(Averaging().tng_dataloader)[::2]:
        mean = 0.9 * mean + 0.1 * x.mean(0)
    assert model.mean.equal(mean)


def test_a_packed_sequence_is_moved_and_cast_by_itself() -> None:
    packed = pack_sequence([torch.randn(3, 2), torch.randn(2, 2)])
    moved: Any = build_transfer(torch.device("meta"), torch.float64)
    result = moved({"words": packed})["words"]
    assert isinstance(result, PackedSequence)
    assert (result.data.device.type, result.data.dtype) == ("meta", torch.float64)
    assert result.batch_sizes.device.type == "cpu"


class Words(dict[str, Any]):
    def to(self, device: torch.device) -> None:
        self["moved"] = device


def test_a_batch_with_a_to_of_its_own_is_moved_by_that() -> None:
    moved: Any = build_transfer(torch.device("meta"))
    words = moved([Words()])[0]
    assert type(words) is Words
    assert words["moved"] == torch.device("meta")
