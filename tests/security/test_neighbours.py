"""Libraries that look for another one of this import name, installed beside it: they do no harm, and work.

Each is the real one, in a python of its own, since some change what is imported after them. A fit with them gives the
weights of a fit without, bit for bit.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.neighbours

OFFLINE = {
    "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db",
    "HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9",  # no server answers there
    "WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true", "RAY_USAGE_STATS_ENABLED": "0",
}  # fmt: skip

MODEL = '''
import torch
from torch.utils.data import DataLoader, TensorDataset
from pytorch_lightning import LightningModule, Trainer


class Model(LightningModule):
    """Five numbers that learn to be 0."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.layer = torch.nn.Linear(4, 1)

    def forward(self, x):
        return self.layer(x)

    def training_step(self, data_batch, batch_nb):
        return {"loss": self(data_batch[0]).pow(2).mean()}

    def validation_step(self, data_batch, batch_nb):
        return self(data_batch[0]).pow(2).mean()

    def validation_end(self, outputs):
        return {"val_loss": torch.stack(outputs).mean().item()}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    @property
    def tng_dataloader(self):
        data = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
        return DataLoader(TensorDataset(data), batch_size=4, shuffle=True)

    @property
    def val_dataloader(self):
        return DataLoader(TensorDataset(torch.ones(8, 4)), batch_size=4)


def fit(model, **options):
    trainer = Trainer(max_nb_epochs=2, seed=3, **{"progress_bar": False, "print_weights_summary": False, **options})
    assert trainer.fit(model) == 1
    return trainer


def weights(model):
    return [number for value in model.layer.parameters() for number in value.flatten().tolist()]
