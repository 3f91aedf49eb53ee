"""The mistakes of newcomers: each is named, or is torch's own error with one line of help."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset, random_split

from pytorch_lightning import LightningModule, Trainer
from tests.mistakes import first_hour
from tests.mistakes.newcomers import MISTAKES, QUIET, Net, X, Y, loader

RAW = {"an_hparam_is_read_in_the_constructor"}
"""Python's own error is all there is: no code of the library is called there."""


def told(program: Any) -> str:
    """What a user sees of the error."""
    try:
        program()
    except Exception as error:
        notes = getattr(error, "__notes__", [])
        assert sum(note.startswith("help: ") for note in notes) <= 1
        return "\n".join([f"{type(error).__name__}: {error}", *notes])
    return ""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MISTAKES)
def test_it_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    program, words = MISTAKES[name]
    text = told(program)
    out = capsys.readouterr()
    assert (words in text + out.err) == (name not in RAW), text + out.err


def test_there_are_sixty_and_more() -> None:
    assert first_hour.tensors_go_to_fit.__name__ in MISTAKES  # those of the other file too
    assert len(MISTAKES) - len(RAW) >= 60


# ------------------------------------------------------------------ no false alarm
def test_one_split_and_a_whole_set_for_both_get_no_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    parts = random_split(TensorDataset(X, Y), [15, 5])
    for tng, val in (parts, (parts[0], parts[0]), (TensorDataset(X, Y), parts[1])):
        Trainer(False, **QUIET).fit(Net(), DataLoader(tng, 5, shuffle=True), DataLoader(val, 5))
    assert "shared-samples" not in capsys.readouterr().err


def test_own_methods_and_attributes_under_these_names() -> None:
    class Model(Net):
        def __init__(self) -> None:
            super().__init__()
            self.save = self.summary = self.type = "mine"
            self.eval = lambda: self.train(False)  # type: ignore[method-assign]

        @classmethod
        def load_from_checkpoint(cls, path: Any) -> Any:  # type: ignore[override]
            return path

    model = Model()
    assert (model.save, model.summary, model.load_from_checkpoint("x")) == ("mine", "mine", "x")
    Trainer(False, **QUIET).fit(model)


def test_a_class_method_that_loads_through_super(tmp_path: Path) -> None:
    class Model(Net):
        @classmethod
        def loaded(cls, path: Any) -> Any:
            return super().load_from_checkpoint(path)

    trainer = Trainer(False, **QUIET)
    trainer.fit(Net())
    trainer.save_checkpoint(tmp_path / "net.ckpt")
    assert torch.equal(Model.loaded(tmp_path / "net.ckpt").layer.weight, trainer.model.layer.weight)


def test_layers_after_super_and_plain_attributes_before_it() -> None:
    class Model(Net):
        def __init__(self) -> None:
            self.width = 4
            super().__init__()
            self.more = torch.nn.Linear(self.width, 4)

    model = Model()
    assert set(dict(model.named_children())) == {"layer", "more"}
    assert model.width == 4


def test_compile_of_a_module_takes_the_options_of_torch() -> None:
    model = Net()
    model.compile(backend="eager")
    assert model(torch.ones(2, 4)).shape == (2, 3)


def test_own_methods_of_these_names_are_called() -> None:
    class Model(Net):
        def predict(self, x: Any) -> Any:
            return self(x).argmax(1)

        def evaluate(self) -> str:
            return "mine"

    model = Model()
    assert model.predict(torch.ones(2, 4)).shape == (2,)
    assert model.evaluate() == "mine"


def test_an_object_with_the_hooks_of_keras_is_called_by_its_newer_names(tmp_path: Path) -> None:
    class Printing:
        def __init__(self) -> None:
            self.calls = list[Any]()

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            self.calls.append(("begin", batch))

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.calls.append(("end", batch, sorted(logs)))

    printing = Printing()
    Trainer(False, **QUIET, callbacks=[printing]).fit(Net())
    assert printing.calls[:2] == [("begin", 0), ("end", 0, ["tng_loss"])]
    assert len(printing.calls) == 8


def test_an_error_with_its_own_words_gets_no_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    class Model(Net):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            raise ValueError("a wrong label in row 3")

    assert "help: " not in told(lambda: Trainer(False, **QUIET).fit(Model()))
    assert os.listdir(tmp_path) == [] or "lightning_logs" in os.listdir(tmp_path)


def test_validation_and_test_get_the_same_help() -> None:
    class Model(Net):
        test_dataloader = property(lambda self: loader(y=torch.zeros(20)))

    assert "help: the dtypes don't fit" in told(lambda: Trainer(False, **QUIET).test(Model()))
    assert isinstance(Model(), LightningModule)
