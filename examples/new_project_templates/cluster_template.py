"""Search hyperparameters on a SLURM cluster: ``python cluster_template.py --nb_trials 4`` on a login node.

test-tube's SlurmCluster writes a job script for each trial and hands it to ``sbatch``; the job starts this same file
again, and ``main`` gets the trial's hyperparameters. Copy this file and ``lightning_module_template.py`` into a
folder that the machines share: they run there as they are.
"""

import os
from argparse import Namespace
from pathlib import Path

from lightning_module_template import LightningTemplateModel
from test_tube import Experiment, HyperOptArgumentParser, SlurmCluster

from pytorch_lightning import Trainer, add_default_args, seed_everything
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint


def main(hparams: Namespace, cluster: SlurmCluster) -> None:
    """One trial, inside its job. ``cluster`` knows the job that it runs in."""
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
    # 2 EXPERIMENT: the trial's number is its version, so that trials that start together don't take the same
    # ------------------------
    experiment = Experiment(
        name=hparams.tt_name,
        save_dir=hparams.tt_save_path,
        version=cluster.hpc_exp_number,
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
    # 4 TRAINING, then a test with the weights that did best in validation
    # ------------------------
    trainer = Trainer.from_args(
        hparams,
        experiment=experiment,
        early_stop_callback=early_stop,
        checkpoint_callback=checkpoint,
    )
    trainer.fit(model)
    run = Path(hparams.tt_name, f"version_{experiment.version}")  # an older one if --resume auto resumed it
    metrics = trainer.test(ckpt="best")

    if not (hparams.debug or hparams.fast_dev_run):  # these keep no log
        print(f"metrics         {Path(hparams.tt_save_path, run, 'metrics.csv')}")
    print(f"best checkpoint {checkpoint.best_path}")
    print(f"test accuracy   {metrics['test_acc']:.3f}")


def search(hparams: Namespace, root_dir: str) -> None:
    """Hand a job to SLURM for each trial; inside such a job, run its trial."""
    cluster = SlurmCluster(
        hyperparam_optimizer=hparams,
        log_path=os.path.join(root_dir, "slurm"),
        python_cmd="python",
    )

    # what each job gets
    cluster.per_experiment_nb_nodes = 1
    cluster.per_experiment_nb_gpus = hparams.gpus_per_trial
    cluster.per_experiment_nb_cpus = 2
    cluster.memory_mb_per_node = 8000
    cluster.job_time = hparams.job_time

    # what your cluster needs before python runs, for example:
    # cluster.load_modules(["python/3.11"])
    # cluster.add_command("source activate my_environment")
    # cluster.add_slurm_cmd(cmd="partition", value="gpu", comment="where to run")

    start = cluster.optimize_parallel_cluster_gpu if hparams.gpus_per_trial else cluster.optimize_parallel_cluster_cpu
    start(main, nb_trials=hparams.nb_trials, job_name=hparams.tt_name)


if __name__ == "__main__":
    root_dir = os.path.dirname(os.path.realpath(__file__))

    # the Trainer's options, then the model's
    parent_parser = HyperOptArgumentParser(strategy="grid_search", add_help=False)
    add_default_args(parent_parser, root_dir)
    parser = LightningTemplateModel.add_model_specific_args(parent_parser, root_dir)

    # what is searched: options that the model gave a list of values
    for name in ("--learning_rate", "--drop_prob"):
        parser.opt_args[name].tunable = True

    parser.add_argument("--nb_trials", default=3, type=int, help="jobs to start")
    parser.add_argument("--gpus_per_trial", default=0, type=int, help="GPUs of a job; 0 trains on the CPU")
    parser.add_argument("--job_time", default="01:00:00", type=str, help="how long a job may take")
    parser.set_defaults(max_nb_epochs=50, early_stop_metric="val_loss", model_save_monitor_value="val_loss")
    parser.usage = "%(prog)s [--option value ...]"
    search(parser.parse_args(), root_dir)
