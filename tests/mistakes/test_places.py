"""A user's own exception keeps its type and traceback, and says where in the run it was raised."""

import re
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from pytorch_lightning.callbacks import Callback
from tests.mistakes.honest import Refusals, batches, loads, planted, trainer_in


def place_of(action: Any, kind: type[Exception]) -> str:
    """Everything that the traceback of ``action()``'s exception shows."""
    with pytest.raises(kind) as caught:
        action()
    return "".join(traceback.format_exception(caught.value))


class Mine(Exception):
    pass


def raising(*parameters: str) -> Any:
    """A method with these parameters that raises ``Mine``."""

    def fail() -> None:
        raise Mine("of a user")

    return eval(f"lambda self, {', '.join(parameters)}: fail()", {"fail": fail})


FITTING = "raised while fitting Net (epoch {}, batch_nb {})"


@pytest.mark.parametrize(
    ("hook", "parameters", "places"),
    [
        ("training_step", ["data_batch", "batch_nb"], [(0, 0)]),
        ("on_fit_start", [], [(0, 0)]),
        ("on_epoch_start", [], [(0, 0)]),
        ("on_batch_start", ["data_batch"], [(0, 0)]),
        ("on_after_backward", [], [(0, 0)]),
        ("on_before_zero_grad", ["optimizer"], [(0, 0)]),
        ("on_batch_end", [], [(0, 0)]),
        ("update_tng_log_metrics", ["logs"], [(0, 0)]),
        ("on_pre_performance_check", [], [(0, 4)]),
        ("on_epoch_end", [], [(0, 4)]),
        ("on_fit_end", [], [(1, 0)]),
    ],
)
def test_hooks_of_a_fit(refusal: Refusals, hook: str, parameters: list[str], places: Any) -> None:
    text = place_of(lambda: trainer_in(refusal.folder).fit(planted(**{hook: raising(*parameters)})), Mine)
    assert text.count("raised while fitting") == 1
    assert FITTING.format(*places[0]) in text
    assert 'in fail\n    raise Mine("of a user")' in text


def test_a_later_batch_is_named(refusal: Refusals) -> None:
    class Odd(Callback):
        def on_batch_end(self, run: Any) -> None:
            if (run.progress.epoch, run.progress.batch_nb) == (1, 2):
                raise Mine

    text = place_of(lambda: trainer_in(refusal.folder, max_nb_epochs=3, callbacks=[Odd()]).fit(planted()), Mine)
    assert FITTING.format(1, 2) in text


@pytest.mark.parametrize(
    ("hook", "parameters"),
    [
        ("configure_optimizers", []),
        ("get_save_dict", []),
        ("tng_dataloader", None),
        ("val_dataloader", None),
    ],
)
def test_hooks_before_the_first_batch(refusal: Refusals, hook: str, parameters: Any) -> None:
    method = loads(lambda self: raising()(self)) if parameters is None else raising(*parameters)
    model = planted(**{hook: method})
    text = place_of(lambda: trainer_in(refusal.folder).fit(model), Mine)
    assert f"raised by {hook} of Net, before the first batch" in text
    assert not (refusal.folder / "logs").exists()


def test_an_error_of_torch_in_configure_optimizers(refusal: Refusals) -> None:
    model = planted(configure_optimizers=lambda self: torch.optim.SGD([], 0.1))
    text = place_of(lambda: trainer_in(refusal.folder).fit(model), ValueError)
    assert "optimizer got an empty parameter list" in text
    assert "raised by configure_optimizers of Net, before the first batch" in text


@pytest.mark.parametrize(
    ("function", "kind", "shown"),
    [
        (
            lambda self: self.data,
            RuntimeError,
            "Net.tng_dataloader raised AttributeError: 'Net' object has no attribute",
        ),
        (lambda self: Path("/nothing").read_text(), FileNotFoundError, "No such file or directory: '/nothing'"),
        (lambda self: __import__("nothing_of_the_kind"), ImportError, "No module named 'nothing_of_the_kind'"),
    ],
)
def test_the_error_of_a_loader_property_is_shown(refusal: Refusals, function: Any, kind: Any, shown: str) -> None:
    text = place_of(lambda: trainer_in(refusal.folder).fit(planted(tng_dataloader=loads(function))), kind)
    assert shown in text
    assert "raised by tng_dataloader of Net" in text


