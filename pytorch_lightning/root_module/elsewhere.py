"""Methods that a module has in Lightning 2 and not here: calling one says what to write."""

from itertools import chain
from typing import Any

import torch
from torch import nn

from pytorch_lightning.errors import MisconfigurationException
from pytorch_lightning.lightning2 import advice


class Refused:
    """A method of Lightning 2. What user code assigns under its name takes its place, as in any module."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, module: nn.Module | None, owner: type) -> Any:
        if module is None:
            return self
        own = own_part(module, self._name)
        if own is not None:
            return own

        def refuse(*_: Any, **__: Any) -> None:
            text = advice("module_members", self._name) or advice("keras_members", self._name)
            raise MisconfigurationException(f"a module has no {self._name}() here. {text}.")

        return refuse


class OfTheClass(classmethod):  # type: ignore[type-arg]
    """A classmethod that makes a module, and that no module may call: it would stay as it is."""

    def __get__(self, module: Any, owner: Any = None) -> Any:
        if module is None:
            return super().__get__(None, owner)

        def refuse(*_: Any, **__: Any) -> None:
            call = f"{owner.__name__}.{self.__name__}"
            raise MisconfigurationException(
                f"{self.__name__} makes a new module, and leaves the one that it is called on as it is."
                f" Write model = {call}(...)."
            )

        return refuse


class Device:
    """The device of the module's first parameter or buffer; the CPU without one."""

    def __get__(self, module: nn.Module | None, owner: type) -> Any:
        if module is None:
            return self
        own = own_part(module, "device")
        if own is not None:
            return own
        tensors = chain(module.parameters(), module.buffers())
        return next((tensor.device for tensor in tensors), torch.device("cpu"))


def own_part(module: nn.Module, name: str) -> Any:
    """The parameter, buffer or submodule called ``name``: Python finds what the class has first."""
    parts = (vars(module).get(kind, {}) for kind in ("_parameters", "_buffers", "_modules"))
    return next((part[name] for part in parts if part.get(name) is not None), None)


class LightningMethods:
    """What is set in the class, ``device``, and methods that a module of Lightning 2 has, which say what to write
    instead."""

    automatic_optimization: bool = True
    """False: ``training_step`` makes its own steps, by ``manual_backward`` and ``manual_step``."""
    tng_loaders_mode: str = "longest"
    """With several training loaders: an epoch is as long as the longest, and shorter ones begin again; or as long as
    the ``'shortest'``."""
    device: Any = Device()
    log: Any = Refused()
    log_dict: Any = Refused()
    save_hyperparameters: Any = Refused()
    all_gather: Any = Refused()
    optimizers: Any = Refused()
    lr_schedulers: Any = Refused()
    toggle_optimizer: Any = Refused()
    untoggle_optimizer: Any = Refused()
    to_onnx: Any = Refused()
    to_torchscript: Any = Refused()
    fit: Any = Refused()
    evaluate: Any = Refused()
    predict: Any = Refused()
    summary: Any = Refused()
    save: Any = Refused()
    save_weights: Any = Refused()
    load_weights: Any = Refused()

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile ``forward``, as ``nn.Module`` does; ``Trainer(compile=True)`` compiles the steps.
        Raises ``MisconfigurationException`` for Keras' arguments."""
        if {"optimizer", "loss", "metrics"} & set(kwargs) or args:
            text = advice("keras_members", "compile")
            raise MisconfigurationException(f"a module's compile() takes options of torch.compile here. {text}.")
        super().compile(**kwargs)  # type: ignore[misc]


class BeforeInit(dict[str, Any]):
    """Stands for the parts of a module whose ``__init__`` didn't run yet."""

    def __init__(self, owner: str) -> None:
        super().__init__()
        self.owner = owner

    def __setitem__(self, name: str, value: Any) -> None:
        raise MisconfigurationException(
            f"{self.owner}.__init__ assigns {name!r} before super().__init__() is called. Call it first."
        )
