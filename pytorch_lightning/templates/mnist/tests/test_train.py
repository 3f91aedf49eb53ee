"""One batch through the Trainer, and what the model gives: ``python -m pytest``."""

import torch
from model import DigitReader
from train import arguments

from pytorch_lightning import Trainer


def test_one_batch_trains_validates_and_tests() -> None:
    model = DigitReader(arguments([]))
    before = [p.detach().clone() for p in model.parameters()]
    trainer = Trainer(fast_dev_run=True, progress_bar=False)  # files go to a temporary folder
    trainer.fit(model)
    assert not any(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    assert 0 <= trainer.test()["test_acc"] <= 1


def test_each_image_gets_a_logit_for_each_class() -> None:
    model = DigitReader(arguments([]))
    images, labels = model.digits(train=False).tensors
    assert model(images[:3]).shape == (3, int(labels.max()) + 1)
