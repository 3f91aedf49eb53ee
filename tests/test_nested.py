"""One walk through nested data for batches, outputs and checkpoints."""

from collections import OrderedDict, UserDict, defaultdict, namedtuple
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

from pytorch_lightning.nested import map_tensors

Pair = namedtuple("Pair", ["x", "y"])


class Items(list[Any]):
    pass


class Encoding(UserDict[str, Any]):
    """As tokenizers give it."""


@dataclass
class Sample:
    x: Any
    name: str
    length: int = field(init=False, default=7)


x = torch.arange(3.0)
CONTAINERS = [
    [x, 1],
    (x, "a"),
    Pair(x, None),
    Items([x, b"b"]),
    {"x": x, "n": 2.5},
    OrderedDict(x=x),
    defaultdict(list, x=x),
    Encoding(x=x),
    Sample(x, "a"),
    [{"a": (x, Pair([x], {"b": x}))}, Sample({"c": x}, "d")],
]


@pytest.mark.parametrize("value", CONTAINERS, ids=lambda value: type(value).__name__)
def test_containers_keep_their_types_and_leaves(value: Any) -> None:
    mapped = map_tensors(value, lambda tensor: tensor + 1)
    assert type(mapped) is type(value)
    back = map_tensors(mapped, lambda tensor: tensor - 1)
    assert repr(back) == repr(value)
    assert torch.equal(x, torch.arange(3.0))  # the value itself is as it was
    found: list[torch.Tensor] = []
    map_tensors(value, lambda tensor: found.append(tensor) or tensor)
    assert len(found) == repr(value).count("tensor(")


def test_attributes_of_a_state_dict_survive() -> None:
    state = nn.BatchNorm1d(2).state_dict()
    assert map_tensors(state, torch.clone)._metadata == state._metadata


def test_other_leaves_go_through_a_function_of_their_own() -> None:
    assert map_tensors({"a": [{1, 2}, x]}, lambda tensor: "tensor", lambda leaf: "leaf") == {"a": ["leaf", "tensor"]}


def test_outputs_of_a_validation_are_detached_in_every_container() -> None:
    from pytorch_lightning.trainer.evaluation import detached

    loss = nn.Linear(1, 1)(torch.ones(1))
    kept = detached(Sample(Pair(loss, {"a": loss}), "b"))
    assert not kept.x.x.requires_grad
    assert not kept.x.y["a"].requires_grad
