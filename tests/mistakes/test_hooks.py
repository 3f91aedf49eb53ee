"""Hooks that are missing, misspelt, wrongly signed, or return what can't be used: named before the first batch."""

from argparse import Namespace
from typing import Any

import pytest
import torch
from torch import nn

from pytorch_lightning import LightningModule, data_loader
from pytorch_lightning.callbacks import Callback
from tests.mistakes.honest import Honest, Refusals, Trained, batches, loads, planted, trainer_in


def said(refusal: Refusals, model: Any, **options: Any) -> str:
    """What is printed by a fit that works: its notices."""
    assert trainer_in(refusal.folder, **options).fit(model) == 1
    out = refusal.capsys.readouterr()
    assert out.out == ""
    return out.err


# ---------------------------------------------------------------------------------------------- missing, misspelt
class Empty(LightningModule):
    nb_steps = 0


def test_all_that_is_missing_is_one_error_with_the_stubs_to_write(refusal: Refusals) -> None:
    message = refusal.of(lambda: trainer_in(refusal.folder).fit(Empty()), ("3 problems",))
    for stub in (
        "     def training_step(self, data_batch, batch_nb):\n         return {'loss': loss}",
        "     def configure_optimizers(self):\n         return [torch.optim.Adam(self.parameters())]",
        "     @property\n     def tng_dataloader(self):\n         return DataLoader(...)",
    ):
        assert f"required here. Write:\n{stub}" in message


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("training_setp", "training_step"),
        ("train_step", "training_step"),
        ("configure_optimizer", "configure_optimizers"),
        ("train_dataloader", "tng_dataloader"),
        ("tng_data_loader", "tng_dataloader"),
    ],
)
def test_a_needed_hook_that_is_misspelt_is_to_be_renamed(refusal: Refusals, wrong: str, right: str) -> None:
    parts = {k: v for k, v in vars(Trained).items() if not k.startswith("__") or k == "__init__"}
    parts[wrong] = parts.pop(right)
    if isinstance(parts[wrong], property):
        parts[wrong] = parts[wrong].fget
    bare = {name: value for name, value in parts.items() if name != "__init__"}

    class Net(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.nb_steps = nn.Linear(2, 1), 0

    for name, value in bare.items():
        setattr(Net, name, value)
    refusal.before_training(Net(), (f"Net doesn't define {right}", f"Rename {wrong} to {right}"))


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("on_epoch_strat", "on_epoch_start"),
        ("on_bacth_end", "on_batch_end"),
        ("get_savedict", "get_save_dict"),
        ("on_train_start", "on_fit_start"),
        ("on_train_epoch_end", "on_epoch_end"),
        ("on_validation_end", "on_post_performance_check"),
        ("test_epoch_end", "test_end"),
    ],
)
def test_an_optional_hook_that_is_misspelt_is_one_line(refusal: Refusals, wrong: str, right: str) -> None:
    line = f"pytorch_lightning: Net.{wrong} is never called; did you mean {right}?  [near-hook-{wrong}]\n"
    assert said(refusal, planted(**{wrong: lambda self, *_: None})) == line
    assert said(refusal, planted(**{wrong: lambda self, *_: None}), silence=[f"near-hook-{wrong}"]) == ""


def test_a_misspelt_hook_of_validation_is_to_be_renamed(refusal: Refusals) -> None:
    model = planted(
        Trained, validaton_step=Honest.validation_step, validation_end=Honest.validation_end,
        val_dataloader=loads(lambda self: batches()),
    )  # fmt: skip
    refusal.before_training(model, ("Net doesn't define validation_step", "Rename validaton_step to validation_step"))


def test_a_misspelt_hook_of_a_callback_is_one_line(refusal: Refusals) -> None:
    class Mine(Callback):
        def on_epoch_strat(self, run: Any) -> None:
            pass

    line = "pytorch_lightning: Mine.on_epoch_strat is never called; did you mean on_epoch_start?"
    assert said(refusal, Honest(), callbacks=[Mine()]) == f"{line}  [near-hook-on_epoch_strat]\n"


