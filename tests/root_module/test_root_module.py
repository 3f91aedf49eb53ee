"""The module's own properties and methods, and what is refused before the first batch."""

import copy
import pickle
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pytorch_lightning as ptl
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.errors import CheckpointError, MisconfigurationException
from pytorch_lightning.root_module.tags import parse_tag
from tests.recorder import Recorder, quiet_trainer


class Net(LightningModule):
    """Takes hparams, as a template does."""

    def __init__(self, hparams: Any) -> None:
        super().__init__(hparams)
        self.layer = nn.Linear(2, hparams.hidden)

    def forward(self, x: Any) -> Any:
        return self.layer(x)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return self(data_batch[0]).pow(2).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)

    @ptl.data_loader
    def tng_dataloader(self) -> Any:
        return DataLoader(TensorDataset(torch.ones(4, 2)), shuffle=True)


# ---------------------------------------------------------------------------------------------- properties
def test_before_a_fit_everything_can_be_read() -> None:
    model = Recorder()
    assert (model.current_epoch, model.global_step, model.on_gpu, model.gradient_clip) == (0, 0, False, 0.0)
    assert model.trainer is None
    assert model.hparams is None
    assert model.dtype == torch.float32
    assert (model._tng_dataloader, model._val_dataloader, model._test_dataloader) == (None, None, None)
    model.experiment.log({"a": 1})
    model.experiment.add_embedding(1, 2, 3)


def test_during_a_fit_they_are_the_trainers(tmp_path: Path) -> None:
    class Reading(Recorder):
        def on_batch_end(self) -> None:
            self.note("read", self.current_epoch, self.global_step, self.gradient_clip)

    model = Reading(nb_batches=2)
    quiet_trainer(tmp_path, max_nb_epochs=2, gradient_clip=0.5).fit(model)
    assert [call[1:] for call in model.calls if call[0] == "read"] == [
        (0, 0, 0.5),
        (0, 1, 0.5),
        (1, 2, 0.5),
        (1, 3, 0.5),
    ]


