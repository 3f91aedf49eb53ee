"""What the rest of a plan is made from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer

from pytorch_lightning.callbacks.callback import Callback
from pytorch_lightning.data.loader import ReplayableLoader
from pytorch_lightning.errors import Notices
from pytorch_lightning.options.config import Config
from pytorch_lightning.precision.precision import Precision
from pytorch_lightning.processes import Share
from pytorch_lightning.resume.attributes import AttributesPart
from pytorch_lightning.resume.epoch_length import EpochLength
from pytorch_lightning.resume.modes import ModesPart
from pytorch_lightning.resume.resuming import ResumedSave
from pytorch_lightning.resume.settings import SettingsPart
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.run.hooks import Hooks
from pytorch_lightning.run.run import FitRun
from pytorch_lightning.steps.gradients import Gradients
from pytorch_lightning.steps.optimizers import Schedule
from pytorch_lightning.strategies import Strategy
from pytorch_lightning.strategies.compiled import Compile
from pytorch_lightning.trainer.evaluation import EvaluationPlan


@dataclass(frozen=True, kw_only=True)
class Basis:
    """What the rest of a plan is built on: everything checked, the module in its place."""

    strategy: Strategy
    compiled: Compile
    share: Share
    """The virtual ranks that this process runs."""
    precision: Precision
    seed: int
    resumed: ResumedSave | None
    """The save that is resumed."""
    length: EpochLength
    attributes: AttributesPart
    modes: ModesPart
    settings: SettingsPart
    generators: list[Any]
    """Those that the model and the callbacks draw from."""
    sizes: dict[str, int]
    """Of the training data."""
    optimizers: list[Optimizer]
    schedules: list[Schedule]
    gradients: Gradients
    hooks: Hooks
    loader: ReplayableLoader
    validation: EvaluationPlan | None
    sanity: EvaluationPlan | None
    validate: Callable[[Any], tuple[EvaluationPlan | None, EvaluationPlan | None]]
    """Plans both, beside a training loader."""


@dataclass(frozen=True)
class FitRequest:
    """What every part of a plan is made from: the options, the module, and where it is trained."""

    config: Config
    module: LightningModule
    run: FitRun
    callbacks: Sequence[Callback]
    notices: Notices
    strategy: Strategy
