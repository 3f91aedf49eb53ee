"""Train PyTorch models: subclass ``LightningModule``, call ``Trainer().fit(model)``.

The public names are imported when they are first used, and what only a fit needs when one begins, so that
``import pytorch_lightning`` takes little longer than ``import torch``.
"""

import os
from typing import TYPE_CHECKING, Any

from pytorch_lightning.namesakes import warn_of_namesakes
from pytorch_lightning.version import __version__ as __version__

if TYPE_CHECKING:
    from pytorch_lightning.command_line import add_default_args
    from pytorch_lightning.commands.reporting.page import report
    from pytorch_lightning.root_module.decorators import data_loader
    from pytorch_lightning.root_module.root_module import LightningModule
    from pytorch_lightning.run.listing import runs
    from pytorch_lightning.seeding import seed_everything
    from pytorch_lightning.trainer.trainer import Trainer

__all__ = ["LightningModule", "Trainer", "add_default_args", "data_loader", "report", "runs", "seed_everything"]

_HOMES = {
    "LightningModule": "pytorch_lightning.root_module.root_module",
    "Trainer": "pytorch_lightning.trainer.trainer",
    "add_default_args": "pytorch_lightning.command_line",
    "data_loader": "pytorch_lightning.root_module.decorators",
    "report": "pytorch_lightning.commands.reporting.page",
    "runs": "pytorch_lightning.run.listing",
    "seed_everything": "pytorch_lightning.seeding",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        from pytorch_lightning.lightning2 import refuse_name

        refuse_name("pytorch_lightning", name, "names", "callbacks")
    import importlib

    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


warn_of_namesakes(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
