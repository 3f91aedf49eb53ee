"""Sixty mistakes as somebody makes them who is new to this library, or to PyTorch: each is a whole small program."""

from argparse import Namespace
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import pytorch_lightning as pl
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger

X = torch.linspace(-1, 1, 80).view(20, 4)
Y = torch.arange(20) % 3
QUIET: dict[str, Any] = {"progress_bar": False, "print_weights_summary": False, "max_nb_epochs": 1}
MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {}
"""By name: the program, and words of what it is told."""


def loader(x: Any = X, y: Any = Y, **options: Any) -> Any:
    return DataLoader(TensorDataset(x, y), **{"batch_size": 5, "shuffle": True, **options})


class Net(LightningModule):
    def __init__(self, hparams: Any = None) -> None:
        super().__init__(hparams)
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        return self.layer(x)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        x, y = data_batch
        return {"loss": F.cross_entropy(self(x), y)}

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        x, y = data_batch
        return {"val_loss": F.cross_entropy(self(x), y)}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    tng_dataloader = property(lambda self: loader())
    val_dataloader = property(lambda self: loader(shuffle=False))
    test_dataloader = property(lambda self: loader(shuffle=False))


def fit(model: Any = None, *callbacks: Any, **options: Any) -> Any:
    trainer = Trainer(False, **{**QUIET, "callbacks": list(callbacks), **options})
    trainer.fit(Net() if model is None else model)
    return trainer


def net(**attributes: Any) -> Any:
    return type("Model", (Net,), attributes)()


def mistake(words: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    def add(program: Callable[[], Any]) -> Callable[[], Any]:
        MISTAKES[program.__name__] = (program, words)
        return program

    return add


def made(step: Callable[..., Any], **attributes: Any) -> Callable[[], Any]:
    return lambda: fit(net(training_step=step, **attributes))


# ------------------------------------------------------------------ the module
@mistake("before super().__init__() is called")
def layers_before_super() -> Any:
    class Model(Net):
        def __init__(self) -> None:
            self.layer = nn.Linear(4, 3)
            LightningModule.__init__(self)

    fit(Model())


@mistake("super().__init__()")
def no_super_at_all() -> Any:
    class Model(Net):
        def __init__(self) -> None:
            self.width = 3

    fit(Model())


@mistake("before super().__init__() is called")
def no_super_and_layers() -> Any:
    class Model(Net):
        def __init__(self) -> None:
            self.layer = nn.Linear(4, 3)

    fit(Model())


@mistake("help: hparams are None")
def hparams_are_none() -> Any:
    fit(net(configure_optimizers=lambda self: torch.optim.SGD(self.parameters(), lr=self.hparams.lr)))


@mistake("help: hparams are a dict")
def hparams_are_a_dict() -> Any:
    class Model(Net):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)

    fit(Model({"lr": 0.1}))


@mistake("help: hparams are a Namespace")
def hparams_are_a_namespace_and_read_as_a_dict() -> Any:
    class Model(Net):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"])

    fit(Model(Namespace(lr=0.1)))


@mistake("help: hparams have learning_rate")
def an_hparam_is_misspelt() -> Any:
    class Model(Net):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)

    fit(Model(Namespace(learning_rate=0.1)))


@mistake("hparams")
def an_hparam_is_read_in_the_constructor() -> Any:
    class Model(Net):
        def __init__(self) -> None:
            super().__init__()
            self.wide = nn.Linear(4, self.hparams.width)

    fit(Model())


@mistake("LightningModule")
def a_plain_module() -> Any:
    fit(nn.Linear(4, 3))


@mistake("Make one")
def the_class_itself() -> Any:
    fit(Net)


@mistake("training_step")
def no_training_step() -> Any:
    class Model(LightningModule):
        tng_dataloader = property(lambda self: loader())

        def configure_optimizers(self) -> Any: ...

    fit(Model())


