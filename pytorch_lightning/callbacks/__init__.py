"""Callbacks, which observe a fit: pass them as ``Trainer(callbacks=[...])``."""

import importlib
from typing import TYPE_CHECKING, Any

from pytorch_lightning.callbacks.callback import Callback, Run

if TYPE_CHECKING:
    from pytorch_lightning.callbacks.accumulation import GradientAccumulationScheduler
    from pytorch_lightning.callbacks.early_stopping import EarlyStopping
    from pytorch_lightning.callbacks.model_checkpoint import ModelCheckpoint
    from pytorch_lightning.callbacks.optuna_pruning import OptunaPruning
    from pytorch_lightning.callbacks.progress_bar import ProgressBar
    from pytorch_lightning.callbacks.rewind import Rewind
    from pytorch_lightning.callbacks.schedule_free import ScheduleFree
    from pytorch_lightning.callbacks.throughput import ThroughputMonitor
    from pytorch_lightning.callbacks.unfreeze import Unfreeze
    from pytorch_lightning.callbacks.weight_averaging import WeightAveraging

__all__ = [
    "Callback",
    "EarlyStopping",
    "GradientAccumulationScheduler",
    "ModelCheckpoint",
    "OptunaPruning",
    "ProgressBar",
    "Rewind",
    "Run",
    "ScheduleFree",
    "ThroughputMonitor",
    "Unfreeze",
    "WeightAveraging",
]

LATER = {
    "EarlyStopping": "early_stopping",
    "GradientAccumulationScheduler": "accumulation",
    "ModelCheckpoint": "model_checkpoint",
    "OptunaPruning": "optuna_pruning",
    "ProgressBar": "progress_bar",
    "Rewind": "rewind",
    "ScheduleFree": "schedule_free",
    "ThroughputMonitor": "throughput",
    "Unfreeze": "unfreeze",
    "WeightAveraging": "weight_averaging",
}
"""Those that are imported when they are used, and their files."""


def __getattr__(name: str) -> Any:
    if name in LATER:
        return getattr(importlib.import_module(f"{__name__}.{LATER[name]}"), name)
    if name in LATER.values():
        return importlib.import_module(f"{__name__}.{name}")
    from pytorch_lightning.lightning2 import refuse_name

    return refuse_name(__name__, name, "callbacks")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
