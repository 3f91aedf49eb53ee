"""One batch through the Trainer, and what the model draws: ``python -m pytest``."""

import torch
from model import GAN
from train import DrawDigits, arguments

from pytorch_lightning import Trainer


def test_one_batch_trains_both_networks():
    gan = GAN(arguments([]))
    before = [p.detach().clone() for p in (gan.generator[0].weight, gan.discriminator[0].weight)]
    Trainer(fast_dev_run=True, progress_bar=False, silence=["no-validation"]).fit(gan)  # files go to a temporary folder
    for parameter, old in zip((gan.generator[0].weight, gan.discriminator[0].weight), before, strict=True):
        assert parameter.isfinite().all()
        assert not torch.equal(parameter, old)


def test_an_epoch_leaves_an_image(tmp_path):
    hparams = arguments(["--latent_dim", "8"])
    trainer = Trainer(
        experiment=False,
        max_nb_epochs=1,
        train_percent_check=0.02,
        progress_bar=False,
        silence=["no-validation"],
        callbacks=[DrawDigits(tmp_path, hparams.latent_dim)],
    )
    trainer.fit(GAN(hparams))
    assert (tmp_path / "epoch_1.png").read_bytes().startswith(b"\x89PNG")
