"""Comparison of the values of a metric."""

import math
import re
from typing import Any

from pytorch_lightning.callbacks.callback import Run
from pytorch_lightning.errors import MisconfigurationException, describe

HIGHER = frozenset(
    "acc accuracy f1 f2 fbeta fmeasure fscore auc auroc auprc roc ap map mrr ndcg iou miou dice jaccard"  # noqa: SIM905
    " precision recall sensitivity specificity tpr r2 bleu rouge meteor cider psnr ssim score corr correlation pearson"
    " spearman kappa mcc hits top reward return".split()
)
LOWER = frozenset(
    "loss error err mae mse rmse msle rmsle mape smape perplexity ppl nll bce ce kl wer cer ter eer fid"  # noqa: SIM905
    " kid lpips fpr fnr brier ece distance divergence l1 l2 latency".split()
)


def direction(monitor: str, mode: str) -> str:
    """'min' or 'max': ``mode`` itself, or for 'auto' what ``known_direction`` says, and min where it says nothing.

    >>> direction("val_acc", "auto"), direction("val_loss", "auto"), direction("cost", "auto")
    ('max', 'min', 'min')
    """
    if not isinstance(monitor, str):
        raise MisconfigurationException(f"monitor must be the name of a metric; received {describe(monitor)}.")
    if mode not in ("auto", "min", "max"):
        raise MisconfigurationException(f"mode must be 'auto', 'min' or 'max'; received {describe(mode)}.")
    return (known_direction(monitor) or "min") if mode == "auto" else mode


def known_direction(monitor: str) -> str | None:
    """Whether a metric of this name is better the lower or the higher it is: the last of its words that says so
    decides, and 'acc' within a word if none does. None for other names.

    >>> [known_direction(name) for name in ("val/F1@0.5", "dice_loss", "mAP50", "confidence", "vacc", "valLoss")]
    ['max', 'min', 'max', None, 'max', 'min']
    """
    spaced = re.sub(r"(?<=[a-z]{2})(?=[A-Z])", "_", monitor).lower()
    for word in reversed(re.findall(r"[a-z]+\d*", spaced)):
        for kind, names in (("max", HIGHER), ("min", LOWER)):
            if word in names or word.rstrip("0123456789") in names:
                return kind
    return "min" if spaced.endswith("loss") else "max" if "acc" in spaced else None


def say_guess(run: Run, monitor: str) -> None:
    """Report that the mode of ``monitor``, for 'auto', is a guess."""
    if known_direction(monitor) is None:
        text = f"mode='auto' takes {monitor!r} for a metric that is better the lower it is; pass mode='min' or 'max'"
        run.notices.say(f"unknown-mode-{monitor}", text)


def worst(mode: str) -> float:
    """The value that any other one is better than."""
    return -math.inf if mode == "max" else math.inf


def is_better(value: float, than: float, mode: str, min_delta: float = 0.0) -> bool:
    """Whether ``value`` beats ``than`` by more than ``min_delta``. NaN never does."""
    return value > than + min_delta if mode == "max" else value < than - min_delta


def from_first(run: Run, value: Any) -> Any:
    """The ``value`` of the first process, where there are several. All call it."""
    return getattr(run, "from_first", lambda value: value)(value)


class AfterEpochs:
    """The values of ``monitor`` at the ends of epochs, if no validation gives it."""

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor
        self.of_validation: bool | None = None
        """Whether a validation gives the metric; None while that isn't known."""
        self.waiting: list[float] = []
        """Values of training from before that is known."""

    def note_validation(self, metrics: dict[str, float | int]) -> None:
        """A validation has given ``metrics``."""
        self.of_validation = self.of_validation or self.monitor in metrics

    def values(self, run: Run) -> list[float]:
        """An epoch has ended: the values that are due, the last of which is this epoch's."""
        if self.of_validation is None:  # no validation so far; the one before training says which names there are
            names = run.metrics.validation_names or tuple(run.metrics.validation)
            self.of_validation = self.monitor in names if names or run.nb_val_batches == 0 else None
        values = run.metrics.of_training()
        if not self.of_validation and self.monitor in values:
            self.waiting.append(values[self.monitor])
        if self.of_validation is None:
            return []
        waiting, self.waiting = self.waiting, []
        return [] if self.of_validation else waiting


def check_count(owner: object, name: str, value: Any, least: int) -> None:
    """Raises ``MisconfigurationException`` where ``value`` isn't a whole number of at least ``least``."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < least:
        raise MisconfigurationException(
            f"{type(owner).__name__}: {name} must be a whole number of at least {least}; received {describe(value)}."
        )
