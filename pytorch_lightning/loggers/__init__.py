"""Loggers, which write rows of metrics: pass one as ``Trainer(experiment=...)``."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytorch_lightning.loggers.csv_logger import CSVLogger
    from pytorch_lightning.loggers.journal import TrackedRow
    from pytorch_lightning.loggers.logger import Logger
    from pytorch_lightning.loggers.mlflow_logger import MLflowLogger
    from pytorch_lightning.loggers.tensorboard_logger import TensorBoardLogger
    from pytorch_lightning.loggers.test_tube_logger import TestTubeLogger
    from pytorch_lightning.loggers.tracker import Tracker
    from pytorch_lightning.loggers.wandb_logger import WandbLogger

__all__ = [
    "CSVLogger",
    "Logger",
    "MLflowLogger",
    "TensorBoardLogger",
    "TestTubeLogger",
    "TrackedRow",
    "Tracker",
    "WandbLogger",
]

LATER = {
    "CSVLogger": "csv_logger",
    "Logger": "logger",
    "MLflowLogger": "mlflow_logger",
    "TensorBoardLogger": "tensorboard_logger",
    "TestTubeLogger": "test_tube_logger",
    "TrackedRow": "journal",
    "Tracker": "tracker",
    "WandbLogger": "wandb_logger",
}
"""Those that are imported when they are used, and their files."""


def __getattr__(name: str) -> Any:
    if name in LATER:
        return getattr(importlib.import_module(f"{__name__}.{LATER[name]}"), name)
    if name in LATER.values():
        return importlib.import_module(f"{__name__}.{name}")
    from pytorch_lightning.lightning2 import refuse_name

    return refuse_name(__name__, name, "loggers")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
