"""``GradientAccumulationScheduler``."""

from collections.abc import Mapping

from pytorch_lightning.callbacks.callback import Callback


class GradientAccumulationScheduler(Callback):
    """How many batches a step takes, by epoch: ``{1: 2, 5: 8}`` is 2 from the first epoch on and 8 from the fifth.

    ``Trainer(accumulate_grad_batches=scheduling)`` is the same. Pass this there, or in ``callbacks``.

    >>> from pytorch_lightning import Trainer
    >>> trainer = Trainer(accumulate_grad_batches=GradientAccumulationScheduler({1: 2, 5: 8}))
    """

    def __init__(self, scheduling: Mapping[int, int]) -> None:
        self.scheduling = dict(scheduling)