@mistake("training_step")
def another_name_for_the_step() -> Any:
    class Model(LightningModule):
        tng_dataloader = property(lambda self: loader())

        def trainstep(self, data_batch: Any, batch_nb: int) -> Any: ...
        def configure_optimizers(self) -> Any: ...

    fit(Model())


@mistake("forward")
def no_forward() -> Any:
    class Model(LightningModule):
        tng_dataloader = property(lambda self: loader())
        configure_optimizers = Net.configure_optimizers

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            return self(data_batch[0]).sum()

    fit(Model())


# ------------------------------------------------------------------ steps
MISTAKES["nothing_is_returned"] = (made(lambda self, batch, batch_nb: None), "Return {'loss': loss}")
MISTAKES["a_number_is_returned"] = (made(lambda self, b, nb: F.cross_entropy(self(b[0]), b[1]).item()), "(float)")
MISTAKES["the_outputs_are_returned"] = (made(lambda self, b, nb: self(b[0])), "Return loss.mean()")
MISTAKES["another_key"] = (made(lambda self, b, nb: {"los": self(b[0]).sum()}), "['los']")
MISTAKES["detached"] = (made(lambda self, b, nb: self(b[0]).sum().detach()), "Don't detach it")
MISTAKES["no_number_of_the_batch"] = (made(lambda self, batch: self(batch[0]).sum()), "wrong signature")
MISTAKES["no_self"] = (made(lambda batch, batch_nb: batch[0].sum()), "wrong signature")
MISTAKES["argmax_in_the_loss"] = (made(lambda self, b, nb: self(b[0]).argmax(1).float().mean()), "without a graph")


@mistake("help: the dtypes don't fit")
def targets_are_floats() -> Any:
    fit(net(tng_dataloader=property(lambda self: loader(y=Y.float()))), nb_sanity_val_steps=0)


@mistake("help: the dtypes don't fit")
def inputs_are_doubles() -> Any:
    fit(net(tng_dataloader=property(lambda self: loader(X.double()))), nb_sanity_val_steps=0)


@mistake("help: the dtypes don't fit")
def inputs_are_whole_numbers() -> Any:
    fit(net(tng_dataloader=property(lambda self: loader(X.long()))), nb_sanity_val_steps=0)


@mistake("write .float() first")
def a_mean_of_whole_numbers() -> Any:
    made(lambda self, b, nb: (self(b[0]).argmax(1) == b[1]).mean())()


@mistake("help: the size of the input's last dimension")
def shapes_do_not_fit() -> Any:
    fit(net(tng_dataloader=property(lambda self: loader(X[:, :3]))), nb_sanity_val_steps=0)


@mistake("help: targets of cross_entropy are classes")
def a_class_too_many() -> Any:
    fit(net(tng_dataloader=property(lambda self: loader(y=Y + 1))), nb_sanity_val_steps=0)


@mistake("write x = x + 1")
def a_change_in_place() -> Any:
    def step(self: Any, batch: Any, batch_nb: int) -> Any:
        hidden = self(batch[0]).sigmoid()
        hidden += 1
        return hidden.pow(2).mean()

    made(step)()


@mistake("help: a weight is changed in place")
def a_weight_is_changed_in_place() -> Any:
    def step(self: Any, batch: Any, batch_nb: int) -> Any:
        self.layer.weight += 1
        return self(batch[0]).mean()

    made(step)()


@mistake("help: the graph is freed")
def a_graph_of_the_batch_before() -> Any:
    def step(self: Any, batch: Any, batch_nb: int) -> Any:
        self.hidden = self(batch[0]).mean() + getattr(self, "hidden", 0.0)
        return self.hidden * 1.0

    made(step)()


@mistake("help: batch normalization needs two samples")
def batch_norm_with_one_sample() -> Any:
    def step(self: Any, batch: Any, batch_nb: int) -> Any:
        return F.batch_norm(self(batch[0]), None, None, training=True).mean()

    made(step, tng_dataloader=property(lambda self: loader(batch_size=1)))()


