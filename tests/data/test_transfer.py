"""Batches on their way to a GPU: copied beside what runs there."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pytorch_lightning.data import transfer
from tests.recorder import quiet_trainer
from tests.trainer.test_speed import Dropping, assert_same


class FakeStream:
    def __init__(self, name: str, said: list[Any]) -> None:
        self.name, self.said = name, said

    def wait_stream(self, other: "FakeStream") -> None:
        self.said.append((self.name, "waits for", other.name))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is asked of CUDA in order, where there is none: the device 'meta' takes its place."""
    noted: list[Any] = []
    usual, streams = FakeStream("usual", noted), iter(["own", "another"])
    inside = [usual]

    @contextlib.contextmanager
    def using(stream: FakeStream) -> Iterator[None]:
        inside.append(stream)
        yield
        inside.pop()

    whole = Tensor.to

    def to(tensor: Tensor, *arguments: Any, **options: Any) -> Tensor:
        noted.append((inside[-1].name, "copies" if options.get("non_blocking") else "copies and waits"))
        return whole(tensor, *arguments, **options)

    def pin_memory(tensor: Tensor) -> Tensor:
        noted.append("pins")
        return tensor

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: FakeStream(next(streams), noted))
    monkeypatch.setattr(torch.cuda, "stream", using)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: inside[-1])
    monkeypatch.setattr(Tensor, "to", to)
    monkeypatch.setattr(Tensor, "pin_memory", pin_memory)
    monkeypatch.setattr(Tensor, "record_stream", lambda _, stream: noted.append(("kept for", stream.name)))
    return noted


def test_a_copy_takes_place_on_a_stream_of_its_own_and_is_waited_for(
    said: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = transfer.CopyStream(torch.device("meta"))
    first = ["pins", ("own", "copies"), ("usual", "waits for", "own"), ("kept for", "usual")]
    assert stream.copy(torch.ones(3)).device.type == "meta"
    assert said == first
    monkeypatch.setattr(Tensor, "is_pinned", lambda _: True)
    stream.copy(torch.ones(3))
    assert said[len(first) :] == first[1:]  # what is pinned already isn't pinned again, and the stream is the same


def test_only_plainly_laid_out_tensors_are_pinned() -> None:
    plain = torch.zeros(2, 3)
    assert transfer.is_plain(plain)
    others = [plain.t(), plain[:, :1].expand(2, 3), plain.to_sparse()]
    assert not any(map(transfer.is_plain, others))
    with pytest.warns(UserWarning, match="nested"):
        assert not transfer.is_plain(torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]))


@pytest.mark.gpu
def test_on_a_gpu_a_copy_does_not_wait_for_what_runs_there() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    device = torch.device("cuda", 0)
    move = transfer.build_transfer(device)
    assert move is not None
    batch = {"x": torch.randn(1000, 100), "y": torch.arange(5), "t": torch.randn(4, 3).t(), "s": "a"}
    move(batch)  # memory and the stream
    torch.cuda.synchronize()
    copied = torch.cuda.Event()
    torch.cuda._sleep(2_000_000_000)  # about a second
    own = transfer.CopyStream(device)
    result = own.copy(torch.ones(1000))
    assert own._stream is not None
    copied.record(own._stream)
    copied.synchronize()
    assert not torch.cuda.current_stream(device).query()
    moved = move(batch)
    assert torch.equal(result.cpu(), torch.ones(1000))
    for name in "xyt":
        assert torch.equal(moved[name].cpu(), batch[name])
        assert moved[name].stride() == batch[name].stride()


@pytest.mark.gpu
def test_on_a_gpu_a_fit_with_copies_beside_it_is_the_one_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")

    def weights() -> list[Tensor]:
        model = Dropping()
        assert quiet_trainer(tmp_path, max_nb_epochs=3, gpus=[0], seed=1).fit(model) == 1
        return [p.detach().cpu().clone() for p in model.parameters()]

    beside = weights()
    monkeypatch.setattr(transfer.CopyStream, "copy", lambda self, tensor: tensor.to(self._device))
    assert_same(beside, weights())
