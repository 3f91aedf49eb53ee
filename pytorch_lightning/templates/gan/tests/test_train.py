"""One batch through the Trainer, and what the model draws: ``python -m pytest``."""

from pathlib import Path

import torch
from model import GAN
from train import DrawDigits, arguments

from pytorch_lightning import Trainer


def test_one_batch_trains_both_networks() -> None:
    gan = GAN(arguments([]))
    weights = [next(network.parameters()) for network in (gan.generator, gan.discriminator)]  # of the first layers
    before = [weight.detach().clone() for weight in weights]
    Trainer(fast_dev_run=True, progress_bar=False, silence=["no-validation"]).fit(gan)  # files go to a temporary folder
    for weight, old in zip(weights, before, strict=True):
        assert weight.isfinite().all()
        assert not torch.equal(weight, old)


def test_an_epoch_leaves_an_image(tmp_path: Path) -> None:
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
