"""One batch through the Trainer: ``python -m pytest``."""

import torch
from train import Model

from pytorch_lightning import Trainer


def test_one_batch_trains() -> None:
    model = Model()
    before = model.layer.weight.detach().clone()
    Trainer(fast_dev_run=True, progress_bar=False).fit(model)  # files go to a temporary folder
    assert not torch.equal(model.layer.weight, before)
    assert model.layer.weight.isfinite().all()