def test_a_method_of_the_other_name_that_a_hook_itself_calls_is_no_mistake(refusal: Refusals) -> None:
    class Both(Honest):
        def train_dataloader(self) -> Any:
            return batches()

        @property
        def tng_dataloader(self) -> Any:
            return self.train_dataloader()

    assert said(refusal, Both()) == ""


def test_a_method_that_a_hook_or_the_module_itself_calls_is_no_mistake(refusal: Refusals) -> None:
    class Base(Honest):
        @data_loader
        def tng_dataloader(self) -> Any:
            return self.tng_data_loader()

        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            return self.run(lambda: self.trainin_step(data_batch))

        def run(self, function: Any) -> Any:
            return getattr(self, "on_epoch_strat")() or function()  # noqa: B009

    class Client(Base):
        def tng_data_loader(self) -> Any:
            return batches()

        def trainin_step(self, data_batch: Any) -> Any:
            return (
                super().training_step(data_batch, 0)
                if self.current_epoch
                else Honest.training_step(self, data_batch, 0)
            )

        def on_epoch_strat(self) -> None:
            pass

        @staticmethod
        def on_bacth_end() -> None:
            pass

    class Watching(Callback):
        def on_batch_end(self, run: Any) -> None:
            run.module.on_bacth_end()

    assert said(refusal, Client(), callbacks=[Watching()]) == ""


def test_a_misspelt_hook_that_only_calls_the_same_of_its_base_is_one_line(refusal: Refusals) -> None:
    class Base(Honest):
        def on_epoch_strat(self) -> None:
            pass

    class Client(Base):
        def on_epoch_strat(self) -> None:
            super().on_epoch_strat()

    assert "Client.on_epoch_strat is never called" in said(refusal, Client())


@pytest.mark.parametrize("name", ["tng_dataloader", "val_dataloader", "test_dataloader"])
def test_a_loader_without_property(refusal: Refusals, name: str) -> None:
    refusal.before_training(
        planted(**{name: lambda self: batches()}), (f"Net.{name} must be a property", "a method", "Write @property")
    )


@pytest.mark.parametrize(
    ("name", "method", "received", "do"),
    [
        (
            "training_step",
            lambda self, data_batch: 0,
            "(self, data_batch)",
            "training_step(self, data_batch, batch_nb)",
        ),
        (
            "training_step",
            lambda self, a, b, c, d: 0,
            "(self, a, b, c, d)",
            "training_step(self, data_batch, batch_nb)",
        ),
        ("validation_end", lambda self: 0, "(self)", "validation_end(self, outputs)"),
        ("configure_optimizers", lambda self, lr: 0, "(self, lr)", "configure_optimizers(self)"),
        ("on_epoch_start", lambda self, epoch: 0, "(self, epoch)", "on_epoch_start(self)"),
        ("optimizer_step", lambda self, o: 0, "(self, o)", "(self, epoch_nb, batch_nb, optimizer, optimizer_i)"),
        ("on_batch_end", 3, "3 (int)", "on_batch_end(self)"),
    ],
)
def test_a_hook_that_cannot_be_called(refusal: Refusals, name: str, method: Any, received: str, do: str) -> None:
    refusal.before_training(planted(**{name: method}), (f"Net.{name}", received, "Write def ", do))


def test_a_callback_that_cannot_be_called(refusal: Refusals) -> None:
    class Mine(Callback):
        def on_epoch_end(self) -> None:  # type: ignore[override]
            pass

    words = ("Mine.on_epoch_end", "def on_epoch_end(self)", "Write def on_epoch_end(self, run)")
    refusal.before_training(Honest(), words, callbacks=[Mine()])


@pytest.mark.parametrize("attribute", [None, "layer"])
def test_a_forgotten_super_init(refusal: Refusals, attribute: str | None) -> None:
    class Net(Honest):
        nb_steps = 0

        def __init__(self) -> None:
            if attribute is not None:
                nn.Module.__init__(self)
                self.layer = nn.Linear(2, 1)

    refusal.before_training(Net(), ("Net.__init__", "super().__init__()", "Call it first"))


