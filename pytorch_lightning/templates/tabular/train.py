"""Train a model that predicts a column of a table: ``python train.py``, with ``--help`` for all options."""

from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from collections.abc import Sequence

from model import Regressor

from pytorch_lightning import Trainer, add_default_args, seed_everything
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint


def arguments(words: Sequence[str] | None = None) -> Namespace:
    """The options of the command line, or of a list of ``words``."""
    parser = ArgumentParser(usage="%(prog)s [--option value ...]", formatter_class=ArgumentDefaultsHelpFormatter)
    add_default_args(parser, ".", run_options=False)  # all of the Trainer's, then the model's
    parser.add_argument("--csv", help="a file with a header and the target in its last column, instead of made numbers")
    parser.add_argument("--hidden_dim", default=64, type=int, help="hidden units of each layer")
    parser.add_argument("--learning_rate", default=0.002, type=float, help="of Adam")
    parser.add_argument("--batch_size", default=32, type=int, help="rows in a batch")
    parser.add_argument("--weights", default="weights", help="folder of the best checkpoint")
    parser.add_argument("--patience", default=10, type=int, help="epochs without a gain, before training stops")
    parser.set_defaults(max_nb_epochs=50, save_every_nb_batches=50)
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
    trainer.fit(Regressor(hparams))
    if trainer.interrupted:  # by Ctrl-C
        return

    metrics = trainer.test(ckpt="best")
    print(f"best checkpoint {checkpoint.best_path}")
    print(f"test error      {metrics['test_error']:.3f}, the mean distance from the target")


if __name__ == "__main__":
    main(arguments())
