"""Callbacks, which observe a fit: pass them as ``Trainer(callbacks=[...])``."""

from typing import Any

from pytorch_lightning.callbacks.accumulation import GradientAccumulationScheduler as GradientAccumulationScheduler
from pytorch_lightning.callbacks.callback import Callback as Callback
from pytorch_lightning.callbacks.early_stopping import EarlyStopping as EarlyStopping
from pytorch_lightning.callbacks.model_checkpoint import ModelCheckpoint as ModelCheckpoint
from pytorch_lightning.callbacks.progress_bar import ProgressBar as ProgressBar


def __getattr__(name: str) -> Any:
    from pytorch_lightning.lightning2 import refuse_name

    refuse_name(__name__, name, "callbacks")
