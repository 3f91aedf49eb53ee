"""Plain data there and back again, and what a stranger's bytes can't do."""

import collections
import copy
import dataclasses
import datetime
import decimal
import enum
import fractions
import json
import pathlib
import random
import subprocess
import sys
import time
import tracemalloc
import uuid
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from pytorch_lightning.messages import kinds
from pytorch_lightning.messages.decoding import NotOurs, decode
from pytorch_lightning.messages.encoding import NotPlain, encode


class Pair(NamedTuple):
    first: Any
    second: Any = 2


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: Any
    y: int = 3


@dataclasses.dataclass(slots=True)
class Slotted:
    x: Any
    ran: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.ran.append("__post_init__")


@dataclasses.dataclass
class Mapped(collections.OrderedDict[str, Any]):
    """As the outputs of a well-known library of models: a dict whose entries are attributes too."""

    loss: Any = None

    def __post_init__(self) -> None:
        self["loss"] = self.loss


class Colour(enum.IntEnum):
    RED = 1
    GREEN = 2


class Dict(dict[str, Any]):
    pass


class List(list[Any]):
    pass


class Text(str):
    pass


class Image(Tensor):
    """A kind of tensor with attributes, as torchvision's."""


LINE = torch.arange(12.0).reshape(3, 4)
OTHERS = [
    -(2**70), float("inf"), -0.0, "a\ud800\n", b"ab\0", bytearray(b"x"), [1, [2, (3,)]], {1: 2, (1, "a"): None},
    {1, "x"}, frozenset({(1,)}), 3 + 4j, range(1, 9, 2), ..., decimal.Decimal("1.10"), fractions.Fraction(1, 3),
    uuid.UUID(int=5), datetime.date(2020, 1, 2), datetime.datetime(2020, 1, 2, 3, 4, 5, 6),
    datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC), datetime.time(1, 2), datetime.timedelta(1, 2, 3),
    pathlib.PurePosixPath("/a/b"), torch.Size([2, 3]), torch.device("cuda:1"), torch.bfloat16, torch.strided,
    torch.channels_last, collections.defaultdict(list, {1: [2]}), collections.Counter("aab"),
    collections.OrderedDict([("b", 1), ("a", 2)]), collections.deque([1, 2], 5), Pair(1), Pair([Pair(2)], None),
    Frozen([1]), Slotted({"a": 1}), Mapped(loss=1.5), Colour.GREEN, Dict(a=[1]), List([1, [2]]), Text("t"),
    time.gmtime(5), np.float32(2.5), np.int64(4), np.datetime64("2020-01-01"), np.str_("abc"), np.bool_(True),
]  # fmt: skip


@pytest.mark.parametrize("value", OTHERS, ids=lambda value: type(value).__name__)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    back = decode(encode([value]))[0]
    assert type(back) is type(value)
    assert repr(back) == repr(value)
    assert back == value
    assert vars(back) == vars(value) if hasattr(value, "__dict__") else True


TENSORS = [
    LINE, LINE.t(), LINE[::2], torch.tensor(2.0), torch.zeros(0, 5), LINE.bfloat16(), LINE.to(torch.float8_e4m3fn),
    LINE > 3, LINE.to(torch.uint16), torch.view_as_complex(LINE.reshape(3, 2, 2)).conj(),
]  # fmt: skip


@pytest.mark.parametrize("value", TENSORS, ids=lambda value: f"{value.dtype}-{tuple(value.shape)}")
def test_a_tensor_comes_back_with_its_bits(value: Tensor) -> None:
    back = decode(encode(value))
    assert (back.dtype, back.layout, back.shape) == (value.dtype, value.layout, value.shape)
    assert torch.equal(*(t.resolve_conj().contiguous().reshape(-1).view(torch.uint8) for t in (value, back)))


def test_one_number_of_a_row_comes_back() -> None:
    """A column of a batch of one sample: contiguous for torch, and yet with a stride that isn't 1."""
    value = torch.arange(3.0).view(1, 3)[:, 1]
    assert value.stride() == (3,)
    assert torch.equal(decode(encode(value)), value)


@pytest.mark.filterwarnings("ignore:Sparse")  # torch's own, of the first one
def test_a_sparse_tensor_comes_back_sparse() -> None:
    ones = torch.eye(4)
    sparse = [ones.to_sparse(), ones.to_sparse_csr(), ones.to_sparse_csc(), ones.to_sparse_bsr((2, 2))]
    for value in (*sparse, ones.to_sparse_bsc((2, 2)), torch.sparse_coo_tensor([[0, 0]], [1.0, 2.0], (3,))):
        back = decode(encode(value))
        assert (back.layout, back.shape) == (value.layout, value.shape)
        assert torch.equal(back.to_dense(), value.to_dense())
        assert value.layout is not torch.sparse_coo or back.is_coalesced() == value.is_coalesced()


