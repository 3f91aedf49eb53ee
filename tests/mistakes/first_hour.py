"""Mistakes of the first hour, written without a look at those of ``newcomers``: each is a whole small program."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

from pytorch_lightning import Trainer
from tests.mistakes.newcomers import QUIET, Net, X, Y, fit, loader, made, mistake, net

DATA = TensorDataset(X, Y)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def step_of(function: Any) -> Any:
    """A ``training_step`` whose loss is that of ``function``, of the logits and the targets."""
    return lambda self, batch, batch_nb: function(self(batch[0]), batch[1])


# ------------------------------------------------------------------ habits of Keras
@mistake("DataLoader(TensorDataset(x, y), batch_size=32)")
def tensors_go_to_fit() -> Any:
    Trainer(False, **QUIET).fit(Net(), X, Y)


@mistake("DataLoader(TensorDataset(x, y), batch_size=32)")
def a_tensor_is_predicted() -> Any:
    Trainer(False, **QUIET).predict(Net(), X)


@mistake("DataLoader(TensorDataset(x, y), batch_size=32)")
def an_array_is_tested() -> Any:
    Trainer(False, **QUIET).test(Net(), X.numpy())


@mistake("a model must be a LightningModule")
def predict_without_the_model() -> Any:
    Trainer(False, **QUIET).predict(X)  # type: ignore[arg-type]


@mistake("Write model.summarize()")
def a_summary() -> Any:
    Net().summary()


@mistake("Write trainer.save_checkpoint(PATH)")
def a_model_saves_itself() -> Any:
    Net().save("net.keras")


@mistake("Write trainer.test(model, loader)")
def evaluate_of_the_trainer() -> Any:
    fit().evaluate(Net())


@mistake("Read metrics.csv in trainer.folder")
def a_history() -> Any:
    Trainer(False, **QUIET).fit(Net()).history  # type: ignore[attr-defined]


@mistake("Write max_nb_epochs")
def epochs_of_the_trainer() -> Any:
    Trainer(epochs=3)


@mistake("Write it in configure_optimizers")
def a_rate_of_the_trainer() -> Any:
    Trainer(lr=0.1)


@mistake("Write DataLoader(dataset, batch_size=32)")
def a_batch_size_of_the_trainer() -> Any:
    Trainer(batch_size=32)


# ------------------------------------------------------------------ the module
@mistake("self.train. Choose another name")
def data_under_the_name_of_a_method() -> Any:
    class Model(Net):
        def __init__(self) -> None:
            super().__init__()
            self.train, self.val = random_split(DATA, [10, 10])  # type: ignore[assignment, method-assign]

    fit(Model())


@mistake("makes a new module")
def weights_are_loaded_into_nothing() -> Any:
    fit().save_checkpoint("net.ckpt")
    Net().load_from_checkpoint("net.ckpt")


@mistake("model.load_state_dict(torch.load(PATH))")
def a_state_dict_alone() -> Any:
    torch.save(Net().state_dict(), "net.pt")
    Net.load_from_checkpoint("net.pt")


@mistake("help: write self.parameters()")
def parameters_without_parentheses() -> Any:
    fit(net(configure_optimizers=lambda self: torch.optim.SGD(self.parameters, lr=0.1)))  # type: ignore[arg-type]


# ------------------------------------------------------------------ a step
@mistake("help: a loss is made first")
def a_loss_that_is_not_made() -> Any:
    made(step_of(lambda logits, y: nn.CrossEntropyLoss(logits, y)))()


@mistake("help: targets of cross_entropy are classes")
def one_hot_targets() -> Any:
    made(step_of(lambda logits, y: F.cross_entropy(logits, F.one_hot(y, 3))))()


@mistake("help: the loader yields lists of 2")
def three_parts_of_two() -> Any:
    def training_step(self: Any, batch: Any, batch_nb: int) -> Any:
        x, y, _ = batch
        return F.cross_entropy(self(x), y)

    made(training_step)()


@mistake("help: a layer takes one tensor")
def the_whole_batch_into_a_layer() -> Any:
    made(lambda self, batch, batch_nb: self(batch).sum())()


@mistake("help: images are (batch, channels, height, width)")
def channels_last() -> Any:
    images = torch.rand(20, 6, 6, 3)

    class Model(Net):
        tng_dataloader = val_dataloader = property(lambda self: loader(images))

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(32, 3))

    fit(Model())


# ------------------------------------------------------------------ data and validation
@mistake("help: tensors of several sizes")
def images_of_several_sizes() -> Any:
    images = [(torch.rand(3, 4 + i % 2), 0) for i in range(8)]
    fit(net(tng_dataloader=property(lambda self: DataLoader(images, batch_size=4, shuffle=True))))


@mistake("[shared-samples]")
def a_split_for_each_loader() -> Any:
    class Model(Net):
        tng_dataloader = property(lambda self: DataLoader(random_split(DATA, [10, 10], seeded(1))[0], 5, shuffle=True))
        val_dataloader = property(lambda self: DataLoader(random_split(DATA, [10, 10], seeded(2))[1], 5))

    fit(Model())


@mistake("help: outputs holds what the step returned")
def a_stack_of_dicts() -> Any:
    fit(net(validation_end=lambda self, outputs: {"val_loss": torch.stack(outputs).mean()}))


@mistake("help: validation_step returned nothing")
def a_validation_step_without_a_return() -> Any:
    def validation_end(self: Any, outputs: Any) -> Any:
        return {"val_loss": torch.stack([output["val_loss"] for output in outputs]).mean()}

    fit(net(validation_step=lambda self, batch, batch_nb: None, validation_end=validation_end))
