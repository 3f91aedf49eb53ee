"""Programs with several loggers, made by lot, and what they leave behind: what tells two of them apart is in a draw."""

import csv
import json
import os
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from pytorch_lightning import LightningModule
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from tests.faults.surroundings import wait_for_saves

NB, SIZE, NB_BATCHES, NB_EPOCHS = 22, 3, 8, 3
"""Eight batches an epoch; the last one holds one sample."""

LOGGERS = ("tt", "csv", "tb", "own", "plain")
"""A test-tube Experiment, two of the package's, one with state and one without."""
LOADERS = ("in order", "shuffle", "stream", "list")
ENDS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "usr1": signal.SIGUSR1, "int": signal.SIGINT, "raise": None}
CODES = {"kill": -signal.SIGKILL, "term": 75, "usr1": 75, "int": 3, "raise": 1}
POINTS = {
    "batch.run": 20, "update.begin": 20, "update.end": 20, "epoch.trained": 3, "epoch.end": 3, "validation.begin": 5,
    "validation.end": 5, "rolling.save": 8, "writer.copied": 8, "write.begin": 8, "write.synced": 8, "write.renamed": 8,
    "store.prune": 6, "store.replace": 1, "rows.rewritten": 4, "rows.columns": 9, "rows.written": 9, "fit.end": 1,
}  # fmt: skip


def draw(seed: int) -> dict[str, Any]:
    """All that a program is made of, as plain data."""
    lot = random.Random(seed)
    kinds = lot.sample(LOGGERS, lot.choice((2, 3, 4, 5, 5)))
    made: dict[str, Any] = {
        "seed": seed,
        "loggers": {kind: lot.choice((0, None)) for kind in kinds},
        "autosave": lot.random() < 0.2,
        "turns": lot.random() < 0.3,
        "by_hand": lot.random() < 0.5,
        "in_step": lot.random() < 0.3,
        "earlier": lot.sample(("tt", "csv", "tb"), lot.choice((0, 0, 1, 2))),
        "new_columns": lot.random() < 0.5,
        "schedule": lot.choice(("none", "step", "epoch", "plateau")),
        "loader": lot.choice(LOADERS),
        "validates": lot.choice((0.0, 0.34, 0.5, 1.0)),
        "keeps": lot.choice((None, 1, 2, -1)),
        "early": lot.random() < 0.3,
        "waits": lot.random() < 0.6,
        "options": {
            "accumulate_grad_batches": lot.choice((1, 1, 2, 3)),
            "virtual_ranks": lot.choice((None, None, 2)),
            "save_every_nb_batches": lot.choice((None, 1, 2, 3, 5)),
            "add_log_row_interval": lot.choice((1, 2, 3, 5)),
            "log_save_interval": lot.choice((1, 2, 4, 100)),
            "track_grad_norm": lot.choice((-1, 1, 2)),
            "gradient_clip": lot.choice((0, 0.1)),
            "nb_sanity_val_steps": lot.choice((0, 2)),
            "max_nb_epochs": NB_EPOCHS,
        },
        "cuts": [],
    }
    made["workers"] = 0 if made["loader"] == "list" else lot.choice((0, 0, 0, 2))
    if not made["validates"]:
        made |= {"keeps": None, "early": False}
        made["schedule"] = "step" if made["schedule"] == "plateau" else made["schedule"]
    elif made["loader"] == "stream":
        made["validates"] = 1.0  # a fraction of an unknown length isn't defined
    for _ in range(lot.choice((1, 1, 2, 3))):
        where = lot.choice(("after", "after", "inside", "validation", "point"))
        if where == "point":
            point = lot.choice(sorted(POINTS))
            made["cuts"].append(("point", "kill", f"{point}:{lot.randint(1, POINTS[point])}"))
        else:
            made["cuts"].append((where, lot.choice([*ENDS]), lot.randrange(1, NB_BATCHES * NB_EPOCHS)))
    return made


class Cut:
    """Where this start ends: a place, a way and a batch."""

    place, way, at = "", "", -1

    @classmethod
    def here(cls, place: str, step: int) -> None:
        # a validation comes when it is due
        if place != cls.place or (step < cls.at if place == "validation" else step != cls.at):
            return
        cls.place = ""
        if ENDS[cls.way] is None:
            raise KeyError("cut")
        os.kill(os.getpid(), ENDS[cls.way])


class Points(Dataset[Any]):
    def __init__(self, nb: int, augments: bool) -> None:
        self.x = torch.randn(nb, 5, generator=torch.Generator().manual_seed(nb))
        self.y, self.augments = self.x[:, :3].argmax(dim=1), augments

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.x[i] + (0.1 * torch.randn(5) if self.augments else 0.0), self.y[i]


class Stream(IterableDataset[Any]):
    def __init__(self) -> None:
        self.data = Points(NB, True)

    def __iter__(self) -> Iterator[Any]:
        info = torch.utils.data.get_worker_info()
        return map(self.data.__getitem__, range(0 if info is None else info.id, NB, 1 if info is None else 2))