'''


def needs(*names: str) -> None:
    for name in names:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f'{name} isn\'t installed: pip install -e ".[neighbours]"')


def run(program: str, folder: Path) -> tuple[Any, str]:
    """What ``program`` prints last, as JSON, and all that it prints. ``model.py`` lies beside it."""
    (folder / "model.py").write_text(MODEL)
    (folder / "train.py").write_text(program)
    root = str(Path(__file__).parent.parent.parent)
    environment = {**os.environ, **OFFLINE, "PYTHONPATH": root}
    command = [sys.executable, "train.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "installed together" not in done.stderr  # lightning-utilities is no namesake
    return json.loads(done.stdout.splitlines()[-1]), done.stdout + done.stderr


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The weights of a fit without neighbours."""
    program = "import json\nfrom model import *\nmodel = Model()\nfit(model)\nprint(json.dumps(weights(model)))"
    found = run(program, tmp_path_factory.mktemp("alone"))[0]
    assert len(found) == 5
    return found  # type: ignore[no-any-return]


# ------------------------------------------------------------------ mlflow
@pytest.mark.parametrize("first", ["mlflow", "this"])
def test_autolog_of_mlflow_leaves_the_fit_alone(first: str, tmp_path: Path, alone: list[float]) -> None:
    """It warns in one line that it can't log a Trainer that isn't the one it knows, and changes nothing."""
    needs("mlflow", "sqlalchemy")
    imports = ["import mlflow\nmlflow.autolog()", "from model import *\noriginal = vars(Trainer)['fit']"]
    program = "\n".join(imports if first == "mlflow" else imports[::-1])
    told, shown = run(
        f"""
import json
{program}
model = Model()
with mlflow.start_run() as run:
    fit(model)
data = mlflow.get_run(run.info.run_id).data
print(json.dumps([weights(model), dict(data.metrics), dict(data.params), vars(Trainer)["fit"] is original]))
""",
        tmp_path,
    )
    assert told == [alone, {}, {}, True]
    warnings = [line for line in shown.splitlines() if "WARNING mlflow" in line]
    assert len(warnings) == 1
    assert "autologging for pytorch_lightning" in warnings[0]


def test_autolog_of_mlflow_can_be_skipped(tmp_path: Path, alone: list[float]) -> None:
    needs("mlflow", "sqlalchemy")
    told, shown = run(
        """
import json
import mlflow
mlflow.autolog(exclude_flavors=["pytorch"])
from model import *
model = Model()
fit(model)
print(json.dumps(weights(model)))
""",
        tmp_path,
    )
    assert told == alone
    assert "WARNING" not in shown


def test_the_autolog_of_mlflow_for_pytorch_is_an_error_and_nothing_is_changed(
    tmp_path: Path, alone: list[float]
) -> None:
    needs("mlflow", "sqlalchemy")
    told, _ = run(
        """
import json
import mlflow.pytorch
from model import *
original = vars(Trainer)["fit"]
try:
    mlflow.pytorch.autolog()
    error = None
except ImportError as raised:
    error = str(raised)
model = Model()
fit(model)
print(json.dumps([weights(model), vars(Trainer)["fit"] is original, error]))
""",
        tmp_path,
    )
    assert told[:2] == [alone, True]
    assert "pytorch_lightning" in told[2]


def test_rows_go_to_mlflow_through_a_logger(tmp_path: Path, alone: list[float]) -> None:
    needs("mlflow", "sqlalchemy")
    told, _ = run(
        """
import json
import mlflow
from model import *
from pytorch_lightning.loggers import Logger


class MLflowLogger(Logger):
    folder = version = None

    def log_hyperparams(self, hparams):
        mlflow.log_params(hparams)

    def log_metrics(self, metrics, step):
        mlflow.log_metrics(metrics, step=step)

    def save(self):
        pass

    def close(self):
        pass


model = Model()
with mlflow.start_run() as run:
    trainer = fit(model, experiment=MLflowLogger(), add_log_row_interval=5)
    mlflow.pytorch.log_model(model, name="model", serialization_format="pickle")
history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "val_loss")
again = mlflow.pytorch.load_model(f"runs:/{run.info.run_id}/model")
print(json.dumps([weights(model), weights(again), [(m.step, m.value) for m in history], trainer.tqdm_metrics]))
""",
        tmp_path,
    )
    assert told[0] == told[1] == alone
    assert [step for step, _ in told[2]] == [9, 19]  # of the last batch before each validation
    assert told[2][-1][1] == pytest.approx(told[3]["val_loss"])


# ------------------------------------------------------------------ wandb
def test_a_watched_model_of_wandb_trains_as_before(tmp_path: Path, alone: list[float]) -> None:
    needs("wandb")
    told, _ = run(
        """
import json
import wandb
from model import *
from pytorch_lightning.loggers import Logger


class WandbLogger(Logger):
    folder = version = None

    def log_hyperparams(self, hparams):
        run.config.update(hparams)

    def log_metrics(self, metrics, step):
        rows.append(step)
        run.log(metrics, step=step)

    def save(self):
        pass

    def close(self):
        pass


if __name__ == "__main__":
    rows, model = [], Model()
    run = wandb.init(project="neighbours")
    run.watch(model, log="all", log_freq=1)
    fit(model, experiment=WandbLogger(), add_log_row_interval=5, save_every_nb_batches=3, resume="auto")
    summary = dict(run.summary)
    run.finish()
    print(json.dumps([weights(model), sorted(set(rows)), sorted(summary)]))
""",
        tmp_path,
    )
    assert told[0] == alone
    assert told[1][-1] == 19
    assert {"tng_loss", "val_loss", "parameters/layer.weight", "gradients/layer.weight"} <= set(told[2])
    assert list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))


def test_a_run_of_wandb_in_the_model_survives_saves_copies_and_processes(tmp_path: Path) -> None:
    needs("wandb")
    told, _ = run(
        """
import copy
import json
import wandb
from model import *


class Watched(Model):
    def on_epoch_end(self):
        if self.trainer.proc_rank == 0 and wandb.run is not None:
            wandb.log({"epoch": self.current_epoch})


if __name__ == "__main__":
    found = []
    for options in ({"virtual_ranks": 2}, {"nb_processes": 2}):
        run = wandb.init(project="neighbours")
        model = Watched()
        fit(model, save_every_nb_batches=3, **options)
        run.finish()
        found.append(weights(copy.deepcopy(model)))
    print(json.dumps(found))
""",
        tmp_path,
    )
    assert told[0] == told[1]


# ------------------------------------------------------------------ optuna
def test_optuna_prunes_through_a_callback(tmp_path: Path, alone: list[float]) -> None:
    needs("optuna")
    told, _ = run(
        """
import json
import optuna
from model import *
from pytorch_lightning.callbacks import Callback


class Prune(Callback):
    def __init__(self, trial):
        self.trial = trial

    def on_validation_end(self, run, metrics):
        self.trial.report(metrics["val_loss"], run.progress.epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned


class Tuned(Model):
    def __init__(self, lr):
        super().__init__()
        self.lr = lr

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


def objective(trial):
    model = Tuned(trial.suggest_categorical("lr", [0.1, 10.0, 0.05]))
    trainer = fit(model, callbacks=[Prune(trial)], nb_sanity_val_steps=0, stop_on_nan=False)
    trial.set_user_attr("weights", weights(model))
    return trainer.tqdm_metrics["val_loss"]


sampler = optuna.samplers.GridSampler({"lr": [0.1, 10.0, 0.05]}, seed=0)
study = optuna.create_study(sampler=sampler, pruner=optuna.pruners.ThresholdPruner(upper=100.0))
study.optimize(objective, n_trials=3)
print(json.dumps([(t.params["lr"], t.state.name, t.user_attrs.get("weights")) for t in study.trials]))
""",
        tmp_path,
    )
    by_rate = {lr: (state, weights) for lr, state, weights in told}
    assert by_rate[0.1] == ("COMPLETE", alone)
    assert by_rate[10.0] == ("PRUNED", None)
    assert by_rate[0.05][0] == "COMPLETE"


def test_optuna_prunes_by_what_one_of_several_processes_raises(tmp_path: Path) -> None:
    needs("optuna")
    told, _ = run(
        """
import json
import optuna
from model import *


class Tuned(Model):
    def __init__(self, lr):
        super().__init__()
        self.lr = lr

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)

    def training_step(self, data_batch, batch_nb):
        output = super().training_step(data_batch, batch_nb)
        if self.trainer.proc_rank == 1 and output["loss"] > 100.0:
            raise optuna.TrialPruned(f"in step {self.global_step}")
        return output


def objective(trial):
    model = Tuned(trial.suggest_categorical("lr", [0.1, 10.0]))
    try:
        return fit(model, nb_processes=2).tqdm_metrics["val_loss"]
    except optuna.TrialPruned as error:
        trial.set_user_attr("error", [str(error), type(error.__cause__).__name__])
        raise


if __name__ == "__main__":
    study = optuna.create_study(sampler=optuna.samplers.GridSampler({"lr": [0.1, 10.0]}, seed=0))
    study.optimize(objective, n_trials=2)
    print(json.dumps([(t.params["lr"], t.state.name, t.user_attrs.get("error")) for t in study.trials]))
""",
        tmp_path,
    )
    by_rate = {lr: (state, error) for lr, state, error in told}
    assert by_rate[0.1] == ("COMPLETE", None)
    state, (text, cause) = by_rate[10.0]
    assert (state, cause) == ("PRUNED", "ProcessError")
    assert text.startswith("in step ")


def test_the_callback_of_optuna_for_the_other_library_says_what_it_needs(tmp_path: Path) -> None:
    needs("optuna", "optuna_integration")
    told, _ = run(
        """
import json
import optuna
from model import *
from optuna_integration.pytorch_lightning import PyTorchLightningPruningCallback
try:
    PyTorchLightningPruningCallback(None, monitor="val_loss")
    error = None
except ImportError as raised:
    error = str(raised)
fit(Model())
print(json.dumps(error))
""",
        tmp_path,
    )
    assert "lightning" in told


# ------------------------------------------------------------------ torchmetrics
def test_metrics_of_torchmetrics_count_each_sample_once(tmp_path: Path, alone: list[float]) -> None:
    """On one process and on two; and a copied or loaded module has its own."""
    needs("torchmetrics")
    told, _ = run(
        """
import copy
import json
import torchmetrics
from model import *
from pytorch_lightning.callbacks import ModelCheckpoint


class Measured(Model):
    def __init__(self):
        super().__init__()
        self.tng_error, self.val_error = torchmetrics.MeanMetric(), torchmetrics.MeanMetric()
        self.seen = torchmetrics.MetricCollection({"sum": torchmetrics.SumMetric(), "max": torchmetrics.MaxMetric()})

    def training_step(self, data_batch, batch_nb):
        self.seen.update(data_batch[0].sum())
        self.tng_error.update(self(data_batch[0]).detach().abs())
        return super().training_step(data_batch, batch_nb)

    def validation_step(self, data_batch, batch_nb):
        self.val_error.update(self(data_batch[0]).abs())
        return super().validation_step(data_batch, batch_nb)

    def validation_end(self, outputs):
        found = self.val_error.compute().item()
        self.val_error.reset()
        return {"val_error": found}

    def on_epoch_end(self):
        epochs.append([self.tng_error.compute().item(), self.seen.compute()["sum"].item()])
        self.tng_error.reset()
        self.seen.reset()


epochs = []
if __name__ == "__main__":
    model = Measured()
    trainer = fit(model, checkpoint_callback=ModelCheckpoint("checkpoints"))
    loaded = Measured.load_from_checkpoint("checkpoints/_ckpt_epoch_2.ckpt")
    one, two = ({}, {})
    for found, options in ((one, {"virtual_ranks": 2}), (two, {"nb_processes": 2})):
        other = Measured()
        found["val_error"] = fit(other, **options).tqdm_metrics["val_error"]
        found["weights"] = weights(other)
    data = next(iter(DataLoader(model.tng_dataloader.dataset, batch_size=40)))[0]
    print(json.dumps([weights(model), weights(copy.deepcopy(loaded)), epochs[:2], data.sum().item(), one, two]))
""",
        tmp_path,
    )
    trained, loaded, epochs, total, one, two = told
    assert trained == loaded == alone
    assert [seen for _, seen in epochs] == pytest.approx([total, total], rel=1e-5)
    assert epochs[0][0] > epochs[1][0] > 0
    assert one["weights"] == two["weights"]
    assert one["val_error"] == pytest.approx(two["val_error"], rel=1e-6)


# ------------------------------------------------------------------ ray
@pytest.mark.ray
@pytest.mark.parametrize("module", ["ray.train.lightning", "ray.tune.integration.pytorch_lightning"])
def test_what_ray_has_for_the_other_library_is_an_import_error(module: str, tmp_path: Path, alone: list[float]) -> None:
    needs("ray")
    told, _ = run(
        f"""
import importlib
import json
from model import *
try:
    importlib.import_module("{module}")
    error = None
except ImportError as raised:
    error = str(raised)
model = Model()
fit(model)
print(json.dumps([weights(model), error]))
""",
        tmp_path,
    )
    assert told[0] == alone
    assert "pytorch_lightning" in told[1]


# ------------------------------------------------------------------ all at once
def test_all_of_them_in_one_program(tmp_path: Path, alone: list[float]) -> None:
    needs("mlflow", "sqlalchemy", "wandb", "optuna", "torchmetrics")
    told, _ = run(
        """
import json
import mlflow
import optuna
import torchmetrics
import wandb

mlflow.autolog(silent=True)
from model import *

if __name__ == "__main__":
    found = []
    for options in ({}, {"nb_processes": 2, "virtual_ranks": 2}):
        model = Model()
        with mlflow.start_run(), wandb.init(project="neighbours"):
            study = optuna.create_study()
            study.optimize(lambda trial: fit(model, **options).tqdm_metrics["val_loss"], n_trials=1)
        found.append(weights(model))
    print(json.dumps(found))
""",
        tmp_path,
    )
    assert told[0] == alone
    assert told[1] != alone  # two samples where there was one
