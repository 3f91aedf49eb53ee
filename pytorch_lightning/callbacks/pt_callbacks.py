from pytorch_lightning.callbacks import EarlyStopping as EarlyStopping
from pytorch_lightning.callbacks import GradientAccumulationScheduler as GradientAccumulationScheduler
from pytorch_lightning.callbacks import ModelCheckpoint as ModelCheckpoint
from pytorch_lightning.callbacks.keras_style import KerasCallback as Callback  # noqa: F401
