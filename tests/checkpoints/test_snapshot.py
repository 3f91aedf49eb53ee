"""Copies of nested plain data that stay as they are, and checksums of tensors."""

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import nn

from pytorch_lightning.checkpoints.snapshot import Snapshot, changed_tensors, nb_bytes, state_checksums

BASE = torch.arange(12.0)
DATA: dict[str, Any] = {
    "plain": [1, "a", None, (True, b"x", 2.5)],
    "whole": BASE,
    "part": BASE[3:7],
    "turned": BASE.view(3, 4).t(),
    "scalar": torch.tensor(2),
    "empty": torch.empty(0, 3),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "truth": torch.tensor([True, False]),
    "parameter": nn.Parameter(torch.ones(2), requires_grad=False),
    "wants": torch.ones(2, requires_grad=True),
    "sparse": torch.eye(3).to_sparse(),
    "mirrored": torch.tensor([1 + 2j]).conj(),
    "expanded": torch.ones(1).expand(1000),
    "meta": torch.empty(3, device="meta"),
    "size": torch.Size([1, 2]),
    "ordered": OrderedDict(x=torch.ones(1)),
}


def test_nothing_else_is_copied() -> None:
    assert Snapshot().take(DATA["meta"]) is DATA["meta"]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        if (type(a), a.dtype, a.shape, a.requires_grad) != (type(b), b.dtype, b.shape, b.requires_grad):
            return False
        return True if a.device.type == "meta" else torch.equal(a.to_dense(), b.to_dense())
    if isinstance(a, dict):
        return type(a) is type(b) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def test_a_copy_has_the_same_values_types_and_layout() -> None:
    copy = Snapshot().take(DATA)
    assert same(copy, DATA)
    assert copy["turned"].stride() == DATA["turned"].stride()
    assert copy["expanded"].untyped_storage().nbytes() == 4


def test_tensors_that_share_a_storage_share_the_copy_of_it() -> None:
    copy = Snapshot().take(DATA)
    copy["whole"].fill_(5.0)
    assert (copy["part"] == 5).all()
    assert (copy["turned"] == 5).all()
    assert torch.equal(BASE, torch.arange(12.0))
    copy["half"].fill_(0)
    assert (copy["parameter"] == 1).all()


def test_the_memory_of_a_copy_is_used_again_where_sizes_agree() -> None:
    snapshot = Snapshot()
    state = {"a": torch.ones(100), "b": torch.ones(50)}
    first = snapshot.take(state)
    places = [first[name].data_ptr() for name in state]
    state["a"].fill_(2.0)
    second = snapshot.take(state)
    assert [second[name].data_ptr() for name in state] == places
    assert (second["a"] == 2).all()
    grown = snapshot.take({"a": torch.ones(100), "b": torch.full((51,), 3.0), "c": torch.ones(7)})
    assert grown["a"].data_ptr() == places[0]
    assert (grown["b"] == 3).all()
    assert len(grown["b"]) == 51
    assert same(snapshot.take({"b": torch.ones(2)}), {"b": torch.ones(2)})


def test_a_module_and_an_optimizer_come_back_from_a_copy() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    copy = Snapshot().take(state)
    assert copy["model"]._metadata == model.state_dict()._metadata
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    other.load_state_dict(copy["model"])
    torch.optim.Adam(other.parameters()).load_state_dict(copy["optimizer"])
    assert same(dict(other.state_dict()), dict(model.state_dict()))


def test_a_shared_storage_counts_once() -> None:
    assert nb_bytes({"a": BASE, "b": [BASE[2:], {"c": BASE.view(3, 4)}]}) == 48 + 256


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["a"].view(-1)[5].neg_(),
        lambda s: s.update(a=s["a"].view(torch.int32)),
        lambda s: s.update(a=s["a"].view(3, 2)),
        lambda s: s.pop("a"),
    ],
    ids=["value", "dtype", "shape", "missing"],
)
def test_a_changed_tensor_is_named(change: Any) -> None:
    state = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2), "text": "x"}
    checksums = state_checksums(state)
    assert list(checksums) == ["a", "b"]
    assert changed_tensors(checksums, state) == []
    change(state)
    assert changed_tensors(checksums, state) == ["a"]


def test_a_tensor_that_was_not_saved_is_named() -> None:
    assert changed_tensors({}, {"new": torch.ones(1)}) == ["new"]


@pytest.mark.parametrize("name", list(DATA))
def test_every_kind_of_tensor_has_a_checksum_that_a_copy_keeps(name: str) -> None:
    checksums = state_checksums({name: DATA[name]})
    assert changed_tensors(checksums, Snapshot().take({name: DATA[name]})) == []
