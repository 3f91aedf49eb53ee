"""Train a model that writes text: ``python train.py``, with ``--help`` for all options."""

from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from collections.abc import Sequence

from model import CharacterModel

from pytorch_lightning import Trainer, add_default_args, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint


def arguments(words: Sequence[str] | None = None) -> Namespace:
    """The options of the command line, or of a list of ``words``."""
    parser = ArgumentParser(usage="%(prog)s [--option value ...]", formatter_class=ArgumentDefaultsHelpFormatter)
    add_default_args(parser, ".", run_options=False)  # all of the Trainer's, then the model's
    parser.add_argument("--text", help="a file to learn from, instead of made sums")
    parser.add_argument("--start", default="7+5=", help="what the model continues after training")
    parser.add_argument("--length", default=64, type=int, help="characters that the model sees at once")
    parser.add_argument("--hidden_dim", default=128, type=int, help="numbers of a character, and of the state")
    parser.add_argument("--learning_rate", default=0.005, type=float, help="of Adam")
    parser.add_argument("--batch_size", default=16, type=int, help="pieces of text in a batch")
    parser.add_argument("--weights", default="weights", help="folder of the best checkpoint")
    parser.set_defaults(max_nb_epochs=20, save_every_nb_batches=20, gradient_clip=1.0)
    return parser.parse_args(words)


def main(hparams: Namespace) -> None:
    if hparams.seed is not None:
        seed_everything(hparams.seed)  # before the model draws its weights
    model = CharacterModel(hparams)
    checkpoint = ModelCheckpoint(hparams.weights, monitor="val_loss", save_best_only=True)
    trainer = Trainer.from_args(hparams, checkpoint_callback=checkpoint)
    trainer.fit(model)
    if trainer.interrupted:  # by Ctrl-C
        return

    metrics = trainer.validate(ckpt="best")
    print(f"best checkpoint {checkpoint.best_path}")
    print(f"loss            {metrics['val_loss']:.3f}")
    print(f"text            {model.write(hparams.start, length=40)}")


if __name__ == "__main__":
    main(arguments())
