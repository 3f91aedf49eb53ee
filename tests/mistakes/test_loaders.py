"""Loaders that can't be used are named before the first batch is spent."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from pytorch_lightning.errors import FitError
from tests.mistakes.honest import Refusals, batches, loads, planted, trainer_in

DATA = TensorDataset(torch.ones(8, 2))


class Stream(IterableDataset[Any]):
    """``n`` samples, and no length."""

    def __init__(self, n: int = 6) -> None:
        self.n = n

    def __iter__(self) -> Iterator[Any]:
        return iter([(torch.ones(2),)] * self.n)


NO_LOADER = "returned something that isn't a loader"
EMPTY = ("returned an empty loader", "no batch", "drop_last")


@pytest.mark.parametrize("hook", ["tng_dataloader", "val_dataloader"])
@pytest.mark.parametrize(
    ("loader", "words"),
    [
        (list, EMPTY),
        (lambda: DataLoader(TensorDataset(torch.ones(0, 2))), EMPTY),
        (lambda: batches(1, drop_last=True), EMPTY),
        (lambda: None, (NO_LOADER, "None", "Return a DataLoader")),
        (lambda: 3, (NO_LOADER, "3 (int)", "Return a DataLoader")),
        (lambda: "train", (NO_LOADER, "'train' (str)", "Return a DataLoader")),
        (lambda: DATA, (NO_LOADER, "a TensorDataset", "Return DataLoader(dataset, batch_size=32)")),
        (lambda: batches, (NO_LOADER, "the function batches", "Return a DataLoader")),
        (lambda: {"a": 3}, (NO_LOADER, "3", "Return")),
    ],
    ids=["no batches", "no samples", "drop_last", "None", "number", "text", "dataset", "function", "dict of a number"],
)
def test_what_a_loader_property_may_not_give(refusal: Refusals, hook: str, loader: Any, words: tuple[str, ...]) -> None:
    message = refusal.before_training(planted(**{hook: loads(lambda self: loader())}), words)
    assert message.startswith((f"{hook} returned", f"{hook}['a'] returned"))


def test_several_training_loaders(refusal: Refusals) -> None:
    model = planted(tng_dataloader=loads(lambda self: {"a": batches(), "b": [batches(), batches()]}))
    refusal.before_training(model, ("loaders inside of loaders", "tng_dataloader['b'] = ", "{'images': loader"))


def test_several_validation_loaders_need_a_third_argument(refusal: Refusals) -> None:
    model = planted(val_dataloader=loads(lambda self: [batches(), batches()]))
    words = ("validation has 2 loaders", "Net.validation_step", "def validation_step(self, data_batch, batch_nb, data")
    refusal.before_training(model, words)


def test_each_of_several_validation_loaders_is_named_beside_other_mistakes(refusal: Refusals) -> None:
    model = planted(
        val_dataloader=loads(lambda self: [batches(), batches(1, drop_last=True), batches(1, drop_last=True)]),
        validation_step=lambda self, data_batch, batch_nb, dataloader_i: None,
        configure_optimizers=lambda self: None,
    )
    words = (
        "1. configure_optimizers",
        "2. val_dataloader[1] returned an empty",
        "3. val_dataloader[2] returned an empty",
    )
    assert refusal.of(lambda: trainer_in(refusal.folder).fit(model), words).startswith("3 problems")


@pytest.mark.parametrize("option", ["train_percent_check", "val_check_interval"])
def test_a_share_of_a_training_loader_without_length(refusal: Refusals, option: str) -> None:
    model = planted(tng_dataloader=loads(lambda self: DataLoader(Stream(), batch_size=2)))
    words = ("the training loader has no length", f"{option}=0.5", "Give it a __len__")
    refusal.before_training(model, words, **{option: 0.5})


def test_a_share_of_a_validation_loader_without_length(refusal: Refusals) -> None:
    model = planted(val_dataloader=loads(lambda self: DataLoader(Stream(), batch_size=2)))
    refusal.before_training(model, ("the validation loader", "0.5", "Give it a __len__"), val_percent_check=0.5)


def test_an_interval_that_is_longer_than_an_epoch(refusal: Refusals) -> None:
    refusal.before_training(planted(), ("val_check_interval=100", "an epoch's 4", "Lower it"), val_check_interval=100)


@pytest.mark.parametrize("make", [iter, lambda loader: (batch for batch in loader)], ids=["iterator", "generator"])
def test_an_iterator_as_a_training_loader_is_one_line(refusal: Refusals, make: Any) -> None:
    kept = make(batches())
    model = planted(tng_dataloader=loads(lambda self: kept))
    with pytest.raises(FitError, match=r"the training loader yielded its batches in an earlier epoch.*an iterator"):
        trainer_in(refusal.folder, max_nb_epochs=2).fit(model)
    said = refusal.capsys.readouterr().err
    assert said.startswith("pytorch_lightning: tng_dataloader returned an iterator, which has no second epoch;")
    assert said.endswith("pass max_nb_epochs=1  [one-pass]\n")
    assert said.count("\n") == 1
    assert model.nb_steps == 4


def test_an_iterator_for_one_epoch_is_no_mistake(refusal: Refusals) -> None:
    assert trainer_in(refusal.folder).fit(planted(tng_dataloader=loads(lambda self: iter(batches())))) == 1
    assert refusal.capsys.readouterr() == ("", "")


def test_an_exhausted_iterator(refusal: Refusals) -> None:
    used = iter(batches())
    list(used)
    model = planted(tng_dataloader=loads(lambda self: used))
    words = ("the training loader yielded no batches", "epoch 0", "Check its dataset")
    refusal.of(lambda: trainer_in(refusal.folder).fit(model), words, FitError)
    assert model.nb_steps == 0


def test_an_iterator_for_validations(refusal: Refusals) -> None:
    model = planted(val_dataloader=loads(lambda self: iter(batches())))
    refusal.before_training(
        model, ("val_dataloader returned an iterator", "received a", "Return the iterable it was made from")
    )


def test_a_stream_without_samples(refusal: Refusals) -> None:
    for hook, name in (("tng_dataloader", "the training loader"), ("val_dataloader", "validation loader 0")):
        model = planted(**{hook: loads(lambda self: DataLoader(Stream(0), batch_size=2))})
        words = (f"{name} yielded no batches", "Check its dataset")
        refusal.of(lambda model=model: trainer_in(refusal.folder).fit(model), words, FitError)
        assert model.nb_steps == 0


@pytest.mark.parametrize("seed", [2**63, 2**64 - 1])
def test_a_stream_takes_any_seed_that_torch_draws(refusal: Refusals, seed: int) -> None:
    torch.manual_seed(seed)
    model = planted(tng_dataloader=loads(lambda self: DataLoader(Stream(), batch_size=2)))
    assert trainer_in(refusal.folder).fit(model) == 1
    assert model.nb_steps == 3


def test_data_in_its_own_order_is_one_line(refusal: Refusals) -> None:
    model = planted(tng_dataloader=loads(lambda self: batches(shuffle=False)))
    assert trainer_in(refusal.folder).fit(model) == 1
    assert refusal.capsys.readouterr().err == (
        "pytorch_lightning: the training data isn't shuffled; pass shuffle=True to the DataLoader if it should be"
        "  [not-shuffled]\n"
    )


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"overfit_pct": 2}, "overfit_pct=2 is more than the whole data set; 1.0 is all of it, 0.1 a tenth"),
        (
            {"train_percent_check": 100},
            "train_percent_check=100 is more than the whole data set; 1.0 is all of it, 0.1 a tenth",
        ),
        ({"gradient_clip_algorithm": "value"}, "gradient_clip_algorithm='value' has no effect without gradient_clip"),
        (
            {"check_val_every_n_epoch": 3},
            "validation never runs: check_val_every_n_epoch=3 is more than max_nb_epochs=1",
        ),
    ],
)
def test_options_that_do_not_do_what_they_say_are_one_line(refusal: Refusals, options: Any, line: str) -> None:
    assert trainer_in(refusal.folder, **options).fit(planted()) == 1
    said = refusal.capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1