def test_users_may_assign_loss_device_and_experiment_names(tmp_path: Path) -> None:
    class Assigning(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.loss = nn.MSELoss()
            self.device = torch.device("cpu")

        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            return self.loss(self(torch.ones(2, 1)), torch.ones(2, 1))

    assert quiet_trainer(tmp_path).fit(Assigning()) == 1


def test_a_data_loader_is_made_once_and_not_copied() -> None:
    model = Net(Namespace(hidden=3))
    loader = model.tng_dataloader
    assert model.tng_dataloader is loader
    assert "_lazy_tng_dataloader" not in copy.deepcopy(model).__dict__
    assert pickle.loads(pickle.dumps(model)).hparams.hidden == 3


def test_a_module_copied_in_a_fit_forgets_its_trainer(tmp_path: Path) -> None:
    copies: list[Any] = []

    class Copying(Recorder):
        def on_epoch_end(self) -> None:
            copies.append(copy.deepcopy(self))

    model = Copying()
    trainer = quiet_trainer(tmp_path)
    trainer.fit(model)
    assert copies[0].trainer is None
    assert model.trainer is trainer
    assert torch.equal(copies[0].weight, model.weight)


@pytest.mark.parametrize("name", ["tng_dataloader", "val_dataloader"])
def test_an_attribute_error_in_a_loader_is_shown(tmp_path: Path, name: str) -> None:
    def broken(self: Any) -> Any:
        return self.misspelt

    model = type("Broken", (Recorder,), {name: property(broken)})()
    with pytest.raises(RuntimeError, match=rf"Broken.{name} raised AttributeError: .*misspelt"):
        quiet_trainer(tmp_path).fit(model)


def test_freeze_and_unfreeze() -> None:
    model = Net(Namespace(hidden=3))
    model.freeze()
    assert not any(p.requires_grad for p in model.parameters())
    assert model.training
    model.unfreeze()
    assert all(p.requires_grad for p in model.parameters())


def test_grad_norm_is_the_true_norm() -> None:
    model = Net(Namespace(hidden=1))
    model.layer.weight.grad = torch.tensor([[3.0, 4.0]])
    assert model.grad_norm(2) == {"grad_2_norm_0": 5.0, "grad_2_norm_total": 5.0}
    model.layer.bias.grad = torch.tensor([12.0])
    norms = model.grad_norm(2)
    assert norms["grad_2_norm_total"] == pytest.approx(13.0)
    assert model.grad_norm(1)["grad_1_norm_total"] == pytest.approx(19.0)


def test_summarize_shows_sizes_where_there_is_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    model = Net(Namespace(hidden=3))
    assert "In" not in model.summarize().splitlines()[0]
    model.example_input_array = torch.ones(5, 2)
    model.train()
    table = model.summarize()
    assert table in capsys.readouterr().out
    assert table.splitlines()[2].split() == ["layer", "Linear", "9", "[5,", "2]", "[5,", "3]"]
    assert table.splitlines()[-1] == "9 parameters, 9 trainable"
    assert model.training
    model.freeze()
    assert "9 parameters, 0 trainable" in model.summarize()


@pytest.mark.parametrize("precision", ["32", "64", "bf16", "bf16-true"])
def test_the_summary_runs_in_every_precision(
    tmp_path: Path, precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    class Two(Net):
        def forward(self, x: Any, more: Any) -> Any:
            return self.layer(x) + more.sum()

        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            return self(data_batch[0], data_batch[0]).pow(2).mean()

    model = Two(Namespace(hidden=3))
    model.example_input_array = (torch.ones(5, 2), torch.ones(2, dtype=torch.int64))
    quiet_trainer(tmp_path, precision=precision, print_weights_summary=True).fit(model)
    assert "[5, 2]  [5, 3]" in capsys.readouterr().out


def test_get_process_position_is_0_in_the_main_process() -> None:
    assert LightningModule.get_process_position(None) == 0


def test_add_model_specific_args_returns_the_parser_by_default() -> None:
    parser = object()
    assert LightningModule.add_model_specific_args(parser, "/x") is parser  # type: ignore[arg-type, comparison-overlap]


# ---------------------------------------------------------------------------------------------- loading
def test_tags_are_read_as_what_they_were() -> None:
    texts = ["", "None", "True", "false", "3", "-3", "0.5", "1e-3", "adam", "007", "1.0"]
    assert [parse_tag(t) for t in texts] == [None, None, True, False, 3, -3, 0.5, 0.001, "adam", "007", 1.0]


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Net, Path, Path]:
    model = Net(Namespace(hidden=3, rate=0.001, name="a"))
    trainer = quiet_trainer(tmp_path, silence=("no-validation",))
    trainer.fit(model)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    return model, tmp_path / "x.ckpt", tmp_path / "logs/Net/version_0/meta_tags.csv"


def test_load_from_metrics(trained: tuple[Net, Path, Path]) -> None:
    model, weights, tags = trained
    loaded = Net.load_from_metrics(weights_path=weights, tags_csv=str(tags), on_gpu=False, map_location=None)
    assert torch.equal(loaded.layer.weight, model.layer.weight)
    assert (loaded.hparams.rate, loaded.hparams.name, loaded.hparams.on_gpu) == (0.001, "a", False)


def test_load_from_checkpoint_takes_the_hparams_that_were_saved_or_others(trained: tuple[Net, Path, Path]) -> None:
    model, weights, _ = trained
    loaded = Net.load_from_checkpoint(weights)
    assert torch.equal(loaded.layer.weight, model.layer.weight)
    assert loaded.hparams.hidden == 3
    assert Net.load_from_checkpoint(weights, hparams=Namespace(hidden=3, name="b")).hparams.name == "b"


def test_load_from_checkpoint_of_a_model_without_hparams(tmp_path: Path) -> None:
    model = Recorder()
    trainer = quiet_trainer(tmp_path)
    trainer.fit(model)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    assert torch.equal(Recorder.load_from_checkpoint(tmp_path / "x.ckpt").weight, model.weight)


def test_loading_names_the_file_that_is_missing(trained: tuple[Net, Path, Path], tmp_path: Path) -> None:
    _, weights, tags = trained
    with pytest.raises(CheckpointError, match=r"nothing.csv' can't be read"):
        Net.load_from_metrics(weights, tmp_path / "nothing.csv")
    with pytest.raises(CheckpointError, match=r"isn't a meta_tags.csv"):
        Net.load_from_metrics(weights, tags.with_name("metrics.csv"))
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        Net.load_from_checkpoint(tmp_path / "nothing.ckpt")


# ---------------------------------------------------------------------------------------------- before the first batch
def test_all_that_is_missing_is_named_in_one_error_with_stubs() -> None:
    class Empty(LightningModule):
        pass

    with pytest.raises(MisconfigurationException) as caught:
        Trainer(experiment=False).fit(Empty())
    message = str(caught.value)
    assert message.startswith("3 problems must be fixed")
    for stub in (
        "def training_step(self, data_batch, batch_nb):",
        "def configure_optimizers(self):",
        "def tng_dataloader",
    ):
        assert stub in message


@pytest.mark.parametrize("missing", ["validation_step", "val_dataloader"])
def test_the_two_of_validation_come_together(tmp_path: Path, missing: str) -> None:
    model = type("Part", (Recorder,), {missing: getattr(LightningModule, missing)})()
    with pytest.raises(MisconfigurationException, match=f"Part doesn't define {missing}"):
        quiet_trainer(tmp_path).fit(model)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("training_step", lambda self, data_batch: None),
        ("training_step", lambda self, a, b, c, d: None),
        ("validation_end", lambda self: None),
        ("configure_optimizers", lambda self, lr: None),
        ("on_epoch_start", lambda self, epoch: None),
        ("optimizer_step", lambda self, optimizer: None),
    ],
)
def test_a_hook_with_the_wrong_signature_is_named_with_the_right_line(tmp_path: Path, name: str, method: Any) -> None:
    model = type("Wrong", (Recorder,), {name: method})()
    with pytest.raises(MisconfigurationException, match=rf"Wrong.{name} has the wrong signature.*Write def {name}\("):
        quiet_trainer(tmp_path).fit(model)


