"""A stream that gives other batches when it is read again is refused; one that gives the same ones isn't."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from pytorch_lightning.data.sketch import is_alike, sketch
from pytorch_lightning.errors import FitError
from tests.recorder import quiet_trainer
from tests.resume.test_changes_in_training import Model, assert_same

NB = 40


def points() -> list[Tensor]:
    return list(torch.arange(4.0 * NB).reshape(NB, 4).sin())


class Shuffled(IterableDataset[Any]):
    def __init__(self, make: Callable[[], random.Random]) -> None:
        self.make = make

    def __iter__(self) -> Iterator[Any]:
        items = points()
        self.make().shuffle(items)
        return iter(items)


def unseeded() -> random.Random:
    return random.Random(random.SystemRandom().random())


def seeded() -> random.Random:
    return random.Random(3)


def seeded_by_the_fit() -> random.Random:
    return random.Random(random.random())


def model_on(make: Callable[[], random.Random], workers: int = 0) -> Any:
    class Trained(Model):
        @property
        def tng_dataloader(self) -> Any:
            return DataLoader(Shuffled(make), batch_size=4, num_workers=workers)

    return Trained()


def cut(tmp_path: Path, model: Any, **options: Any) -> Path:
    first = quiet_trainer(tmp_path / "first", max_nb_epochs=2, max_nb_steps=3, **options)
    first.fit(model)
    first.save_checkpoint(tmp_path / "cut.ckpt")
    return tmp_path / "cut.ckpt"


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("virtual_ranks", [1, 2])
def test_a_stream_that_nobody_seeds_is_refused(tmp_path: Path, workers: int, virtual_ranks: int) -> None:
    options: dict[str, Any] = {"virtual_ranks": virtual_ranks}
    saved = cut(tmp_path, model_on(unseeded, workers), **options)
    again = model_on(unseeded, workers)
    before = {name: value.clone() for name, value in torch.load(saved)["state_dict"].items()}
    with pytest.raises(FitError, match=r"the order of the training data differs.*resume_check='warn'"):
        quiet_trainer(tmp_path / "again", max_nb_epochs=2, resume=saved, **options).fit(again)
    assert all(value.equal(before[name]) for name, value in again.state_dict().items())  # no wrong step


def test_with_warn_it_resumes_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = cut(tmp_path, model_on(unseeded))
    resumed = quiet_trainer(tmp_path / "again", max_nb_epochs=2, resume=saved, resume_check="warn")
    assert resumed.fit(model_on(unseeded)) == 1
    assert capsys.readouterr().err.count("[other-order]") == 1


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("virtual_ranks", [1, 2])
@pytest.mark.parametrize("make", [seeded, seeded_by_the_fit])
def test_a_stream_that_is_the_same_resumes(tmp_path: Path, make: Any, workers: int, virtual_ranks: int) -> None:
    options: dict[str, Any] = {"virtual_ranks": virtual_ranks}
    whole, again = model_on(make, workers), model_on(make, workers)
    quiet_trainer(tmp_path / "whole", max_nb_epochs=2, **options).fit(whole)
    saved = cut(tmp_path, model_on(make, workers), **options)
    quiet_trainer(tmp_path / "again", max_nb_epochs=2, resume=saved, **options).fit(again)
    assert_same(whole, again)


def test_a_sketch_tells_samples_apart_and_forgives_rounding() -> None:
    images = torch.zeros(8, 1, 28, 28)
    images[:, :, 8:20, 8:20] = torch.rand(8, 1, 12, 12)  # black at the edges
    other = images.flip(0)
    whole: Any = {"image": images, "text": ["a", "b"], "array": np.arange(4), "label": 3, "c": torch.ones(2) * 1j}
    assert is_alike(sketch(whole), sketch({**whole, "image": images * (1 + 1e-6)}))
    for changed in ({"image": other}, {"text": ["a", "c"]}, {"array": np.arange(1, 5)}, {"label": 4}):
        assert not is_alike(sketch(whole), sketch({**whole, **changed})), changed
    assert not is_alike(sketch(whole), sketch({**whole, "c": torch.ones(2)}))
    odd = [
        torch.eye(2).to_sparse(),
        np.array(["2020"], dtype="datetime64[Y]"),
        np.array([{}]),
        object(),
        torch.empty(0),
    ]
    assert is_alike(sketch(odd), sketch(odd))
    assert is_alike(sketch(torch.tensor([float("nan")])), sketch(torch.tensor([float("nan")])))
