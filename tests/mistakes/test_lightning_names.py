"""Habits from Lightning 2: each name of it either works here or is answered with what to write."""

import contextlib
import inspect
import io
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
    "name", ["log", "log_dict", "save_hyperparameters", "toggle_optimizer", "all_gather", "optimizers"]
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
    with pytest.raises(AttributeError, match="a Tracker of your own"):
        _ = pytorch_lightning.loggers.CometLogger
    with pytest.raises(AttributeError, match=r"MLflowLogger\(FOLDER"):
        _ = pytorch_lightning.loggers.MLFlowLogger
    with pytest.raises(AttributeError, match=r"has no attribute 'Nothing'$"):
        _ = pytorch_lightning.callbacks.Nothing


def test_seed_everything_takes_their_argument() -> None:
    for workers in (True, False):
        assert pytorch_lightning.seed_everything(3, workers=workers) == 3
        assert torch.initial_seed() == 3


# ------------------------------------------------------------------ loaders that are passed
class Seen(Net):
    """Notes the first number of each batch, by the step that got it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, float]] = []

    def _note(self, where: str, data_batch: Any) -> Any:
        self.seen.append((where, data_batch[0, 0].item()))
        return self.layer(data_batch).pow(2).mean()

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return self._note("training", data_batch)

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        return self._note("validation", data_batch)

    def validation_end(self, outputs: Any) -> Any:
        return {"val_loss": torch.stack(outputs).mean()}


def loader(number: float, nb: int = 2) -> list[torch.Tensor]:
    return [torch.full((2, 4), number)] * nb


CALLS = {
    "positional": lambda trainer, model: trainer.fit(model, loader(2.0), loader(3.0)),
    "named": lambda trainer, model: trainer.fit(model, tng_dataloader=loader(2.0), val_dataloader=loader(3.0)),
    "as in Lightning 2": lambda trainer, model: trainer.fit(
        model, train_dataloaders=loader(2.0), val_dataloaders=loader(3.0)
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_fit_takes_loaders(call: Any) -> None:
    model = Seen()
    assert call(quiet(nb_sanity_val_steps=0), model) == 1
    assert model.seen == [("training", 2.0)] * 2 + [("validation", 3.0)] * 2
    with pytest.raises(MisconfigurationException, match="doesn't define val_dataloader"):
        quiet().fit(model)  # without arguments the properties are used again
    assert [batch[0, 0].item() for batch in model.tng_dataloader] == [1.0]


def test_a_module_without_loaders_trains_on_passed_ones() -> None:
    class Without(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        training_step, configure_optimizers = Net.training_step, Net.configure_optimizers

    model = Without()
    assert quiet(max_nb_epochs=3).fit(model, loader(1.0)) == 1
    with pytest.raises(MisconfigurationException, match="doesn't define tng_dataloader"):
        quiet().fit(model)


def test_passed_loaders_train_as_a_loop_by_hand() -> None:
    torch.manual_seed(3)
    model, layer = Net(), nn.Linear(4, 2)
    layer.load_state_dict(model.layer.state_dict())
    batches = [torch.randn(5, 4) for _ in range(4)]
    quiet(max_nb_epochs=2).fit(model, batches)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for batch in batches * 2:
        optimizer.zero_grad()
        layer(batch).pow(2).mean().backward()
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(layer.parameters(), model.layer.parameters(), strict=True))


@pytest.mark.parametrize("name", ["validate", "test"])
def test_validate_and_test_take_a_loader(name: str) -> None:
    for arguments, options in (
        ((loader(5.0),), {}),
        ((), {"dataloader": loader(5.0)}),
        ((), {"dataloaders": loader(5.0)}),
    ):
        model = Seen()
        getattr(quiet(), name)(model, *arguments, **options)
        assert model.seen == [("validation", 5.0)] * 2


def test_predict_takes_a_loader_by_their_name() -> None:
    class Predicts(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x)

    assert [output.shape for output in quiet().predict(Predicts(), dataloaders=loader(5.0, 3))] == [(2, 2)] * 3


def test_a_path_in_the_place_of_a_loader_is_a_checkpoint(tmp_path: Path) -> None:
    trainer, model = quiet(), Seen()
    trainer.fit(model, loader(1.0), loader(1.0))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    with torch.no_grad():
        model.layer.weight.fill_(100.0)
    with pytest.raises(MisconfigurationException, match="doesn't define val_dataloader"):
        trainer.validate(model, str(tmp_path / "a.ckpt"))  # the model has none of its own
    with pytest.raises(MisconfigurationException, match="Pass ckpt="):
        trainer.validate(model, "a.ckpt", ckpt="b.ckpt")
    told = trainer.validate(model, loader(1.0), ckpt=tmp_path / "a.ckpt")
    assert told["val_loss"] < 10


def test_passed_loaders_reach_spawned_processes() -> None:
    model = Seen()
    trainer = quiet(nb_processes=2)
    assert trainer.fit(model, loader(2.0, 4), loader(3.0, 4)) == 1
    assert trainer.global_step == 2  # four batches on two processes
    assert trainer.validate(model, loader(0.0, 2))["val_loss"] == pytest.approx(model.layer.bias.pow(2).mean().item())


def test_the_same_loader_by_two_names_is_an_error() -> None:
    with pytest.raises(MisconfigurationException, match="which mean the same"):
        quiet().fit(Net(), loader(1.0), train_dataloaders=loader(2.0))


@pytest.mark.parametrize("name", ["ckpt_path", "datamodule", "weights_only"])
def test_an_argument_of_their_fit_says_what_to_write(name: str) -> None:
    with pytest.raises(MisconfigurationException) as raised:
        quiet().fit(Net(), **{name: "x"})
    assert str(lightning2.advice("arguments", name)) in str(raised.value)
    with pytest.raises(TypeError, match="unexpected keyword argument 'nonsense'"):
        quiet().fit(Net(), nonsense=1)


def test_fit_on_the_class_says_what_to_write() -> None:
    with pytest.raises(MisconfigurationException, match=r"Write Trainer\(\)\.fit\(model\)"):
        Trainer.fit(Net())  # type: ignore[arg-type]
    with pytest.raises(MisconfigurationException, match="a model must be a LightningModule; received None"):
        quiet().fit()


# ------------------------------------------------------------------ dictionaries of optimizers
def rates(returned: Any, **options: Any) -> list[list[float]]:
    """The learning rates of every optimizer at each of six batches, in three epochs of two."""

    class Noting(Net):
        found: list[list[float]] = []

        def configure_optimizers(self) -> Any:
            return returned(self)

        def training_step(self, data_batch: Any, batch_nb: int, optimizer_i: int = 0) -> Any:
            if optimizer_i == 0:
                self.found.append([o.param_groups[0]["lr"] for o in self.trainer.optimizers])
            return super().training_step(data_batch, batch_nb)

        def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
            return torch.tensor(1.0)

        def validation_end(self, outputs: Any) -> Any:
            return {"val_loss": 1.0, "other": 1.0}

        val_dataloader = Net.tng_dataloader

    Noting.found = []
    quiet(max_nb_epochs=3, nb_sanity_val_steps=0, **options).fit(Noting(), loader(1.0))
    return Noting.found


def halving(optimizer: Any) -> Any:
    return torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)


def sgd(module: Any) -> Any:
    return torch.optim.SGD(module.parameters(), lr=1.0)


def test_a_dictionary_of_an_optimizer_and_a_scheduler() -> None:
    def by_epoch(module: Any) -> Any:
        o = sgd(module)
        return {"optimizer": o, "lr_scheduler": halving(o)}

    def by_step(module: Any) -> Any:
        o = sgd(module)
        return {"optimizer": o, "lr_scheduler": {"scheduler": halving(o), "interval": "step", "frequency": 1}}

    def by_metric(module: Any) -> Any:
        o = sgd(module)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=0)
        return {"optimizer": o, "lr_scheduler": plateau, "monitor": "other"}

    assert rates(lambda module: {"optimizer": sgd(module)}) == [[1.0]] * 6
    assert rates(by_epoch) == [[1.0]] * 2 + [[0.5]] * 2 + [[0.25]] * 2
    assert rates(by_step) == [[0.5**n] for n in range(6)]
    assert rates(by_metric) == [[1.0]] * 4 + [[0.5]] * 2


def test_a_list_of_such_dictionaries() -> None:
    def several(module: Any) -> Any:
        one, two = torch.optim.SGD([module.layer.weight], lr=1.0), torch.optim.SGD([module.layer.bias], lr=4.0)
        return [{"optimizer": one, "lr_scheduler": halving(one)}, {"optimizer": two}]

    assert rates(several) == [[1.0, 4.0]] * 2 + [[0.5, 4.0]] * 2 + [[0.25, 4.0]] * 2


@pytest.mark.parametrize("entry", [{"lr_schedulers": []}, {"lr_scheduler": {"interval": "step"}}])
def test_a_wrong_entry_of_such_a_dictionary_is_an_error(entry: dict[str, Any]) -> None:
    with pytest.raises(MisconfigurationException, match="configure_optimizers returned"):
        rates(lambda module: {"optimizer": sgd(module), **entry})


def test_a_frequency_counts_epochs() -> None:
    def every_second(module: Any) -> Any:
        o = sgd(module)
        return {"optimizer": o, "lr_scheduler": {"scheduler": halving(o), "frequency": 2}}

    alone = rates(every_second)
    assert alone == [[1.0]] * 4 + [[0.5]] * 2


# ------------------------------------------------------------------ hooks that would never be called
def said_of(module: Any, *callbacks: Any) -> str:
    text = io.StringIO()
    with contextlib.redirect_stderr(text):
        quiet(callbacks=list(callbacks)).fit(module)
    return text.getvalue()


OF_MODULES = [name for name in NAMES["module"] if lightning2.advice("module_hooks", name)]
OF_CALLBACKS = [name for name in NAMES["callback_hooks"] if lightning2.advice("callback_hooks", name)]


@pytest.mark.parametrize("name", [n for n in OF_MODULES if not hasattr(LightningModule, n)])
def test_a_hook_of_their_modules_is_reported_before_the_first_batch(name: str) -> None:
    module = type("Own", (Net,), {name: lambda self, *_, **__: None})()
    line = next(line for line in said_of(module).splitlines() if f"Own.{name} is never called" in line)
    assert "did you mean" in line or str(lightning2.advice("module_hooks", name)) in line


@pytest.mark.parametrize("name", [n for n in OF_CALLBACKS if not hasattr(Callback, n)])
def test_a_hook_of_their_callbacks_is_reported_before_the_first_batch(name: str) -> None:
    callback = type("Watch", (Callback,), {name: lambda self, *_, **__: None})()
    line = next(line for line in said_of(Net(), callback).splitlines() if f"Watch.{name} is never called" in line)
    assert str(lightning2.advice("callback_hooks", name)) in line


def test_a_method_of_such_a_name_that_the_module_calls_is_its_own() -> None:
    class Calls(Net):
        def setup(self, stage: str) -> None:
            """Own."""

        def on_train_epoch_end(self) -> None:
            """Own."""

        def on_epoch_end(self) -> None:
            self.setup("fit")
            self.on_train_epoch_end()

    assert "never called" not in said_of(Calls())


@pytest.mark.parametrize("name", [n for n in NAMES["callback_arguments"] if lightning2.advice("callback_arguments", n)])
def test_an_argument_of_their_callbacks_says_what_to_write(name: str) -> None:
    for cls in (pytorch_lightning.callbacks.ModelCheckpoint, pytorch_lightning.callbacks.EarlyStopping):
        with pytest.raises(MisconfigurationException) as raised:
            cls(**{name: 1})
        assert str(lightning2.advice("callback_arguments", name)) in str(raised.value)
        with pytest.raises(TypeError, match="unexpected keyword argument 'nonsense'"):
            cls(nonsense=1)
