"""fastai: a Learner without bar and recorder."""

from typing import Any

import torch
from fastai.callback.progress import ProgressCallback
from fastai.data.core import DataLoaders
from fastai.learner import Learner, Recorder
from fastai.optimizer import OptimWrapper
from torch import nn

from benchmarks import workloads as w


def learner(loader: Any) -> Any:
    def optimizer(parameters: Any, lr: float, **_: Any) -> Any:
        return OptimWrapper(parameters, torch.optim.SGD, lr=lr)

    data = DataLoaders(loader, loader, device=torch.device("cpu"))
    made = Learner(data, w.w1_network(), loss_func=nn.MSELoss(), opt_func=optimizer, lr=0.01, train_bn=True)
    return made.remove_cbs([Recorder, ProgressCallback])


def W1list(nb: int) -> None:
    W1(nb, w.w1_batches(nb))


def W1(nb: int, loader: Any = None) -> None:
    made = learner(w.w1_loader(nb) if loader is None else loader)
    with made.no_logging():
        made._do_epoch_validate = lambda *_: None
        made.fit(1)


def W4(nb: int) -> None:
    made = learner(w.w1_loader(nb, shuffle=False))
    with made.no_logging():
        made.validate()
