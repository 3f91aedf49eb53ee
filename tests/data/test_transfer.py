"""Batches on their way to a GPU: copied beside what runs there."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from pytorch_lightning.data import transfer


class FakeStream:
    def __init__(self, name: str, said: list[Any]) -> None:
        self.name, self.said = name, said

    def wait_stream(self, other: "FakeStream") -> None:
        self.said.append((self.name, "waits for", other.name))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The calls to CUDA in order, on a machine without it: the device 'meta' takes its place."""
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