class Logged(LightningModule):
    """Reports numbers by every way that there is."""

    def __init__(self, made: dict[str, Any]) -> None:
        super().__init__({"lr": 0.02, "note": "a, b"})
        self.made = made
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.2))
            self.head = nn.Linear(6, 3)

    def loss(self, data_batch: Any) -> Tensor:
        x, y = data_batch
        if len(x) == 1:
            x, y = torch.cat([x, -x]), torch.cat([y, y])  # batch normalization needs two
        return F.cross_entropy(self.head(self.body(x)), y)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        if self.made["waits"]:
            wait_for_saves()
        Cut.here("inside", self.global_step)
        loss = self.loss(data_batch)
        if self.made["in_step"] and self.global_step % 2:
            self.experiment.log({"in the step": 0.25 * self.global_step})
            if hasattr(self.experiment, "metrics"):
                self.experiment.add_scalar("in step", 1.0 * self.global_step, 5000 + 8 * self.global_step)
        prog: dict[str, Any] = {"half": loss / 2, "part/size": float(len(data_batch[0]))}
        if self.made["new_columns"] and self.global_step % 5 == 3:
            prog[f"seldom {self.global_step // 6}"] = self.global_step
        return {"loss": loss, "prog": prog}

    def update_tng_log_metrics(self, logs: dict[str, Any]) -> dict[str, Any]:
        return {**logs, "drawn": float(torch.rand(()))} if self.made["by_hand"] else logs

    def configure_optimizers(self) -> Any:
        of = torch.optim.lr_scheduler
        optimizers: list[Any] = [torch.optim.Adam(self.body.parameters(), 0.02)]
        optimizers.append(torch.optim.SGD(self.head.parameters(), 0.05, momentum=0.9))
        schedules: dict[str, list[Any]] = {
            "none": [],
            "step": [{"scheduler": of.StepLR(optimizers[0], 4, 0.7), "interval": "step"}],
            "epoch": [of.StepLR(optimizers[1], 1, 0.5)],
            "plateau": [of.ReduceLROnPlateau(optimizers[1], factor=0.5, patience=0, threshold=0.2)],
        }
        return optimizers, schedules[self.made["schedule"]]

    @property
    def tng_dataloader(self) -> Any:
        kind, workers = self.made["loader"], self.made["workers"]
        if kind == "list":
            data = Points(NB, False)
            return list(DataLoader(TensorDataset(data.x, data.y), SIZE))
        if kind == "stream":
            return DataLoader(Stream(), SIZE, num_workers=workers)
        return DataLoader(Points(NB, True), SIZE, shuffle=kind == "shuffle", num_workers=workers)


class Turns(Logged):
    def training_step(self, data_batch: Any, batch_nb: int, optimizer_i: int) -> Any:  # type: ignore[override]
        made = super().training_step(data_batch, batch_nb)
        return made if optimizer_i == 0 else {**made, "loss": made["loss"] + self.head.bias.pow(2).sum()}


def with_hooks(base: type[Logged], made: dict[str, Any]) -> type[Logged]:
    """The class with the hooks that its draw has. Where there are none a window that fails is taken back."""

    class Model(base):  # type: ignore[valid-type, misc]
        if made["by_hand"]:

            def on_batch_end(self) -> None:
                step = self.global_step
                if step % 3 == 1:
                    self.experiment.log({"mine": 0.5 * step})
                if hasattr(self.experiment, "metrics"):  # an axis of its own
                    self.experiment.add_scalar("samples", 1.0 * step, 1000 + 8 * step)

            def on_epoch_end(self) -> None:
                self.experiment.log({"at the end": float(self.head.bias.sum())})

        if made["validates"]:

            def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
                Cut.here("validation", self.global_step)
                return self.loss(data_batch) + 0.01 * torch.rand(())

            def validation_end(self, outputs: Any) -> Any:
                return {"val_loss": torch.stack(outputs).mean(), "val/nb": len(outputs)}

            @property
            def val_dataloader(self) -> Any:
                return DataLoader(Points(10, False), 4)

    Model.__name__ = "Model"
    return Model


