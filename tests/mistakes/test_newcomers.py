"""The mistakes of newcomers: each is named, or is torch's own error with one line of help."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from pytorch_lightning import LightningModule, Trainer
from tests.mistakes.newcomers import MISTAKES, QUIET, Net, loader

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
    assert len(MISTAKES) - len(RAW) >= 60


# ------------------------------------------------------------------ no false alarm
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