def test_mistakes_of_every_kind_are_one_error(refusal: Refusals) -> None:
    """Options of a fit, hooks, loaders, optimizers, the save dict and the checkpoint."""
    model = planted(
        tng_dataloader=loads(lambda self: []),
        val_dataloader=loads(lambda self: 3),
        configure_optimizers=lambda self: None,
        get_save_dict=lambda self: {"epoch": 1},
        on_epoch_end=lambda self, epoch: None,
    )
    (refusal.folder / "file").touch()
    options: dict[str, Any] = {
        "default_save_path": refusal.folder / "file" / "x",
        "resume": refusal.folder / "no.ckpt",
        "gpus": 800,
    }
    message = refusal.of(lambda: trainer_in(refusal.folder, **options).fit(model), ())
    assert message.startswith("8 problems must be fixed")
    for number in range(1, 9):
        assert f"\n  {number}. " in message
    assert "\n  9. " not in message
    assert model.nb_steps == 0


# ---------------------------------------------------------------------------------------------- optimizers
SGD = torch.optim.SGD
STEP = torch.optim.lr_scheduler.StepLR


def scheduled(model: Any, **options: Any) -> Any:
    optimizer = SGD(model.parameters(), 0.1)
    return [optimizer], [{"scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer), **options}]


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (lambda m: None, ("returned None", "Write: return [torch.optim.Adam(self.parameters())]")),
        (lambda m: {"sgd": SGD(m.parameters(), 0.1)}, ("(dict)", "Write: return [torch.optim.Adam")),
        (lambda m: STEP(SGD(m.parameters(), 0.1), 1), ("a StepLR", "Write: return [optimizer], [scheduler]")),
        (lambda m: SGD, ("the class SGD", "Make one: SGD(self.parameters(), ...)")),
        (lambda m: "adam", ("'adam' (str)", "Write: return [torch.optim.Adam")),
        (lambda m: m.parameters(), ("a generator", "Write: return [torch.optim.Adam")),
        (lambda m: [], ("an empty list", "Write: return [torch.optim.Adam")),
        (lambda m: [[SGD(m.parameters(), 0.1)]], ("(list)", "Write: return [torch.optim.Adam")),
        (lambda m: [SGD(m.parameters(), 0.1), None], ("None as a scheduler", "expected a scheduler or")),
        (lambda m: scheduled(m, every="step"), ("a scheduler", "Remove ['every']")),
        (lambda m: scheduled(m, interval="batch"), ("'interval': 'step' or 'epoch'",)),
        (lambda m: scheduled(m, monitor=3), ("as a scheduler", "'monitor': name")),
        (lambda m: ([SGD(m.parameters(), 0.1)], [STEP(SGD(m.parameters(), 0.1), 1)]), ("isn't among those", "Return")),
        (
            lambda m: SGD(Honest().parameters(), 0.1),
            ("any parameter of Net", "2 parameters of something else", "Write"),
        ),
        (lambda m: [SGD([torch.zeros(1)], 0.1)], ("SGD has no parameter that requires gradients", "Unfreeze")),
    ],
)
def test_what_configure_optimizers_may_not_return(refusal: Refusals, returned: Any, words: tuple[str, ...]) -> None:
    refusal.before_training(planted(configure_optimizers=returned), words)


def test_layers_in_a_plain_list_are_no_parameters(refusal: Refusals) -> None:
    class Net(Honest):
        def __init__(self) -> None:
            super().__init__()
            self.layer = None  # type: ignore[assignment]
            self.layers = [nn.Linear(2, 1)]

        def forward(self, x: Any) -> Any:
            return self.layers[0](x)

    refusal.before_training(Net(), ("Net has no parameters", "layers in layers", "Use nn.ModuleList"))


@pytest.mark.parametrize("name", ["hidden", "_hidden"])
@pytest.mark.parametrize("hidden", [[nn.Linear(2, 2)], {"a": nn.Linear(2, 2)}, torch.zeros(2, requires_grad=True)])
def test_layers_that_torch_does_not_see_are_one_line(refusal: Refusals, name: str, hidden: Any) -> None:
    model = Honest()
    setattr(model, name, hidden)
    line = said(refusal, model)
    assert line.count("\n") == 1
    assert f"{name} of Honest holds layers or parameters that torch doesn't see" in line
    assert line.endswith("use nn.ModuleList, nn.ModuleDict or nn.Parameter  [unregistered]\n")


