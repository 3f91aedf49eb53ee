"""A search with Optuna, which goes on after it was killed: finished trials are kept, and the one that ran is resumed.

``python search.py`` tries learning rates and widths of a network that reads digits, and ends trials early that do worse
than the others did. Start it several times, in one folder, to run several trials at once. Needs ``pip install optuna``
(the extra ``optuna`` of this library). Minutes on a CPU.
"""

import fcntl
import os
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import torch.nn.functional as F
from optuna.trial import TrialState
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer, add_default_args, seed_everything
from pytorch_lightning.callbacks import OptunaPruning
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
        return {"val_acc": (self.network(images).argmax(1) == labels).float().mean()}

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


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """A scope that one program at a time is in. The lock goes with the program, also where that is killed."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_running(path: Path) -> bool:
    """Whether a program is in that scope."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def enqueue_again(study: optuna.Study, folder: Path) -> None:
    """Trials whose program was killed fail; others take their parameters, and resume their fits."""
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        if not is_running(folder / f"trial_{trial.number}.lock"):
            study.tell(trial.number, state=TrialState.FAIL)
            run = trial.user_attrs.get("run", f"trial_{trial.number}")
            study.enqueue_trial(trial.params, user_attrs={"run": run})


def train(trial: optuna.Trial, hparams: Namespace) -> float:
    """One trial: the accuracy at its end."""
    own = Namespace(**vars(hparams))
    own.learning_rate = trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
    own.width = trial.suggest_categorical("width", [16, 64])
    seed_everything(hparams.seed)  # the weights that it begins with
    run = trial.user_attrs.get("run", f"trial_{trial.number}")
    pruning = OptunaPruning(trial, monitor="val_acc")
    trainer = Trainer.from_args(
        own, default_save_path=Path(hparams.folder) / run, callbacks=[pruning], resume="auto", checkpoint_callback=None
    )
    trainer.fit(Digits(own))
    return trainer.metrics["val_acc"]


def main(hparams: Namespace) -> None:
    folder = Path(hparams.folder)
    folder.mkdir(exist_ok=True)
    while True:
        with locked(folder / "search.lock"):
            study = optuna.create_study(
                storage=f"sqlite:///{folder / 'search.db'}",
                study_name="digits",
                load_if_exists=True,
                direction="maximize",
                pruner=optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=1),
            )
            enqueue_again(study, folder)
            begun = study.get_trials(states=[TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING])
            if len(begun) >= hparams.nb_trials:
                break
            trial = study.ask()
            lock = locked(folder / f"trial_{trial.number}.lock")
            lock.__enter__()
        try:
            study.tell(trial, train(trial, hparams))
        except optuna.TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)
        finally:
            lock.__exit__(None, None, None)

    for trial in study.get_trials(states=[TrialState.COMPLETE, TrialState.PRUNED]):
        print(f"trial {trial.number:<9} {trial.state.name:<8} {trial.value:.3f} {trial.params}")
    if study.get_trials(states=[TrialState.COMPLETE]):
        print(f"best            {study.best_trial.number}")


if __name__ == "__main__":
    root_dir = os.path.dirname(os.path.realpath(__file__))

    parser = ArgumentParser(usage="%(prog)s [--option value ...]", formatter_class=ArgumentDefaultsHelpFormatter)
    add_default_args(parser, root_dir)
    parser.add_argument("--nb_trials", default=10, type=int, help="trials of the whole search")
    parser.add_argument("--batch_size", default=64, type=int, help="digits in a batch")
    parser.add_argument("--nb_digits", default=2000, type=int, help="how many are trained on")
    parser.add_argument("--data_root", default=os.path.join(root_dir, "mnist"), type=str, help="folder of the digits")
    parser.add_argument("--folder", default="search", type=str, help="folder of the study and of its runs")
    parser.set_defaults(max_nb_epochs=4, seed=1)
    main(parser.parse_args())