def test_kinds_of_tensors_come_back_as_what_they_were() -> None:
    weight = decode(encode(nn.Parameter(LINE)))
    assert type(weight) is nn.Parameter
    assert weight.requires_grad
    image = LINE.as_subclass(Image)
    image.size_before = (5, 6)  # type: ignore[attr-defined]
    back = decode(encode(image))
    assert (type(back), back.size_before) == (Image, (5, 6))
    assert torch.equal(back.as_subclass(Tensor), LINE)
    found = decode(encode(LINE.max(0)))
    assert type(found) is torch.return_types.max
    assert torch.equal(found.indices, LINE.max(0).indices)
    packed = decode(encode(pack_sequence([torch.ones(3), torch.ones(2)])))
    assert type(packed) is PackedSequence
    assert packed.batch_sizes.tolist() == [2, 2, 1]
    assert decode(encode(torch.empty(2, 3, device="meta"))).device.type == "meta"


ARRAYS = [
    np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)), np.array(3), np.array(["a", "bcd"]),
    np.array([1, [2, 3], None], dtype=object), np.zeros(3, dtype=[("a", "<i4"), ("b", "<f8", (2,))]),
    np.array([], dtype=np.float16), np.array(["2020"], dtype="M8[s]"), np.array([b"ab"], dtype="S4"),
]  # fmt: skip


@pytest.mark.parametrize("value", ARRAYS, ids=lambda value: str(value.dtype)[:12])
def test_an_array_comes_back_as_it_was_and_can_be_written(value: Any) -> None:
    back = decode(encode(value))
    assert (type(back), back.dtype, back.shape) == (np.ndarray, value.dtype, value.shape)
    assert (back.flags.f_contiguous, back.flags.writeable) == (value.flags.f_contiguous, True)
    assert repr(back) == repr(value)


def test_a_tensor_that_comes_twice_is_sent_once_and_is_one_again() -> None:
    array, message = np.arange(1000), encode([LINE, LINE])
    back = decode(message)
    assert back[0] is back[1]
    assert len(encode([array] * 9)) < 9000
    back[0][0, 0] = 7
    assert decode(message)[0][0, 0] == 0, "it doesn't share memory with what was sent"


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
    | st.lists(st.floats(width=32), max_size=4).map(torch.tensor)
    | st.lists(st.integers(-9, 9), max_size=4).map(np.array),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner, max_size=4)
    | st.builds(Pair, inner, inner) | st.builds(Frozen, inner),
)  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(plain)
def test_whatever_is_made_of_plain_data_comes_back(value: Any) -> None:
    assert repr(decode(encode(value))) == repr(value)


@pytest.mark.parametrize(
    ("value", "what", "place"),
    [
        (lambda: 1, "a function", ""),
        ({"a": [1, {"b": nn.Linear(1, 1)}]}, "a torch.nn.modules.linear.Linear", "['a'][1]['b']"),
        ([Frozen(Pair(1, object()))], "a object", "[0].x[1]"),
        (Frozen, "a type", ""),
        ([ValueError("x")], "a ValueError", "[0]"),
        (np.ma.masked_array([1]), "a numpy.ma.MaskedArray", ""),
        (collections.defaultdict(lambda: 1), "a defaultdict whose default isn't made by list, dict, set", ""),
    ],
    ids=["function", "module", "object", "class", "exception", "masked", "factory"],
)
def test_what_is_not_plain_is_named_with_its_place(value: Any, what: str, place: str) -> None:
    with pytest.raises(NotPlain) as caught:
        encode(value)
    assert caught.value.what.startswith(what)
    assert caught.value.place == place


def test_data_that_contains_itself_or_is_very_deep_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    for value in (loop, deep):
        with pytest.raises(NotPlain, match="nested too deeply, or contains itself"):
            encode(value)
    while isinstance(deep, list):  # or python's own clean-up would go as deep
        deep = deep.pop()


# ------------------------------------------------------------------ a stranger's bytes
def message(root: Any, types: list[Any] | None = None, buffers: bytes = b"", sizes: list[int] | None = None) -> Tensor:
    """Bytes as ``encode`` makes them, of chosen contents."""
    head = json.dumps([types or [], [len(buffers)] * bool(buffers) if sizes is None else sizes, root]).encode()
    data = len(head).to_bytes(8, "little") + head + buffers
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def make_unknown() -> type:
    @dataclasses.dataclass
    class Unknown:
        x: int = 1

    return Unknown