def test_a_hook_that_is_not_overridden_names_itself() -> None:
    with pytest.raises(MisconfigurationException, match="Net doesn't define test_dataloader"):
        Net(Namespace(hidden=3)).test_dataloader
    with pytest.raises(MisconfigurationException, match="LightningModule doesn't define forward"):
        LightningModule()(1)


def test_a_name_that_nearly_is_a_hooks_gets_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Near(Recorder):
        def on_epoch_strat(self) -> None:
            pass

        def helper(self) -> None:
            pass

    quiet_trainer(tmp_path).fit(Near())
    assert capsys.readouterr().err.strip() == (
        "pytorch_lightning: Near.on_epoch_strat is never called; did you mean on_epoch_start?"
        "  [near-hook-on_epoch_strat]"
    )


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda m: None, "returned None; expected a list of optimizers"),
        (lambda m: [], "returned an empty list"),
        (lambda m: [3], r"returned 3 \(int\)"),
        (lambda m: [torch.optim.SGD([torch.zeros(1)], 0.1)], "SGD has no parameter that requires gradients"),
        (lambda m: ([torch.optim.SGD(m.parameters(), 0.1)], ["step"]), r"'step' \(str\) as a scheduler"),
        (
            lambda m: (
                [torch.optim.SGD(m.parameters(), 0.1)],
                [torch.optim.lr_scheduler.StepLR(torch.optim.SGD(m.parameters(), 0.1), 1)],
            ),
            "whose optimizer isn't among those",
        ),
        (
            lambda m: [torch.optim.LBFGS(m.parameters()), torch.optim.SGD(m.parameters(), 0.1)],
            "can't share one loss with other optimizers",
        ),
    ],
)
def test_what_configure_optimizers_may_not_return(tmp_path: Path, returned: Any, message: str) -> None:
    model = type("Wrong", (Recorder,), {"configure_optimizers": returned})()
    with pytest.raises(MisconfigurationException, match=message):
        quiet_trainer(tmp_path).fit(model)


