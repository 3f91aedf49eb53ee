"""A batch in chunks, and outputs put together: the rules of 'dp', without a module."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from pytorch_lightning.errors import FitError
from pytorch_lightning.strategies.chunks import cut, join, join_training

CPU = torch.device("cpu")
Pair = namedtuple("Pair", "x y")


@dataclass
class Sample:
    x: Tensor
    words: list[str]


def test_a_batch_is_split_into_whole_samples_whatever_it_is_made_of() -> None:
    x, y = torch.arange(10).reshape(5, 2), torch.arange(5)
    assert [size for _, size in cut([x, y], 2)] == [3, 2]
    assert [size for _, size in cut(x, 4)] == [2, 2, 1]
    assert [size for _, size in cut(x, 8)] == [1] * 5, "never an empty chunk"
    weights = torch.ones(7)
    batch = {"pair": Pair(x, y), "words": list("abcde"), "weights": weights, "scale": 2.0, "one": torch.tensor(1)}
    (first, _), (second, _) = cut(batch, 2)
    assert isinstance(first["pair"], Pair)
    assert first["pair"].y.tolist() == [0, 1, 2]
    assert second["pair"].x.tolist() == [[6, 7], [8, 9]]
    assert (first["words"], second["words"]) == (["a", "b", "c"], ["d", "e"])
    assert first["weights"] is second["weights"] is weights, "as long as something else"
    assert (second["scale"], second["one"]) == (2.0, 1)
    assert cut(Sample(x, list("abcde")), 2)[1][0].words == ["d", "e"]
    assert cut(["no", "tensor"], 2) == [(["no", "tensor"], 1)]


def test_outputs_of_chunks_equal_those_of_the_whole_batch() -> None:
    x = torch.randn(5, 3, dtype=torch.float64)

    def step(part: Tensor) -> dict[str, Any]:
        return OrderedDict(
            mean=part.mean(),
            rows=part * 2,
            nested=[{"of_row": part.sum(1)}, (part.pow(2).mean().reshape(1), 3)],
            count=(part > 0).sum(),
            number=float(part.mean()),
            words=[str(float(row[0])) for row in part],
            batch_nb=7,
            nothing=None,
        )

    chunks = cut(x, 2)
    joined = join([step(part) for part, _ in chunks], [size for _, size in chunks], CPU)
    whole = step(x)
    assert type(joined) is OrderedDict
    assert list(joined) == list(whole)
    torch.testing.assert_close(joined["mean"], whole["mean"])
    assert torch.equal(joined["rows"], whole["rows"])
    assert torch.equal(joined["nested"][0]["of_row"], whole["nested"][0]["of_row"])
    torch.testing.assert_close(joined["nested"][1][0], whole["nested"][1][0])
    assert joined["nested"][1][1] == 3
    assert torch.equal(joined["count"], whole["count"])
    assert joined["count"].dtype == torch.int64
    assert joined["number"] == pytest.approx(whole["number"])
    assert joined["words"] == whole["words"]
    assert (joined["batch_nb"], joined["nothing"]) == (7, None)


def test_a_loss_is_weighted_by_its_count_and_other_numbers_by_samples() -> None:
    outputs = [
        {"loss": torch.tensor([1.0]), "loss_count": 10, "prog": {"acc": torch.tensor(0.5)}},
        {"loss": torch.tensor([4.0]), "loss_count": torch.tensor(5), "prog": {"acc": torch.tensor(1.0)}},
    ]
    joined = join_training(outputs, [3, 1], CPU)
    assert joined["loss"].item() == pytest.approx(2.0)
    assert joined["loss_count"] == 15
    assert joined["prog"]["acc"].item() == pytest.approx(0.625)
    without = [{"loss": output["loss"]} for output in outputs]
    assert join_training(without, [3, 1], CPU)["loss"].item() == pytest.approx(1.75)
    assert join_training([torch.tensor(2.0), torch.tensor(4.0)], [1, 1], CPU).item() == 3.0, "chunks of one sample"
    assert join_training([torch.tensor([2.0]), torch.tensor([4.0])], [1, 1], CPU).shape == ()


def test_what_does_not_fit_together_is_named() -> None:
    with pytest.raises(FitError, match=r"shape \(3,\), a Tensor of shape \(2,\) for chunks of \[4, 1\] samples"):
        join([{"a": torch.zeros(3)}, {"a": torch.zeros(2)}], [4, 1], CPU)
