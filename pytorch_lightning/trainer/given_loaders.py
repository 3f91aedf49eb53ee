"""What is passed to ``fit``, ``validate``, ``test`` and ``predict``: the module, and loaders instead of its own."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.errors import MisconfigurationException, describe
from pytorch_lightning.lightning2 import refuse_arguments
from pytorch_lightning.root_module.root_module import GIVEN, LightningModule

ARGUMENTS_OF_FIT = {"train_dataloaders": "tng_dataloader", "val_dataloaders": "val_dataloader"}
"""Lightning 2's names of loaders in ``fit``."""


def loaders_of_fit(tng_dataloader: Any, val_dataloader: Any, others: Mapping[str, Any]) -> dict[str, Any]:
    """The loaders by the property that each one replaces; ``others`` are arguments by other names."""
    given = {"tng_dataloader": tng_dataloader, "val_dataloader": val_dataloader}
    rest = dict(others)
    for name, meant in ARGUMENTS_OF_FIT.items():
        loader = rest.pop(name, None)
        if loader is not None and given[meant] is not None:
            raise MisconfigurationException(f"fit received {meant} and {name}, which mean the same. Pass one of them.")
        given[meant] = given[meant] if loader is None else loader
    refuse_arguments("Trainer.fit", "arguments", rest)
    return given


def loader_and_ckpt(where: str, dataloader: Any, ckpt: Any, weights: Any, others: Mapping[str, Any]) -> tuple[Any, Any]:
    """The loader and the checkpoint of a call, an ``Average`` where ``weights='average'`` was passed. A path in the
    loader's place is the checkpoint."""
    rest = dict(others)
    other = rest.pop("dataloaders", None)
    if weights not in (None, "average"):
        raise MisconfigurationException(
            f"{where}: weights must be 'average', or None for those that were trained; received {describe(weights)}."
            " Leave it out, or pass weights='average'."
        )
    refuse_arguments(where, "arguments", rest)
    dataloader = other if dataloader is None else dataloader
    if isinstance(dataloader, (str, Path)):
        if ckpt is not None:
            raise MisconfigurationException(
                f"{where}: dataloader must be a loader; received {describe(dataloader)}. Pass ckpt={str(dataloader)!r}"
                " for a checkpoint."
            )
        dataloader, ckpt = None, dataloader
    if weights == "average":
        from pytorch_lightning.trainer.averaging import Average

        ckpt = Average(ckpt)
    return dataloader, ckpt


CALLED = ("train", "eval", "forward", "parameters", "modules", "children", "buffers", "state_dict", "load_state_dict")
"""Methods of a module that an attribute of the same name would hide."""


@contextlib.contextmanager
def given_loaders(module: Any, loaders: Mapping[str, Any]) -> Iterator[None]:
    """A scope in which the properties ``loaders`` of ``module`` return these loaders, except those that are None.
    Raises ``MisconfigurationException`` for a property that can't be replaced."""
    loaders = {name: loader for name, loader in loaders.items() if loader is not None}
    if not loaders or not isinstance(module, LightningModule):
        yield
        return
    before = vars(module).get(GIVEN)
    vars(module)[GIVEN] = {**(before or {}), **loaders}
    try:
        for name, loader in loaders.items():
            if getattr(module, name) is not loader:
                raise MisconfigurationException(
                    f"{type(module).__name__}.{name} isn't a property of the module's own classes, so a loader can't be"
                    " passed instead of it. Write the property in the module."
                )
        yield
    finally:
        if before is None:
            vars(module).pop(GIVEN, None)
        else:
            vars(module)[GIVEN] = before


def forget_loaders(module: LightningModule) -> None:
    """Loaders that the module keeps, by itself or by ``data_loader``, are made anew when they are read."""
    from pytorch_lightning.run.hooks import LOADERS

    for name in LOADERS:
        vars(module)[f"_{name}"] = None
        vars(module).pop(f"_lazy_{name}", None)


def need_module(model: Any) -> None:
    """Raise ``MisconfigurationException`` unless ``model`` is a ``LightningModule`` whose ``__init__`` ran."""
    if not isinstance(model, LightningModule):
        advice = "Subclass pytorch_lightning.LightningModule and call super().__init__()."
        if isinstance(model, type) and issubclass(model, LightningModule):
            advice = f"Make one: {model.__name__}(...)."
        elif isinstance(model, (str, Path)):
            advice = f"Pass a checkpoint by its name: ckpt={str(model)!r}."
        raise MisconfigurationException(f"a model must be a LightningModule; received {describe(model)}. {advice}")
    hidden = [name for name in CALLED if name in vars(model) and not callable(vars(model)[name])]
    if hidden:
        name, of = hidden[0], type(model).__name__
        raise MisconfigurationException(
            f"{of}.{name} is a method that torch and the trainer call; received {describe(vars(model)[name])}, assigned"
            f" to self.{name}. Choose another name for it."
        )
    from pytorch_lightning.trainer.checks import needs_init

    if needs_init(model):
        raise MisconfigurationException(
            f"{type(model).__name__}.__init__ doesn't call super().__init__(). Call it first."
        )
