"""Train a model that reads handwritten digits: ``python train.py``, with ``--help`` for all options."""

from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from collections.abc import Sequence

from model import DigitReader

from pytorch_lightning import Trainer, add_default_args, seed_everything
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint


def arguments(words: Sequence[str] | None = None) -> Namespace:
    """The options of the command line, or of a list of ``words``."""
    parser = ArgumentParser(usage="%(prog)s [--option value ...]", formatter_class=ArgumentDefaultsHelpFormatter)
    add_default_args(parser, ".", run_options=False)  # all of the Trainer's, then the model's
    parser.add_argument("--hidden_dim", default=64, type=int, help="hidden units")
    parser.add_argument("--drop_prob", default=0.2, type=float, help="share of them that dropout zeroes")
    parser.add_argument("--learning_rate", default=0.002, type=float, help="of Adam")
    parser.add_argument("--batch_size", default=64, type=int, help="digits in a batch")
    parser.add_argument("--data_root", help="folder of MNIST's four idx files, instead of the digits of the library")
    parser.add_argument("--weights", default="weights", help="folder of the best checkpoint")
    parser.add_argument("--patience", default=3, type=int, help="epochs without a gain, before training stops")
    parser.set_defaults(max_nb_epochs=15, save_every_nb_batches=50)
    return parser.parse_args(words)


def main(hparams: Namespace) -> None:
    if hparams.seed is not None:
        seed_everything(hparams.seed)  # before the model draws its weights
    checkpoint = ModelCheckpoint(hparams.weights, monitor="val_loss", save_best_only=True)
    trainer = Trainer.from_args(
        hparams,
        early_stop_callback=EarlyStopping(monitor="val_loss", patience=hparams.patience),
        checkpoint_callback=checkpoint,
    )
    trainer.fit(DigitReader(hparams))
    if trainer.interrupted:  # by Ctrl-C
        return

    metrics = trainer.test(ckpt="best")
    print(f"best checkpoint {checkpoint.best_path}")
    print(f"test accuracy   {metrics['test_acc']:.3f}")


if __name__ == "__main__":
    main(arguments())
