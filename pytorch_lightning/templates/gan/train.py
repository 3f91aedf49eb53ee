"""Train a GAN on handwritten digits: ``python train.py``, with ``--help`` for all options."""

from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

import torch
from model import GAN
from torchvision.utils import save_image

from pytorch_lightning import Trainer, add_default_args, seed_everything
from pytorch_lightning.callbacks import Callback, Run


class DrawDigits(Callback):
    """Draws the same noise after each epoch, so that one sees what changes."""

    def __init__(self, folder: str | Path, latent_dim: int) -> None:
        self.folder = Path(folder)
        self.noise = torch.randn(64, latent_dim, generator=torch.Generator().manual_seed(0))

    def on_epoch_end(self, run: Run) -> None:
        gan = run.module
        gan.eval()
        with torch.no_grad():
            images = gan(self.noise.to(next(gan.parameters())))
        gan.train()
        folder = run.scratch or self.folder  # the scratch folder is that of a fast_dev_run
        folder.mkdir(parents=True, exist_ok=True)
        save_image(images.float(), folder / f"epoch_{run.progress.epoch + 1}.png", normalize=True, value_range=(-1, 1))


def arguments(words: Sequence[str] | None = None) -> Namespace:
    """The options of the command line, or of a list of ``words``."""
    parser = ArgumentParser(usage="%(prog)s [--option value ...]", formatter_class=ArgumentDefaultsHelpFormatter)
    add_default_args(parser, ".", run_options=False)  # all of the Trainer's, then the model's
    parser.add_argument("--latent_dim", default=64, type=int, help="numbers that an image is made from")
    parser.add_argument("--learning_rate", default=0.001, type=float, help="of both optimizers")
    parser.add_argument("--batch_size", default=64, type=int, help="digits in a batch")
    parser.add_argument("--data_root", help="folder of MNIST's four idx files, instead of the digits of the library")
    parser.add_argument("--images", default="images", help="folder of what is drawn after each epoch")
    # there is no number that says how good an image is, so nothing is validated
    parser.set_defaults(max_nb_epochs=15, save_every_nb_batches=20, silence=["no-validation"])
    return parser.parse_args(words)


def main(hparams: Namespace) -> None:
    if hparams.seed is not None:
        seed_everything(hparams.seed)  # before the model draws its weights
    trainer = Trainer.from_args(hparams, callbacks=[DrawDigits(hparams.images, hparams.latent_dim)])
    trainer.fit(GAN(hparams))
    if trainer.interrupted or hparams.fast_dev_run:  # by Ctrl-C, or a trial that keeps nothing
        return
    trainer.save_checkpoint("gan.ckpt")
    print(f"images     {Path(hparams.images, 'epoch_*.png')}")
    print("checkpoint gan.ckpt")


if __name__ == "__main__":
    main(arguments())
