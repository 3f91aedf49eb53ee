"""Loggers, which write rows of metrics: pass one as ``Trainer(experiment=...)``."""

from typing import Any

from pytorch_lightning.loggers.csv_logger import CSVLogger as CSVLogger
from pytorch_lightning.loggers.logger import Logger as Logger
from pytorch_lightning.loggers.tensorboard_logger import TensorBoardLogger as TensorBoardLogger
from pytorch_lightning.loggers.test_tube_logger import TestTubeLogger as TestTubeLogger


def __getattr__(name: str) -> Any:
    from pytorch_lightning.lightning2 import refuse_name

    refuse_name(__name__, name, "loggers")
