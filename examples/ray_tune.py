"""A search with Ray Tune, which goes on after it was killed: finished trials are kept, those that ran are resumed.

``python ray_tune.py`` tries learning rates and widths of a network that reads digits, and ends trials early that do
worse than the others did. After a kill, start it again in the same folder. Needs ``pip install "ray[tune]"`` (the extra
``ray`` of this library). A minute on a CPU. On a cluster ``--folder`` must be on a file system that all machines share.
"""

import os
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import BasicVariantGenerator
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer, add_default_args, seed_everything
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.data.digits import mnist


class Digits(LightningModule):
    """A network of one hidden layer."""

    def __init__(self, hparams: Namespace) -> None:
        super().__init__(hparams)
        self.network = nn.Sequential(
            nn.Flatten(), nn.Linear(784, hparams.width), nn.ReLU(), nn.Linear(hparams.width, 10)
        )

    def training_step(self, data_batch: tuple[Tensor, Tensor], batch_nb: int) -> Tensor:
        images, labels = data_batch
        return F.cross_entropy(self.network(images), labels)

    def validation_step(self, data_batch: tuple[Tensor, Tensor], batch_nb: int) -> dict[str, Tensor]:
        images, labels = data_batch
        return {"val_loss": F.cross_entropy(self.network(images), labels)}

    def configure_optimizers(self) -> Any:
        return optim.Adam(self.parameters(), lr=self.hparams.learning_rate)

    def data(self, train: bool) -> TensorDataset:
        digits = mnist(root=self.hparams.data_root, train=train)
        nb = self.hparams.nb_digits
        return TensorDataset(digits.data[:nb].float() / 255, digits.targets[:nb])

    @property
    def tng_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.data(train=True), batch_size=self.hparams.batch_size, shuffle=True)

    @property
    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.data(train=False), batch_size=250)


class Reporting(Callback):
    """Reports ``val_loss`` to Tune at the end of each epoch.

    Tune may not know the last epochs before a kill: a trial that is resumed reports those of its save again, so that
    the scheduler decides on each of them.
    """

    def __init__(self) -> None:
        self.losses: dict[int, float] = {}

    def on_fit_start(self, run: Any) -> None:
        for epoch in sorted(self.losses):
            self.report(epoch)

    def on_epoch_end(self, run: Any) -> None:
        epoch = run.progress.epoch + 1
        self.losses[epoch] = run.metrics.validation["val_loss"]
        self.report(epoch)

    def report(self, epoch: int) -> None:
        losses = [self.losses[i] for i in range(1, epoch + 1)]
        tune.report({"epoch": epoch, "val_loss": losses[-1], "val_losses": losses})

    def state_dict(self) -> dict[str, Any]:
        return {"losses": list(self.losses.items())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.losses = dict(state["losses"])


class Halving(ASHAScheduler):
    """ASHA that compares with trials from before a kill, too: Tune restores trials, but not what schedulers know."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_add(tune_controller, trial)
        if trial.is_finished():
            for epoch, loss in enumerate(trial.last_result["val_losses"], 1):
                self.on_trial_result(tune_controller, trial, {"epoch": epoch, "val_loss": loss})


def number_of(trial_id: str) -> int:
    """The place of a trial in the search, from 0."""
    return int(trial_id.split("_")[-1])


def train(config: dict[str, Any], hparams: Namespace) -> None:
    """One trial."""
    own = Namespace(**vars(hparams), **config)
    seed_everything(hparams.seed)  # the weights that it begins with
    trainer = Trainer.from_args(
        own,
        default_save_path=Path(hparams.folder) / f"trial_{number_of(tune.get_context().get_trial_id())}",
        callbacks=[Reporting()],
        resume="auto",
        checkpoint_callback=None,
    )
    trainer.fit(Digits(own))


def build_tuner(hparams: Namespace) -> tune.Tuner:
    """The search, or what is left of it."""
    trainable = tune.with_parameters(train, hparams=hparams)
    if tune.Tuner.can_restore(hparams.folder):
        return tune.Tuner.restore(hparams.folder, trainable, resume_errored=True)
    config = tune.TuneConfig(
        metric="val_loss",
        mode="min",
        num_samples=hparams.nb_trials,
        search_alg=BasicVariantGenerator(max_concurrent=hparams.nb_at_once, random_state=hparams.seed),
        scheduler=Halving("epoch", max_t=hparams.max_nb_epochs, reduction_factor=2, stop_last_trials=False),
        reuse_actors=True,
    )
    folder = Path(hparams.folder)
    return tune.Tuner(
        trainable,
        param_space={"learning_rate": tune.loguniform(1e-4, 1e-1), "width": tune.choice([16, 64])},
        tune_config=config,
        run_config=tune.RunConfig(
            name=folder.name, storage_path=str(folder.parent), failure_config=tune.FailureConfig(max_failures=3)
        ),
    )


def main(hparams: Namespace) -> None:
    hparams.folder = os.path.abspath(hparams.folder)  # trials run in folders of their own
    results = build_tuner(hparams).fit()
    for result in sorted(results, key=lambda result: result.metrics["trial_id"]):
        number, epochs = number_of(result.metrics["trial_id"]), f"{result.metrics['epoch']} epochs"
        print(f"trial {number:<9} {epochs} {result.metrics['val_loss']:.3f} {result.config}")
    print(f"best            {number_of(results.get_best_result().metrics['trial_id'])}")


if __name__ == "__main__":
    root_dir = os.path.dirname(os.path.realpath(__file__))

    parser = ArgumentParser(usage="%(prog)s [--option value ...]", formatter_class=ArgumentDefaultsHelpFormatter)
    add_default_args(parser, root_dir)
    parser.add_argument("--nb_trials", default=8, type=int, help="trials of the whole search")
    parser.add_argument("--nb_at_once", default=1, type=int, help="trials that run at once")
    parser.add_argument("--batch_size", default=64, type=int, help="digits in a batch")
    parser.add_argument("--nb_digits", default=2000, type=int, help="how many are trained on")
    parser.add_argument("--data_root", default=os.path.join(root_dir, "mnist"), type=str, help="folder of the digits")
    parser.add_argument("--folder", default="tune", type=str, help="folder of the search and of its runs")
    parser.set_defaults(max_nb_epochs=4, seed=1, progress_bar=False, print_weights_summary=False)
    main(parser.parse_args())