@mistake("device=self.device")
def a_tensor_on_another_device() -> Any:
    made(lambda self, b, nb: (self(b[0]) + torch.ones(3, device="meta")).mean())()


@mistake("detach().numpy()")
def numpy_of_a_tensor_with_a_graph() -> Any:
    made(lambda self, b, nb: {"loss": self(b[0]).mean(), "prog": {"a": float(self(b[0]).numpy().mean())}})()


@mistake("help: the graph is freed")
def the_loop_is_written_again() -> Any:
    def step(self: Any, batch: Any, batch_nb: int) -> Any:
        loss = self(batch[0]).mean()
        loss.backward()
        return loss

    made(step)()


# ------------------------------------------------------------------ loaders and optimizers
@mistake("must be a property")
def a_method_as_loader() -> Any:
    fit(net(tng_dataloader=lambda self: loader()))


@mistake("DataLoader")
def a_dataset_as_loader() -> Any:
    fit(net(tng_dataloader=property(lambda self: TensorDataset(X, Y))))


@mistake("None")
def a_loader_that_returns_nothing() -> Any:
    fit(net(tng_dataloader=property(lambda self: None)))


@mistake("empty")
def an_empty_loader() -> Any:
    fit(net(tng_dataloader=property(lambda self: loader(X[:3], Y[:3], drop_last=True))))


@mistake("isn't shuffled")
def not_shuffled() -> Any:
    fit(net(tng_dataloader=property(lambda self: loader(shuffle=False))))


@mistake("help: the module has no parameters")
def a_loader_for_validation_alone() -> Any:
    class Model(LightningModule):
        training_step, configure_optimizers = Net.training_step, Net.configure_optimizers
        tng_dataloader = val_dataloader = property(lambda self: loader())

    fit(Model())


@mistake("configure_optimizers")
def no_optimizer_is_returned() -> Any:
    fit(net(configure_optimizers=lambda self: None))


@mistake("Make one")
def the_class_of_an_optimizer() -> Any:
    fit(net(configure_optimizers=lambda self: torch.optim.SGD))


@mistake("doesn't give any parameter")
def parameters_of_another_model() -> Any:
    other = nn.Linear(2, 2)
    fit(net(configure_optimizers=lambda self: torch.optim.SGD(other.parameters(), lr=0.1)))


@mistake("Write: return [optimizer], [scheduler]")
def only_a_schedule() -> Any:
    fit(net(configure_optimizers=lambda self: torch.optim.lr_scheduler.StepLR(Net.configure_optimizers(self), 1)))


@mistake("ModuleList")
def layers_in_a_list() -> Any:
    class Model(Net):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [nn.Linear(4, 4), nn.Linear(4, 4)]

        def forward(self, x: Any) -> Any:
            return self.layer(self.layers[1](self.layers[0](x)))

    fit(Model())


