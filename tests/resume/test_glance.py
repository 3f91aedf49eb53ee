"""The mark of many tensors, made the short way, is the one that the table of nodes gives."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pytorch_lightning.resume.glance import NOT_SEEN, Seen, glance
from pytorch_lightning.resume.plain_values import Encoder, fingerprint


def long_way(value: Any) -> tuple[str, int]:
    encoder = Encoder(math.inf)
    return fingerprint(encoder.nodes, encoder.add(value)), encoder.size


def batches(nb: int = 100) -> list[tuple[Tensor, Tensor]]:
    draws = torch.Generator().manual_seed(1)
    return [(torch.randn(3, 2, generator=draws), torch.randint(9, (3,), generator=draws)) for _ in range(nb)]


FORMS: dict[str, Any] = {
    "pairs": batches(),
    "lists of two": [list(pair) for pair in batches()],
    "a tuple": tuple(batches()),
    "tensors": [x for x, _ in batches()],
    "one in front of pairs": [torch.zeros(2), *batches()],
    "some empty": [(), torch.empty(0, 3), torch.tensor(3.0), torch.tensor([True]), *batches()],
}


@pytest.mark.parametrize("form", FORMS)
def test_the_short_way_gives_the_same_mark_and_counts_as_many_bytes(form: str) -> None:
    value = FORMS[form]
    seen = glance(value)
    assert seen is not None
    mark, size = long_way(value)
    assert seen.mark(value, size) == mark
    assert seen.mark(value, size - 1) is None


@pytest.mark.parametrize("position", [0, 57, 99])
def test_each_value_shape_and_type_counts(position: int) -> None:
    first = batches()
    marks = {glance(first).mark(first, math.inf)}  # type: ignore[union-attr]
    for change in (
        lambda x: x.add(torch.eye(3, 2)),
        lambda x: x.reshape(2, 3),
        lambda x: x.double(),
        lambda x: x.view(torch.int32),
    ):
        other = batches()
        other[position] = (change(other[position][0]), other[position][1])
        marks.add(glance(other).mark(other, math.inf))  # type: ignore[union-attr]
    assert None not in marks
    assert len(marks) == 5


ODD = {
    "bfloat16": torch.ones(2, dtype=torch.bfloat16),
    "transposed": torch.ones(3, 2).t(),
    "requires grad": torch.ones(2, requires_grad=True),
    "conjugated": torch.ones(2, dtype=torch.complex64).conj(),
    "negated": torch.ones(2, dtype=torch.complex64).conj().imag,
    "sparse": torch.eye(2).to_sparse(),
    "meta": torch.ones(2, device="meta"),
}


@pytest.mark.parametrize("odd", ODD)
def test_what_numpy_does_not_show_as_it_is_takes_the_long_way(odd: str) -> None:
    value = [*(x for x, _ in batches()), ODD[odd]]
    seen = glance(value)
    assert seen is None or seen.mark(value, math.inf) is None


def test_aliases_take_the_long_way() -> None:
    value = batches()
    for again in ([*value, value[3]], [*value, (value[3][0], torch.ones(1))]):
        seen = glance(again)
        assert seen is not None
        assert seen.mark(again, math.inf) is None


def pictures() -> dict[str, Any]:
    return {
        "pairs": [(np.full((4, 4), i, dtype=np.uint8), i) for i in range(70)],
        "tensors": [torch.zeros(3), {"scale": torch.ones(2)}],
        "names": {"a": [1, 2], "b": "text"},
    }


CHANGES: dict[str, Callable[[Any], Any]] = {
    "a pixel": lambda held: held["pairs"][60][0].__setitem__((1, 2), 7),
    "a pair": lambda held: held["pairs"].__setitem__(60, (held["pairs"][60][0], 9)),
    "the order": lambda held: held["pairs"].reverse(),
    "one less": lambda held: held["pairs"].pop(),
    "a tensor": lambda held: held["tensors"][0].add_(1),
    "past torch": lambda held: held["tensors"][1]["scale"].numpy().__setitem__(0, 4),
    "a shape": lambda held: setattr(held["tensors"][0], "data", torch.zeros(1, 3)),
    "a value": lambda held: held["names"].update(b="other"),
    "a name": lambda held: held["names"].update(c=held["names"].pop("a")),
    "inside": lambda held: held["names"]["a"].append(3),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_value_that_was_seen_is_what_it_was_until_it_changes(change: str) -> None:
    held = pictures()
    seen = Seen(held)
    assert seen.fits()
    CHANGES[change](held)
    assert not seen.fits()


@pytest.mark.parametrize("other", [object(), {1}, np.zeros((4, 4)).T[1:], np.array([object()]), torch.zeros(4)[::2]])
def test_what_can_not_be_seen_is_said(other: Any) -> None:
    with pytest.raises(NOT_SEEN):
        Seen([other])
