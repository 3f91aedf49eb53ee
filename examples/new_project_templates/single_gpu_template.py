"""Train the template model on a GPU: ``python single_gpu_template.py``, with ``--gpus 1`` for the second one.

Copy this file and ``lightning_module_template.py`` into a folder of your own: they run there as they are.
"""

import os
from argparse import Namespace
from pathlib import Path

from lightning_module_template import LightningTemplateModel
from test_tube import Experiment, HyperOptArgumentParser

from pytorch_lightning import Trainer, add_default_args, seed_everything
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint


def main(hparams: Namespace) -> None:
    # ------------------------
    # 1 MODEL
    # ------------------------
    if hparams.seed is not None:
        seed_everything(hparams.seed)
    if hparams.model_load_weights_path is None:
        model = LightningTemplateModel(hparams)
    else:  # begin with the weights of a checkpoint, of another run perhaps
        model = LightningTemplateModel.load_from_checkpoint(hparams.model_load_weights_path, hparams)

    # ------------------------
    # 2 EXPERIMENT: each run gets a version, and a folder, of its own
    # ------------------------
    experiment = Experiment(
        name=hparams.tt_name,
        save_dir=hparams.tt_save_path,
        description=hparams.tt_description,
        debug=hparams.debug,
    )
    experiment.argparse(hparams)
    run = Path(hparams.tt_name, "debug" if hparams.debug else f"version_{experiment.version}")

    # ------------------------
    # 3 CALLBACKS
    # ------------------------
    early_stop = EarlyStopping(
        monitor=hparams.early_stop_metric,
        mode=hparams.early_stop_mode,
        patience=hparams.early_stop_patience,
        verbose=1,
    )
    checkpoint = ModelCheckpoint(
        filepath=Path(hparams.model_save_path, run),
        monitor=hparams.model_save_monitor_value,
        mode=hparams.model_save_monitor_mode,
        save_best_only=True,
    )

    # ------------------------
    # 4 TRAINING: options of the command line go to the Trainer by themselves
    # ------------------------
    trainer = Trainer.from_args(
        hparams,
        experiment=experiment,
        early_stop_callback=early_stop,
        checkpoint_callback=checkpoint,
    )
    trainer.fit(model)
    run = Path(hparams.tt_name, f"version_{experiment.version}")  # an older one if --resume auto resumed it

    # ------------------------
    # 5 TEST, with the weights that did best in validation
    # ------------------------
    metrics = trainer.test(ckpt="best")

    if not (hparams.debug or hparams.fast_dev_run):  # these keep no log
        print(f"metrics         {Path(hparams.tt_save_path, run, 'metrics.csv')}")
        print(f"tensorboard     {Path(hparams.tt_save_path, run, 'tf')}")
    print(f"best checkpoint {checkpoint.best_path}")
    print(f"test accuracy   {metrics['test_acc']:.3f}")


if __name__ == "__main__":
    root_dir = os.path.dirname(os.path.realpath(__file__))

    # the Trainer's options, then the model's
    parent_parser = HyperOptArgumentParser(strategy="grid_search", add_help=False)
    add_default_args(parent_parser, root_dir)
    parser = LightningTemplateModel.add_model_specific_args(parent_parser, root_dir)

    # what suits this model on a GPU: '0' is the first one, 'none' would be the CPU
    parser.set_defaults(gpus="0", max_nb_epochs=50, early_stop_metric="val_loss", model_save_monitor_value="val_loss")
    parser.usage = "%(prog)s [--option value ...]"
    main(parser.parse_args())