def test_a_list_of_layers_that_are_registered_as_well_is_no_mistake(refusal: Refusals) -> None:
    model = Honest()
    model.again = [model.layer]
    assert said(refusal, model) == ""


def test_parameters_in_no_optimizer_or_in_two_are_one_line_each(refusal: Refusals) -> None:
    def one(self: Any) -> Any:
        return SGD([self.layer.weight], 0.1)

    def twice(self: Any) -> Any:
        return [SGD(self.parameters(), 0.1), SGD([self.layer.bias], 0.1)]

    assert said(refusal, planted(configure_optimizers=one)) == (
        "pytorch_lightning: 1 parameters are in no optimizer, so they aren't trained: layer.bias  [unused-parameter]\n"
    )
    assert said(refusal, planted(configure_optimizers=twice)) == (
        "pytorch_lightning: 1 parameters are in more than one optimizer: layer.bias  [shared-parameter]\n"
    )


# ---------------------------------------------------------------------------------------------- saving
@pytest.mark.parametrize(
    ("saved", "words"),
    [
        (lambda m: {"model": m}, ("get_save_dict of Net['model'] can't be saved", "a Net", "Save its numbers")),
        (lambda m: {"a": {"b": [1, lambda: 1]}}, ("['a']['b'][1]", "the function <lambda>", "Save its numbers")),
        (lambda m: {"epoch": 3}, ("the keys ['epoch']", "the trainer's own", "Rename them")),
        (lambda m: None, ("returned None", "expected a dict", "Return {'state_dict'")),
    ],
)
def test_what_get_save_dict_may_not_return(refusal: Refusals, saved: Any, words: tuple[str, ...]) -> None:
    model = planted(get_save_dict=saved, load_model_specific=lambda self, checkpoint: None)
    refusal.before_training(model, words)


def test_a_save_dict_without_its_counterpart(refusal: Refusals) -> None:
    words = ("['layer.bias', 'layer.weight']", "restores 'state_dict' alone", "Override load_model_specific too")
    refusal.before_training(planted(get_save_dict=lambda self: self.state_dict()), words)


@pytest.mark.parametrize(
    ("hparams", "what"),
    [(Namespace(a=1, model=nn.Linear(1, 1), thing=object()), "model, thing"), (3, "3 (int)"), ("a", "'a' (str)")],
)
def test_hparams_that_cannot_be_saved_are_one_line_at_the_start(refusal: Refusals, hparams: Any, what: str) -> None:
    model = Honest()
    model.hparams = hparams
    line = said(refusal, model)
    assert line.count("\n") == 1
    assert what in line
    assert line.endswith("[hparams-left-out]\n")


def test_an_experiment_kept_in_init_is_the_real_one_later(refusal: Refusals) -> None:
    class Net(Honest):
        def __init__(self) -> None:
            super().__init__()
            self.kept = self.experiment

        def on_epoch_end(self) -> None:
            self.kept.log({"mine": 0.5})
            self.kept.add_histogram("x", [1])

    assert said(refusal, Net()) == ""
    assert "mine" in (refusal.folder / "logs" / "Net" / "version_0" / "metrics.csv").read_text()


# ---------------------------------------------------------------------------------------------- test, predict
def test_a_test_needs_its_loader(refusal: Refusals) -> None:
    refusal.of(lambda: trainer_in(refusal.folder).test(Trained()), ("test_dataloader", "validation_step", "Write:"))


def test_a_prediction_needs_forward(refusal: Refusals) -> None:
    """Known together with what else is missing."""
    model = planted(Trained, forward=LightningModule.forward)
    words = ("2 problems", "Net doesn't define forward", "def forward(self, x):\n         return self.layers(x)")
    refusal.of(lambda: trainer_in(refusal.folder).predict(model), words)


def test_a_prediction_needs_a_loader(refusal: Refusals) -> None:
    words = ("predict returned something that isn't a loader", "3 (int)", "Return a DataLoader")
    refusal.of(lambda: trainer_in(refusal.folder).predict(Honest(), 3), words)


def test_a_hook_that_is_called_by_hand_names_itself(refusal: Refusals) -> None:
    refusal.of(
        lambda: Empty().training_step(None, 0), ("Empty doesn't define training_step", "Write:\ndef training_step")
    )
