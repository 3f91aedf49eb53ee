"""Habits from Lightning 2: each name of it either works here or is answered with what to write."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pytorch_lightning
import pytorch_lightning.callbacks
import pytorch_lightning.loggers
from pytorch_lightning import LightningModule, Trainer, lightning2
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.errors import MisconfigurationException
from pytorch_lightning.trainer.trainer import option_defaults

NAMES = json.loads((Path(__file__).parent / "lightning_2_6_6.json").read_text())
"""What Lightning 2.6.6 defines itself, listed by its signatures and ``dir``."""


def quiet(**options: Any) -> Trainer:
    return Trainer(False, **{"max_nb_epochs": 1, "progress_bar": False, "print_weights_summary": False, **options})


@pytest.mark.parametrize("kind", ["trainer_options", "trainer_members", "arguments", "callback_hooks", "callbacks",
                                  "names", "loggers"])  # fmt: skip
def test_the_table_has_every_name(kind: str) -> None:
    assert not set(NAMES[kind]) - set(lightning2.table()[kind])


def test_the_table_has_every_name_of_a_module_and_every_argument_of_a_callback() -> None:
    table = lightning2.table()
    assert not set(NAMES["module"]) - set(table["module_hooks"]) - set(table["module_members"])
    own = {*inspect.signature(pytorch_lightning_callback("ModelCheckpoint")).parameters,
           *inspect.signature(pytorch_lightning_callback("EarlyStopping")).parameters}  # fmt: skip
    assert not set(NAMES["callback_arguments"]) - own - set(table["callback_arguments"])


def pytorch_lightning_callback(name: str) -> Any:
    import pytorch_lightning.callbacks as callbacks

    return getattr(callbacks, name)


def test_what_is_called_the_same_is_there() -> None:
    table = lightning2.table()
    same = {kind: [name for name, text in names.items() if text.startswith("=")] for kind, names in table.items()}
    accepted = {*option_defaults(), "logger", "gradient_clip_val"}
    assert not set(same["trainer_options"]) - accepted
    trainer, module = quiet(), LightningModule()
    assert not [name for name in same["trainer_members"] if not hasattr(trainer, name)]
    for name in (*same["module_hooks"], *same["module_members"]):
        assert inspect.getattr_static(module, name, None) is not None or name in vars(module), name
    assert not [name for name in same["callback_hooks"] if not hasattr(Callback, name)]


def test_what_to_write_is_there() -> None:
    """An option in an answer is one that the Trainer has; no answer names what it answers."""
    for name, text in lightning2.table()["trainer_options"].items():
        for written in re.findall(r"^Write (\w+)(?==| |$)", text):
            assert written in option_defaults() or written in ("Trainer",), (name, text)
        assert not re.search(rf"Write {name}\b", text), text
    for name, text in lightning2.table()["trainer_members"].items():
        for written in re.findall(r"trainer\.(\w+)", text):
            assert hasattr(quiet(), written) or written in ("loop",), (name, text)


VALUES = {"precision": "16-mixed", "fast_dev_run": 5}


@pytest.mark.parametrize("name", NAMES["trainer_options"])
def test_an_option_is_known_or_answered(name: str) -> None:
    answer = lightning2.advice("trainer_options", name)
    if answer is None:
        assert name in {*option_defaults(), "logger", "gradient_clip_val"}
        return
    with pytest.raises(MisconfigurationException) as raised:
        quiet(**{name: 1})
    assert str(raised.value) == f"Trainer has no option {name!r}. {answer}."


def test_all_names_are_in_one_error() -> None:
    with pytest.raises(MisconfigurationException) as raised:
        Trainer(accelerator="cpu", devices=2, max_epochs=3, precision="bf16-mixed", max_nb_steps=-3)
    text = str(raised.value)
    assert text.startswith("5 problems")
    for part in ("gpus=1", "nb_processes=2", "Write max_nb_epochs", "Write precision='bf16'", "max_nb_steps must be"):
        assert part in text
    assert "Did you mean" not in text


def test_a_misspelled_name_of_here_is_still_recognized() -> None:
    with pytest.raises(MisconfigurationException, match="Did you mean 'max_nb_epochs'"):
        Trainer(max_nb_epoch=3)


class Net(LightningModule):
    """Eight numbers that learn to be 0."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return self.layer(data_batch).pow(2).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    tng_dataloader = property(lambda self: [torch.ones(2, 4)])


@pytest.mark.parametrize(
    "name", ["log", "log_dict", "save_hyperparameters", "manual_backward", "all_gather", "optimizers"]
)
def test_a_method_of_their_modules_says_what_to_write(name: str) -> None:
    class Calls(Net):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            getattr(self, name)("x", 1)
            return super().training_step(data_batch, batch_nb)

    with pytest.raises(MisconfigurationException) as raised:
        quiet().fit(Calls())
    assert str(lightning2.advice("module_members", name)) in str(raised.value)


def test_an_attribute_of_their_modules_says_what_to_read() -> None:
    class Reads(Net):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            self.logger.log_metrics({"x": 1})
            return super().training_step(data_batch, batch_nb)

    with pytest.raises(AttributeError, match=r"'Reads' object has no attribute 'logger'\. Read self\.experiment"):
        quiet().fit(Reads())


def test_names_that_a_module_uses_itself_are_its_own() -> None:
    class Own(Net):
        def __init__(self) -> None:
            super().__init__()
            self.log = nn.Linear(4, 2)
            self.logger = []
            self.optimizers = "mine"
            self.device = "a name"

        def print(self, text: str) -> None:
            self.logger.append(text)

        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            self.print(self.device + self.optimizers)
            return self.log(data_batch).pow(2).mean()

    model = Own()
    assert quiet().fit(model) == 1
    assert model.logger == ["a namemine"]
    assert "log.weight" in model.state_dict()


def test_device_is_that_of_the_parameters() -> None:
    assert Net().device == torch.device("cpu")
    assert Net().to("meta").device == torch.device("meta")
    assert LightningModule().device == torch.device("cpu")

    class Moves(Net):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            return super().training_step(data_batch.to(self.device), batch_nb)

    assert quiet().fit(Moves()) == 1


@pytest.mark.parametrize("name", [n for n in NAMES["trainer_members"] if lightning2.advice("trainer_members", n)])
def test_an_attribute_of_their_trainer_says_what_to_read(name: str) -> None:
    trainer = quiet()
    if not hasattr(trainer, name):
        with pytest.raises(AttributeError) as raised:
            getattr(trainer, name)
        assert str(lightning2.advice("trainer_members", name)) in str(raised.value)
        assert getattr(trainer, name, None) is None


def test_their_names_in_the_package_say_what_to_write() -> None:
    with pytest.raises(AttributeError, match="Write the properties tng_dataloader"):
        _ = pytorch_lightning.LightningDataModule
    with pytest.raises(AttributeError, match=r"learning rates are columns of metrics\.csv"):
        _ = pytorch_lightning.callbacks.LearningRateMonitor
    with pytest.raises(AttributeError, match="a Logger of your own"):
        _ = pytorch_lightning.loggers.WandbLogger
    with pytest.raises(AttributeError, match=r"has no attribute 'Nothing'$"):
        _ = pytorch_lightning.callbacks.Nothing


def test_seed_everything_takes_their_argument() -> None:
    for workers in (True, False):
        assert pytorch_lightning.seed_everything(3, workers=workers) == 3
        assert torch.initial_seed() == 3