# ------------------------------------------------------------------ options, callbacks, Keras
MISTAKES["epochs"] = (lambda: Trainer(epochs=3), "max_nb_epochs")
MISTAKES["epochs_of_fit"] = (lambda: Trainer(False, **QUIET).fit(Net(), epochs=3), "max_nb_epochs")
MISTAKES["a_negative_number"] = (lambda: Trainer(max_nb_epochs=-1), "max_nb_epochs")
MISTAKES["a_text_for_a_number"] = (lambda: Trainer(max_nb_epochs="3"), "max_nb_epochs")
MISTAKES["restore_best_weights"] = (lambda: EarlyStopping(restore_best_weights=True), "ckpt='best'")
MISTAKES["start_from_epoch"] = (lambda: EarlyStopping("val_loss", start_from_epoch=3), "min_nb_epochs")
MISTAKES["baseline"] = (lambda: EarlyStopping("val_loss", baseline=0.3), "run.stop")
MISTAKES["save_freq"] = (lambda: ModelCheckpoint("c", save_freq=100), "every_nb_batches")
MISTAKES["misspelt_argument"] = (lambda: EarlyStopping("val_loss", patiance=3), "patience")
MISTAKES["a_file_for_a_folder"] = (lambda: fit(None, ModelCheckpoint("best.ckpt")), "folder")
MISTAKES["monitor_is_misspelt"] = (lambda: fit(None, EarlyStopping("val_los")), "Did you mean 'val_loss'?")
MISTAKES["a_class_as_callback"] = (lambda: fit(None, EarlyStopping), "EarlyStopping")
MISTAKES["one_callback_without_a_list"] = (lambda: Trainer(callbacks=EarlyStopping()), "callbacks=[EarlyStopping(...)]")
MISTAKES["compile"] = (lambda: Net().compile(optimizer="adam", loss="mse"), "configure_optimizers")
MISTAKES["evaluate"] = (lambda: Net().evaluate(X, Y), "trainer.test(model, loader)")
MISTAKES["fit_of_the_model"] = (lambda: Net().fit(X, Y), "Trainer().fit(model)")
MISTAKES["predict_of_the_model"] = (lambda: Net().predict(X), "trainer.predict(model, loader)")
MISTAKES["test_without_a_model"] = (lambda: Trainer(False, **QUIET).test(), "trainer.test(model)")
MISTAKES["best_without_a_checkpoint"] = (lambda: fit().test(ckpt="best"), "ModelCheckpoint")
MISTAKES["no_such_checkpoint"] = (lambda: fit(resume="nothing.ckpt"), "nothing.ckpt")
MISTAKES["a_logger_of_another_kind"] = (lambda: Trainer("logs"), "experiment")
MISTAKES["a_path_of_a_model"] = (lambda: Trainer(False, **QUIET).fit("net.ckpt"), "LightningModule")
MISTAKES["log_dir_of_tensorboard"] = (lambda: TensorBoardLogger(log_dir="a"), "save_dir")


@mistake("on_batch_end")
def a_keras_hook_of_a_batch() -> Any:
    class Printing(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None: ...

    fit(None, Printing())


@mistake("on_epoch_start")
def a_keras_hook_of_an_epoch() -> Any:
    class Printing(Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None: ...

    fit(None, Printing())


@mistake("wrong signature")
def a_keras_signature() -> Any:
    class Printing(Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None: ...

    fit(None, Printing())


@mistake("never called")
def a_keras_hook_of_an_own_object() -> Any:
    class Printing:
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None: ...
        def on_test_begin(self, logs: Any = None) -> None: ...

    fit(None, Printing())


# ------------------------------------------------------------------ checkpoints
@mistake("state_dict")
def keys_without_a_state_dict() -> Any:
    fit(net(get_save_dict=lambda self: {"weights": self.layer.weight}))


@mistake("load_model_specific")
def loading_what_is_not_saved() -> Any:
    fit(net(load_model_specific=lambda self, checkpoint: self.load_state_dict(checkpoint["weights"])))


@mistake("state_dict")
def a_file_of_weights_alone() -> Any:
    torch.save(Net().state_dict(), "weights.pt")
    Net.load_from_checkpoint("weights.pt")


@mistake("it isn't loaded")
def a_model_as_a_whole() -> Any:
    torch.save(Net(), "model.pt")
    Net.load_from_checkpoint("model.pt")


@mistake("can't restore")
def another_size_than_in_the_file() -> Any:
    trainer = fit()
    trainer.save_checkpoint("net.ckpt")

    class Model(Net):
        def __init__(self, hparams: Any = None) -> None:
            super().__init__(hparams)
            self.layer = nn.Linear(4, 5)

    Model.load_from_checkpoint("net.ckpt")


@mistake("needs a whole number")
def a_seed_that_is_no_number() -> Any:
    pl.seed_everything("one")  # type: ignore[arg-type]