@pytest.mark.parametrize(
    ("stage", "hook", "parameters", "place"),
    [
        ("validate", "validation_step", ["data_batch", "batch_nb"], "validation of Net (batch_nb 0)"),
        ("validate", "validation_end", ["outputs"], "validation of Net (after the last batch)"),
        ("test", "test_step", ["data_batch", "batch_nb"], "test of Net (batch_nb 0)"),
        ("test", "test_end", ["outputs"], "test of Net (after the last batch)"),
        ("predict", "predict_step", ["data_batch", "batch_nb"], "prediction of Net (batch_nb 0)"),
        ("fit", "validation_step", ["data_batch", "batch_nb"], "sanity validation of Net (batch_nb 0)"),
    ],
)
def test_hooks_of_an_evaluation(refusal: Refusals, stage: str, hook: str, parameters: list[str], place: str) -> None:
    model = planted(**{hook: raising(*parameters)})
    text = place_of(lambda: getattr(trainer_in(refusal.folder), stage)(model), Mine)
    assert f"raised in the {place}" in text
    assert text.count("raised in the") == 1


def test_the_batch_and_the_loader_of_an_evaluation_are_named(refusal: Refusals) -> None:
    def validation_step(self: Any, data_batch: Any, batch_nb: int, dataloader_i: int) -> None:
        if (batch_nb, dataloader_i) == (1, 1):
            raise Mine

    model = planted(
        validation_step=validation_step,
        validation_end=lambda self, outputs: None,
        val_dataloader=loads(lambda self: [batches(4), batches(4)]),
    )
    text = place_of(lambda: trainer_in(refusal.folder).validate(model), Mine)
    assert "raised in the validation of Net (batch_nb 1, loader 1)" in text


def test_an_error_of_torch_shows_its_place(refusal: Refusals) -> None:
    model = planted(tng_dataloader=loads(lambda self: [[torch.ones(2, 2, dtype=torch.long)]]))
    text = place_of(lambda: trainer_in(refusal.folder).fit(model), RuntimeError)
    assert FITTING.format(0, 0) in text
    assert "training_step" in text


# ---------------------------------------------------------------------------------------------- datasets
class Broken(Dataset[Any]):
    """Sample 5 can't be read."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        if index == 5:
            raise KeyError("no such picture")
        return (torch.ones(2),)


class BrokenTogether(Broken):
    """Fetches whole batches."""

    def __getitems__(self, indices: list[int]) -> Any:
        return [self[index] for index in indices]


@pytest.mark.parametrize("nb_workers", [0, 2])
def test_a_dataset_that_raises_names_the_sample(refusal: Refusals, nb_workers: int) -> None:
    loader = DataLoader(Broken(), batch_size=2, num_workers=nb_workers)
    model = planted(tng_dataloader=loads(lambda self: loader))
    trainer = trainer_in(refusal.folder, silence=["not-shuffled"])
    text = place_of(lambda: trainer.fit(model), KeyError)
    place = "raised by the dataset of the training loader (epoch 0, batch_nb 2, sample 5, samples of the batch [4, 5]"
    assert place + (")" if not nb_workers else ", worker 0)") in text
    assert FITTING.format(0, 2) in text
    assert model.nb_steps == 2


def test_the_sample_is_named_in_any_epoch_and_order(refusal: Refusals) -> None:
    class Later(Broken):
        nb_read = 0

        def __getitem__(self, index: int) -> Any:
            self.nb_read += 1
            if self.nb_read == 14:
                raise Mine(f"it is {index}")
            return (torch.ones(2),)

    model = planted(tng_dataloader=loads(lambda self: DataLoader(Later(), batch_size=3, shuffle=True)))
    text = place_of(lambda: trainer_in(refusal.folder, max_nb_epochs=2).fit(model), Mine)
    told = re.search(r"it is (\d)", text)
    assert told is not None
    assert re.search(rf"\(epoch 1, batch_nb 1, sample {told[1]}, samples of the batch \[\d, \d, \d\]\)", text)


def test_a_dataset_that_fetches_whole_batches_names_the_batch(refusal: Refusals) -> None:
    model = planted(test_dataloader=loads(lambda self: DataLoader(BrokenTogether(), batch_size=4)))
    text = place_of(lambda: trainer_in(refusal.folder).test(model), KeyError)
    assert "raised by the dataset of test loader 0 (pass 0, batch_nb 1, samples of the batch [4, 5, 6, 7])" in text
    assert "raised in the test of Net (batch_nb 1)" in text


def test_a_dataset_without_batches_names_the_sample(refusal: Refusals) -> None:
    model = planted(val_dataloader=loads(lambda self: DataLoader(Broken(), batch_size=None)))
    text = place_of(lambda: trainer_in(refusal.folder, nb_sanity_val_steps=6).fit(model), KeyError)
    assert "raised by the dataset of validation loader 0 (sanity pass, batch_nb 5, samples of the batch [5])" in text


def test_a_stream_that_raises_names_the_batch(refusal: Refusals) -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            yield (torch.ones(2),)
            raise Mine

    model = planted(tng_dataloader=loads(lambda self: DataLoader(Stream())))
    text = place_of(lambda: trainer_in(refusal.folder).fit(model), Mine)
    assert "raised by the training loader (epoch 0, batch_nb 1)" in text
