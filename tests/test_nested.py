"""One walk through nested data for batches, outputs and checkpoints."""

from collections import ChainMap, Counter, OrderedDict, UserDict, UserList, defaultdict, deque, namedtuple
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from types import MappingProxyType
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


@dataclass(frozen=True)
class Frozen:
    """Knows more than its arguments say."""

    x: Any
    scale: InitVar[float]
    mean: Any = field(init=False)
    later: Any = field(init=False, repr=False)

    def __post_init__(self, scale: float) -> None:
        object.__setattr__(self, "mean", self.x.mean() * scale)


@dataclass(frozen=True, slots=True)
class Slotted:
    x: Any
    y: Any = None


class Named(list[Any]):
    """A list whose constructor takes something else."""

    def __init__(self, name: str, *items: Any) -> None:
        super().__init__(items)
        self.name = name

    def __repr__(self) -> str:
        return f"{self.name}: {super().__repr__()}"


class Table(Mapping[str, Any]):
    """A mapping around another one, with a constructor of its own."""

    def __init__(self, *, columns: Any, name: str) -> None:
        self.columns, self.name = columns, name

    def __getitem__(self, key: str) -> Any:
        return self.columns[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def __repr__(self) -> str:
        return f"{self.name}: {self.columns}"


class Row(Sequence[Any]):
    """Shares what it holds with nobody; a constructor of a list would make a row of one item."""

    def __init__(self, *items: Any) -> None:
        self._items = list(items)

    def __getitem__(self, index: Any) -> Any:
        return self._items[index]

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"Row{self._items}"


class Tagged(tuple[Any, ...]):
    """A tuple with an attribute, and a constructor of its own."""

    tag: str

    def __new__(cls, tag: str, *items: Any) -> "Tagged":
        made = super().__new__(cls, items)
        made.tag = tag
        return made

    def __repr__(self) -> str:
        return f"{self.tag}{tuple(self)}"


class Checked(Pair):
    """A named tuple whose constructor takes something else."""

    def __new__(cls, both: Any) -> "Checked":
        return super().__new__(cls, both, both)


class Group(set[Any]):
    pass


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
    {x},
    frozenset([x]),
    Group([x]),
    deque([x, 1], maxlen=5),
    UserList([x, x]),
    Named("words", x, 3),
    Table(columns={"x": x, "n": [x]}, name="t"),
    Row(x, "b", [x]),
    Tagged("t", x, x),
    Checked(x),
    Counter(a=2),
    torch.return_types.max((x, 1)),  # type: ignore[attr-defined]
    MappingProxyType({"x": x}),
    ChainMap({"x": x}, {"y": 1}),
    Frozen(x, 2.0),
    Slotted(x),
    Slotted({x}, deque([Frozen(x, 1.0)])),
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
    before = repr(value)
    map_tensors(value, lambda tensor: tensor * 7)
    assert repr(value) == before


def test_what_holds_no_tensor_is_not_walked() -> None:
    for value in (range(10**12), memoryview(b"ab"), bytearray(3)):
        assert map_tensors([value], torch.clone)[0] is value


def test_attributes_and_bounds_are_kept() -> None:
    assert map_tensors(deque([x], maxlen=2), torch.clone).maxlen == 2
    assert map_tensors(Named("a", x), torch.clone).name == "a"
    assert map_tensors(Tagged("b", x), torch.clone).tag == "b"
    assert map_tensors(defaultdict(list, x=x), torch.clone)["new"] == []
    holder = Sample(x, "a")
    holder.cached = x  # type: ignore[attr-defined]
    assert map_tensors(holder, lambda tensor: tensor + 1).cached.equal(x + 1)


def test_attributes_of_a_state_dict_survive() -> None:
    state = nn.BatchNorm1d(2).state_dict()
    assert map_tensors(state, torch.clone)._metadata == state._metadata


def test_other_leaves_go_through_a_function_of_their_own() -> None:
    assert map_tensors({"a": [1, x]}, lambda tensor: "tensor", lambda leaf: "leaf") == {"a": ["leaf", "tensor"]}


def test_outputs_of_a_validation_are_detached_in_every_container() -> None:
    from pytorch_lightning.trainer.evaluation import detached

    loss = nn.Linear(1, 1)(torch.ones(1))
    kept = detached(Sample(Pair(loss, {"a": loss}), "b"))
    assert not kept.x.x.requires_grad
    assert not kept.x.y["a"].requires_grad
