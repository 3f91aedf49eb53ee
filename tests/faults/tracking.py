"""A program that logs to W&B (offline), MLflow (sqlite), TensorBoard and CSV at once, and what each of them holds."""

import csv
import json
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

NB_BATCHES, EVERY = 20, 2
OFFLINE = {
    "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "WANDB_MODE": "offline", "WANDB_SILENT": "true",
    "WANDB_ERROR_REPORTING": "false", "HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9",
}  # fmt: skip


def batches() -> list[Tensor]:
    return list(torch.randn(NB_BATCHES, 8, 4, generator=torch.Generator().manual_seed(0)))


def layer() -> torch.nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return torch.nn.Linear(4, 1)


def by_hand(nb_epochs: int) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """The losses of the batches that have a row, and of the validations: a loop without a library."""
    model, data = layer(), batches()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses, validations = list[tuple[int, float]](), list[tuple[int, float]]()
    for epoch in range(nb_epochs):
        for i, batch in enumerate(data):
            loss = (model(batch) - batch.sum(1, keepdim=True)).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if i % EVERY == 0:
                losses.append((epoch * NB_BATCHES + i, loss.item()))
        with torch.no_grad():
            found = (model(data[0]) - data[0].sum(1, keepdim=True)).pow(2).mean().item()
        validations.append(((epoch + 1) * NB_BATCHES - 1, found))
    return losses, validations


def train(folder: str, nb_epochs: int, nb_processes: int = 1, pause: float = 0.0) -> None:
    """The program: it resumes where it was."""
    os.environ.update(OFFLINE)
    from pytorch_lightning import LightningModule, Trainer
    from pytorch_lightning.loggers import CSVLogger, MLflowLogger, TensorBoardLogger, WandbLogger

    class Model(LightningModule):
        def __init__(self) -> None:
            super().__init__({"lr": 0.05})
            self.layer = layer()

        def loss(self, batch: Tensor) -> Tensor:
            return (self.layer(batch) - batch.sum(1, keepdim=True)).pow(2).mean()

        def training_step(self, data_batch: Tensor, batch_nb: int) -> Any:
            time.sleep(pause)
            loss = self.loss(data_batch)
            return {"loss": loss, "prog": {"now": loss}}

        def validation_step(self, data_batch: Tensor, batch_nb: int) -> Any:
            return self.loss(data_batch)

        def validation_end(self, outputs: Any) -> Any:
            return {"val_loss": outputs[0].item()}

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.05)

        @property
        def tng_dataloader(self) -> Any:
            return batches()

        @property
        def val_dataloader(self) -> Any:
            return batches()[:1]

    loggers: list[Any] = [
        CSVLogger(folder, "csv"),
        TensorBoardLogger(folder, "tb"),
        WandbLogger(folder, "wandb"),
        MLflowLogger(folder, "mlflow", tracking_uri=f"sqlite:///{folder}/mlflow.db", experiment="kills"),
    ]
    trainer = Trainer(
        loggers,
        max_nb_epochs=nb_epochs,
        add_log_row_interval=EVERY,
        log_save_interval=4,
        save_every_nb_batches=3,
        nb_sanity_val_steps=0,
        default_save_path=folder,
        progress_bar=False,
        print_weights_summary=False,
        crash_bundle=False,
        resume="auto",
    )
    assert trainer.fit(Model()) == 1
    Path(folder, "end").touch()


# ------------------------------------------------------------------ what each of them holds
def records(path: Path) -> Iterator[Any]:
    """The records of a file of W&B, as its own message types: after 7 bytes blocks of 32 KiB, as LevelDB's logs."""
    from wandb.proto import wandb_internal_pb2

    data, place, text = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, size, kind = struct.unpack("<IHB", data[place : place + 7])
        text += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # a whole one, the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(text)
            yield record
            text = b""


def in_wandb(folder: Path) -> tuple[set[str], list[dict[str, float]], dict[str, Any]]:
    """The ids of the runs, their rows, and the hyperparameters. What was put aside isn't looked at."""
    ids, rows, hparams = set[str](), list[dict[str, float]](), dict[str, Any]()
    for path in sorted(folder.glob("*/version_*/wandb/*run-*/run-*.wandb")):
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                ids.add(record.run.run_id)
            updates = record.run.config if kind == "run" else record.config
            if kind in ("run", "config"):
                hparams.update({update.key: json.loads(update.value_json) for update in updates.update})
            if kind == "history":
                names = ((item.key or ".".join(item.nested_key), item.value_json) for item in record.history.item)
                rows.append({name: json.loads(value) for name, value in names})
    return ids, rows, hparams


def in_mlflow(folder: Path, experiment: str, names: tuple[str, ...]) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """How many runs there are, the points of ``names`` in one, and its parameters and tags."""
    os.environ.update(OFFLINE)
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id]) if found is not None else []
    if not runs:
        return 0, {}, {}
    points = {
        name: sorted((p.step, p.value) for p in client.get_metric_history(runs[0].info.run_id, name)) for name in names
    }
    return len(runs), points, {**runs[0].data.params, **runs[0].data.tags}


def in_csv(folder: Path, name: str) -> list[tuple[int, float]]:
    (path,) = folder.glob("csv/version_*/metrics.csv")
    with open(path, newline="") as file:
        return [(int(row["global_step"]), float(row[name])) for row in csv.DictReader(file) if row.get(name)]


def check_all(folder: Path, nb_epochs: int) -> None:
    """One run in each of the four, with the points of a hand-written loop: none twice, none missing."""
    from tests.faults.logging_by_lot import points_in

    losses, validations = by_hand(nb_epochs)
    assert in_csv(folder, "now") == losses
    assert in_csv(folder, "val_loss") == validations
    (events,) = folder.glob("tb/version_*/tf")
    shown = points_in(events, folder / "scratch")
    near = [(step, struct.unpack("f", struct.pack("f", value))[0]) for step, value in losses]
    assert shown["now"] == near
    ids, rows, hparams = in_wandb(folder)
    assert len(ids) == 1
    assert [row["_row"] for row in rows] == list(range(len(rows)))
    assert [(row["global_step"], row["now"]) for row in rows if "now" in row] == losses
    assert [(row["global_step"], row["val_loss"]) for row in rows if "val_loss" in row] == validations
    assert hparams["lr"] == 0.05
    nb, points, about = in_mlflow(folder, "kills", ("now", "val_loss"))
    assert nb == 1
    assert points == {"now": losses, "val_loss": validations}
    assert about["lr"] == "0.05"
