"""One batch through the Trainer, and what the model gives: ``python -m pytest``."""

import torch
from model import DigitReader
from train import arguments

from pytorch_lightning import Trainer


def test_one_batch_trains_validates_and_tests():
    model = DigitReader(arguments([]))
    before = [p.detach().clone() for p in model.parameters()]
    trainer = Trainer(fast_dev_run=True, progress_bar=False)  # files go to a temporary folder
    trainer.fit(model)
    assert not any(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    assert 0 <= trainer.test()["test_acc"] <= 1


def test_each_image_gets_a_logit_for_each_class():
    model = DigitReader(arguments([]))
    image, _ = model.digits(train=False)[0]
    nb_classes = max(int(label) for _, label in model.digits(train=False)) + 1
    assert model(torch.stack([image] * 3)).shape == (3, nb_classes)
