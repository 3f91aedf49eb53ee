"""The mark of many tensors, made the short way, is the one that the table of nodes gives."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pytorch_lightning.resume.glance import glance
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