def test_parameters_in_no_optimizer_or_in_two_get_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Odd(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.forgotten = nn.Parameter(torch.zeros(1))

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD([self.weight], 0.1), torch.optim.SGD([self.weight], 0.1)]

    quiet_trainer(tmp_path).fit(Odd())
    said = capsys.readouterr().err
    assert "1 parameters are in no optimizer, so they aren't trained: forgotten  [unused-parameter]" in said
    assert "1 parameters are in more than one optimizer: weight  [shared-parameter]" in said


@pytest.mark.parametrize(
    ("loader", "options", "message"),
    [
        (3, {}, "isn't a loader; received 3"),
        ([], {}, "tng_dataloader returned an empty loader"),
        ("unknown", {"train_percent_check": 0.5}, "no length, so train_percent_check=0.5"),
        ("unknown", {"val_check_interval": 0.5}, "no length, so val_check_interval=0.5"),
        ([[torch.ones(2, 1)]] * 3, {"val_check_interval": 5}, "more than an epoch's 3"),
    ],
)
def test_a_training_loader_that_cannot_work(tmp_path: Path, loader: Any, options: Any, message: str) -> None:
    class Unknown:
        def __iter__(self) -> Any:
            return iter([[torch.ones(2, 1)]])

    class Loading(Recorder):
        @property
        def tng_dataloader(self) -> Any:
            return Unknown() if loader == "unknown" else loader

    model = Loading()
    with pytest.raises(MisconfigurationException, match=message):
        quiet_trainer(tmp_path, **options).fit(model)
    assert model.calls == []


def test_an_empty_validation_loader_is_an_error(tmp_path: Path) -> None:
    model = type("Empty", (Recorder,), {"val_dataloader": property(lambda self: [])})()
    with pytest.raises(MisconfigurationException, match="val_dataloader returned an empty loader"):
        quiet_trainer(tmp_path).fit(model)


def test_what_is_no_lightning_module_is_refused() -> None:
    with pytest.raises(MisconfigurationException, match="must be a LightningModule"):
        Trainer().fit(nn.Linear(1, 1))  # type: ignore[arg-type]


def test_a_forgotten_super_init_is_named() -> None:
    class Forgetful(LightningModule):
        def __init__(self) -> None:
            pass

    with pytest.raises(MisconfigurationException, match=r"doesn't call super\(\).__init__\(\)"):
        Trainer().fit(Forgetful())


def test_test_without_its_hooks_is_an_error() -> None:
    with pytest.raises(MisconfigurationException, match="doesn't define test_dataloader"):
        Trainer().test(Net(Namespace(hidden=3)))


def test_test_without_a_model_is_an_error() -> None:
    with pytest.raises(MisconfigurationException, match="no model yet"):
        Trainer().test()


# ---------------------------------------------------------------------------------------------- names of 2019
def test_the_import_paths_of_2019() -> None:
    from pytorch_lightning.callbacks.pt_callbacks import Callback as KerasCallback
    from pytorch_lightning.callbacks.pt_callbacks import EarlyStopping, ModelCheckpoint
    from pytorch_lightning.models.trainer import Trainer as OldTrainer
    from pytorch_lightning.root_module.decorators import data_loader
    from pytorch_lightning.root_module.hooks import ModelHooks
    from pytorch_lightning.root_module.root_module import LightningModule as OldModule
    from pytorch_lightning.trainer.trainer import Trainer as LaterTrainer
    from pytorch_lightning.utilities.arg_parse import add_default_args as later_args
    from pytorch_lightning.utilities.debugging import MisconfigurationException as LaterError
    from pytorch_lightning.utils.arg_parse import add_default_args
    from pytorch_lightning.utils.debugging import MisconfigurationException as OldError

    assert OldTrainer is LaterTrainer is Trainer
    assert data_loader is ptl.data_loader
    assert issubclass(LightningModule, ModelHooks)
    assert KerasCallback().on_epoch_end(0, {}) is None
    assert OldModule is LightningModule
    assert add_default_args is later_args is ptl.add_default_args
    assert OldError is LaterError is MisconfigurationException
    assert EarlyStopping.__name__, ModelCheckpoint.__name__


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Trainr'"):
        ptl.Trainr
    assert set(ptl.__all__) <= set(dir(ptl))