def test_a_type_is_made_only_where_this_process_has_it() -> None:
    """By having sent one, or since the code that it runs names it."""
    kind = make_unknown()
    named = [kind.__module__, kind.__qualname__]
    with pytest.raises(NotOurs, match=r"contains, a tests.messages.test_messages.make_unknown.<locals>.Unknown, and"):
        decode(message(["fields", 0, ["x"], [5]], [named]))
    assert decode(message(["fields", 0, ["x"], [5]], [named]), [kind]) == kind(5)
    encode(kind(2))
    assert decode(message(["fields", 0, ["x"], [6]], [named])) == kind(6)


class WithCode(nn.Module):
    pass


def test_the_files_of_a_model_name_its_types() -> None:
    found = set(kinds.types_of(nn.Sequential(nn.Linear(1, 1), WithCode())))
    assert {Pair, Frozen, Colour, Image, Dict} <= found
    assert not {WithCode, subprocess.Popen, pathlib.Path, make_unknown} & found


@pytest.mark.parametrize(
    "name",
    [("subprocess", "Popen"), ("os", "system"), ("builtins", "eval"), ("antigravity", "x"), ("torch", "load"),
     ("pytorch_lightning.trainer.trainer", "Trainer"), ("torch.return_types", "__loader__")],
    ids=".".join,
)  # fmt: skip
@pytest.mark.parametrize("word", ["fields", "kind of", "member", "kind of tensor", "deque"])
def test_nothing_is_imported_or_called_that_a_message_names(name: tuple[str, str], word: str) -> None:
    rest: list[Any] = {"member": ["x"], "kind of": [[], [], "list", ["list", ["true"]]]}.get(word, [[], []])
    with pytest.raises(NotOurs):
        decode(message([word, 0, *rest], [name]))
    assert "antigravity" not in sys.modules


class Cleaner(Dict):
    def __del__(self) -> None:
        pathlib.Path(self["path"]).unlink()


def test_no_method_of_a_type_runs_while_a_value_is_made(tmp_path: pathlib.Path) -> None:
    assert decode(encode(Slotted(1))).ran == ["__post_init__"], "that of here, and not a second one"
    victim = tmp_path / "victim"
    victim.touch()
    with pytest.raises(NotPlain, match="Cleaner"):
        encode(kept := Cleaner(path=str(victim)))
    named = [[Cleaner.__module__, Cleaner.__qualname__]]
    with pytest.raises(NotOurs):
        decode(message(["kind of", 0, [], [], "dict", [["list", ["path"]], [str(victim)]]], named), [Cleaner])
    assert victim.exists()
    del kept


HOSTILE = {
    "deep": b"[" * 200_000,
    "no line": (2**62).to_bytes(8, "little"),
    "negative": (-5).to_bytes(8, "little", signed=True),
    "not json": (3).to_bytes(8, "little") + b"abc",
    "empty": b"",
    "many digits": b"9" * 10_000,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    for framed in (data, len(data).to_bytes(8, "little") + data):
        with pytest.raises(NotOurs):
            decode(torch.frombuffer(bytearray(framed or b"\0"), dtype=torch.uint8))


@pytest.mark.parametrize(
    "root",
    [
        ["tensor", False, "dense", "torch.float32", [2**40]],
        ["tensor", False, "dense", "torch.load", [1]],
        ["tensor", False, "sparse", [2, 2], True, ["dense", "torch.int64", [1, 0]], ["dense", "torch.float32", [9]]],
        ["array", "|O", [1], False],
        ["array", "<f8", [2**40], False],
        ["again", 5], ["kind of", 0, [], [], "list", []], ["__class__"], [["list"], 1], ["Fraction", ["1e999999999"]],
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_fit_its_bytes_is_refused(root: Any) -> None:
    with pytest.raises(NotOurs):
        decode(message(root, buffers=b"12345678"))


def test_mutated_messages_are_read_right_or_refused_and_cost_little() -> None:
    """Bit flips, cuts, and parts in another's place."""
    rng = random.Random(1)
    values: list[Any] = [OTHERS, TENSORS[:6], ARRAYS, {"outputs": [Frozen(LINE), Pair(np.arange(9), "x")]}]
    sound = [bytes(encode(value).numpy().tobytes()) for value in values]
    began, refused = time.monotonic(), 0
    tracemalloc.start()
    for n in range(2000):
        data = bytearray(rng.choice(sound))
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data))
            if n % 3 == 0:
                data[at] ^= 1 << rng.randrange(8)
            elif n % 3 == 1:
                data[at:at] = rng.choice(sound)[at : at + rng.randint(0, 40)]
            else:
                del data[at : at + rng.randint(0, 40)]
        try:
            decode(torch.frombuffer(copy.copy(data or bytearray(1)), dtype=torch.uint8))
        except NotOurs:
            refused += 1
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused > 1000
    assert most < 20e6
    assert time.monotonic() - began < 60
