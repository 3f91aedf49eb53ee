"""``@data_loader``: a loader property in one ``return``."""

from collections.abc import Callable
from typing import Any


class data_loader(property):
    """A property that makes its loader once per module, by ``function``, and keeps it.

    The loader isn't part of a copied or pickled module: each process makes its own.

    >>> from pytorch_lightning import LightningModule
    >>> class Model(LightningModule):
    ...     @data_loader
    ...     def tng_dataloader(self):
    ...         return [1, 2, 3]
    >>> model = Model()
    >>> model.tng_dataloader is model.tng_dataloader
    True
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        name = f"_lazy_{function.__name__}"

        def get(module: Any) -> Any:
            if name not in module.__dict__:
                # past nn.Module.__setattr__, which would register a loader that is a Module
                module.__dict__[name] = function(module)
            return module.__dict__[name]

        get.__name__ = function.__name__
        super().__init__(get, doc=function.__doc__)