class Own(Logger):
    """Rows as lines of JSON, which it holds back until ``save``; it knows how many there were at a save."""

    folder = version = None

    def __init__(self, path: Path) -> None:
        self.path, self.rows, self.written = path, list[str](), 0

    def log_hyperparams(self, hparams: dict[str, Any]) -> None:
        self.path.with_suffix(".hparams").write_text(json.dumps(hparams))

    def log_metrics(self, metrics: dict[str, Any], step: int) -> None:
        self.rows.append(json.dumps([step, metrics]))

    def save(self) -> None:
        with open(self.path, "a") as file:
            file.writelines(f"{row}\n" for row in self.rows[self.written :])
        self.written = len(self.rows)

    def close(self) -> None:
        self.save()

    def state_dict(self) -> dict[str, Any]:
        return {"rows": len(self.rows)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = self.path.read_text().splitlines()[: state["rows"]]
        self.path.write_text("")
        self.save()


class Plain(Logger):
    """Rows as lines of JSON, at once, and no state."""

    folder = version = None

    def __init__(self, path: Path) -> None:
        self.path = path

    def log_hyperparams(self, hparams: dict[str, Any]) -> None:
        pass

    def log_metrics(self, metrics: dict[str, Any], step: int) -> None:
        with open(self.path, "a") as file:
            file.write(f"{json.dumps([step, metrics])}\n")

    def save(self) -> None:
        pass

    def close(self) -> None:
        pass


class Cutting(Callback):
    """Ends the program, or the fit, after a batch."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def on_batch_end(self, run: Any) -> None:
        Cut.here("after", run.progress.global_step)


def loggers_of(folder: Path, made: dict[str, Any]) -> list[Any]:
    from test_tube import Experiment

    paths = {name: folder / f"{name}.jsonl" for name in ("own", "plain")}
    kinds: dict[str, Any] = {
        "tt": lambda version: Experiment(name="tt", save_dir=str(folder), version=version, autosave=made["autosave"]),
        "csv": lambda version: CSVLogger(folder, "csv", version),
        "tb": lambda version: TensorBoardLogger(folder, "tb", version),
        "own": lambda _: Own(paths["own"]),
        "plain": lambda _: Plain(paths["plain"]),
    }
    return [kinds[kind](version) for kind, version in made["loggers"].items()]


def train(folder: str, made: dict[str, Any], cut: tuple[str, str, int] | None = None) -> None:
    """The program: it resumes where it was. Writes what it ends with."""
    from pytorch_lightning import Trainer
    from tests.faults.killing import digest

    torch.manual_seed(3)
    if not any(Path(folder).iterdir()):
        for kind in made["earlier"]:  # versions that differ
            Path(folder, kind, "version_0").mkdir(parents=True)
    if cut is not None:
        Cut.place, Cut.way, Cut.at = cut
    model = with_hooks(Turns if made["turns"] else Logged, made)(made)
    keeps = made["keeps"]
    options = {**made["options"], "val_check_interval": made["validates"] or 1.0}
    trainer = Trainer(
        loggers_of(Path(folder), made),
        EarlyStopping("val_loss", patience=1, verbose=0) if made["early"] else None,
        None if keeps is None else ModelCheckpoint(f"{folder}/best", save_top_k=keeps),
        callbacks=[Cutting()] if cut is not None and cut[0] == "after" else [],
        seed=5,
        default_save_path=folder,
        progress_bar=False,
        print_weights_summary=False,
        crash_bundle=False,
        resume="auto",
        **options,
    )
    if trainer.fit(model) != 1:
        raise SystemExit(3)
    states = [model.state_dict(), *(o.state_dict() for o in [*trainer.optimizers, *trainer.lr_schedulers])]
    progress = trainer.progress
    assert progress is not None
    position = [progress.epoch, progress.global_step, progress.nb_optimizer_steps, progress.nb_validations]
    best = {p.name: digest(torch.load(p)["state_dict"]) for p in sorted(Path(folder).glob("best/*"))}
    end = {"state": digest(states), "position": [*position, progress.stop_reason], "best": best}
    Path(folder, "end.json").write_text(json.dumps(end))


# ------------------------------------------------------------------------------------------- what is left behind
def left_in(folder: Path, scratch: Path) -> dict[str, Any]:
    """All that must be the same, whatever happened on the way."""
    found: dict[str, Any] = json.loads((folder / "end.json").read_text())
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name == "metrics.csv":
            found[name] = rows_in(path)
        elif path.name in ("meta_tags.csv", "own.hparams"):
            found[name] = path.read_text()
        elif path.name == "tf":
            found[name] = points_in(path, scratch)
        elif path.suffix == ".jsonl":
            lines = path.read_text().splitlines()
            # one that nobody can cut back is told again what came after the save, and the same
            found[name] = lines if path.stem == "own" else list(dict.fromkeys(lines))
    # the last save replaces the others, unless the program is killed in between
    saves = sorted(folder.rglob("step-*.ckpt"))
    names = (path.relative_to(folder) for path in folder.rglob("*") if path not in saves[:-1])
    # each start begins a new file of events
    found["files"] = sorted({str(name.with_name("events") if "tfevents" in name.name else name) for name in names})
    return found


def rows_in(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return [{k: v for k, v in row.items() if k != "created_at" and v} for row in csv.DictReader(file)]


def points_in(folder: Path, scratch: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows. It takes files of one second in the order of their names, so these are numbered."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    for i, path in enumerate(sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)):
        shutil.copy(path, scratch / f"events.out.tfevents.{i:09}")
    events = EventAccumulator(str(scratch), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    scalars = {tag: sorted((e.step, e.value) for e in events.Scalars(tag)) for tag in events.Tags()["scalars"]}
    return {**scalars, **{tag: [(len(events.Tensors(tag)), 0.0)] for tag in events.Tags()["tensors"]}}


def expected_steps(made: dict[str, Any], nb_epochs: int) -> list[int]:
    """The batches that have a row, counted by hand."""
    nb = -(-NB_BATCHES // (made["options"]["virtual_ranks"] or 1))
    return [e * nb + b for e in range(nb_epochs) for b in range(0, nb, made["options"]["add_log_row_interval"])]
