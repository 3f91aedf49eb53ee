"""``Trainer.explain`` says what a fit does: traces of real fits of random configurations are the oracle."""

import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.errors import MisconfigurationException
from pytorch_lightning.loggers import Logger
from pytorch_lightning.trainer.explanation import Explanation

Place = tuple[int, int, int]


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        while True:
            yield torch.ones(4)


class Traced(LightningModule):
    """Notes what happens to it. ``how`` holds the dimensions of a random configuration."""

    def __init__(self, how: dict[str, Any]) -> None:
        super().__init__()
        self.a, self.b, self.how = nn.Linear(4, 1), nn.Linear(4, 1), how
        self.trace: dict[str, list[Any]] = {
            name: [] for name in ("batches", "samples", "steps", "validations", "sanity", "saves", "epochs")
        }

    def loader(self, nb: int, sampled: bool = True) -> Any:
        if self.how["stream"] and sampled:
            return DataLoader(Endless(), batch_size=self.how["batch_size"])
        data = TensorDataset(torch.ones(nb, 4))
        return DataLoader(data, self.how["batch_size"], shuffle=sampled, drop_last=self.how["drop_last"] and sampled)

    @property
    def tng_dataloader(self) -> Any:
        if self.how["nb_loaders"] == 1:
            return self.loader(self.how["nb_samples"])
        return {"one": self.loader(self.how["nb_samples"]), "two": self.loader(self.how["nb_samples"] // 2 + 5)}

    def loss(self, data_batch: Any) -> Any:
        each = list(data_batch.values()) if isinstance(data_batch, dict) else [data_batch]
        each = [one[0] if isinstance(one, (list, tuple)) else one for one in each]
        self.trace["samples"].append(sum(len(one) for one in each))
        return sum((self.a(x) + self.b(x)).pow(2).mean() for x in each)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return {"loss": self.loss(data_batch)}

    def configure_optimizers(self) -> Any:
        how = self.how
        one = torch.optim.SGD(self.a.parameters(), 0.01)
        optimizers: list[Any] = [one, torch.optim.Adam(self.b.parameters(), 0.001)][: how["nb_optimizers"]]
        note = self.trace["steps"].append
        one.register_step_post_hook(lambda *_: note([o.param_groups[0]["lr"] for o in optimizers]))
        schedules: list[Any] = []
        for place, (interval, frequency, size) in enumerate(how["schedules"][: len(optimizers)]):
            scheduler = torch.optim.lr_scheduler.StepLR(optimizers[place], size, gamma=0.5)
            schedules.append({"scheduler": scheduler, "interval": interval, "frequency": frequency})
        return (optimizers, schedules) if schedules else optimizers

    def place(self) -> Place:
        progress = self.trainer._run.progress  # type: ignore[union-attr]
        return progress.epoch, progress.batch_nb, progress.global_step

    def on_sanity_check_start(self) -> None:
        self.trace["sanity"].append(self.place())

    def on_pre_performance_check(self) -> None:
        self.trace["validations"].append(self.place())

    def on_batch_end(self) -> None:
        self.trace["batches"].append(self.place())

    def on_save_checkpoint(self, checkpoint: Any) -> None:
        self.trace["saves"].append((checkpoint["global_step"], "optimizer_states" not in checkpoint))

    def on_epoch_end(self) -> None:
        self.trace["epochs"].append(self.place())


class Validated(Traced):
    @property
    def val_dataloader(self) -> Any:
        return self.loader(6, sampled=False)

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        return 0

    def validation_end(self, outputs: Any) -> Any:
        values = self.how["values"]
        return {"val_loss": values[len(self.trace["validations"]) % len(values)]}


class OneByOne(Traced):
    """One loss for each optimizer."""

    def training_step(self, data_batch: Any, batch_nb: int, optimizer_i: int) -> Any:  # type: ignore[override]
        nb = len(self.trace["samples"])
        loss = self.loss(data_batch)
        del self.trace["samples"][nb + (optimizer_i == 0) :]
        return {"loss": loss}


class OneByOneValidated(OneByOne, Validated):
    """Both."""


class Table(Logger):
    """Rows that are kept in memory."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self.flushed: list[int] = []

    def log_metrics(self, metrics: dict[str, float | int], step: int) -> None:
        self.rows.append((int(metrics["epoch"]), int(metrics["batch_nb"]), step, metrics.get("lr_0")))

    def save(self) -> None:
        self.flushed.append(len(self.rows))

    def log_hyperparams(self, hparams: dict[str, Any]) -> None:
        """Not of interest here."""

    def close(self) -> None:
        """There is nothing open."""

    @property
    def version(self) -> None:
        return None

    @property
    def folder(self) -> None:
        return None


class Checks(EarlyStopping):
    """Early stopping that notes where it looks, and never stops."""

    def __init__(self, every: str) -> None:
        super().__init__("val_loss", patience=10**6, every=every, check_finite=False)
        self.steps: list[int] = []

    def _check(self, run: Any, value: float) -> None:
        self.steps.append(run.progress.global_step)


def sizes(least: int, most: int) -> st.SearchStrategy[int]:
    return st.integers(least, most)


@st.composite
def configurations(draw: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What the module is like, the options, and the checkpoint callback."""
    how: dict[str, Any] = {
        "nb_samples": draw(sizes(1, 40)),
        "batch_size": draw(sizes(1, 7)),
        "drop_last": draw(st.booleans()),
        "nb_loaders": draw(st.sampled_from([1, 1, 2])),
        "nb_optimizers": draw(st.sampled_from([1, 1, 2])),
        "three_arguments": draw(st.booleans()),
        "stream": draw(sizes(0, 7)) == 0,
        "validates": draw(sizes(0, 3)) > 0,
        "values": draw(st.lists(st.floats(0.1, 1.0), min_size=1, max_size=5)),
        "schedules": draw(
            st.lists(st.tuples(st.sampled_from(["epoch", "step"]), sizes(1, 3), sizes(1, 4)), max_size=2)
        ),
        "early": draw(st.sampled_from([None, "epoch", "validation"])),
    }
    how["nb_samples"] = max(how["nb_samples"], how["batch_size"])
    how["three_arguments"] = how["three_arguments"] and how["nb_optimizers"] == 2
    how["nb_loaders"] = 1 if how["stream"] else how["nb_loaders"]
    options: dict[str, Any] = {
        "max_nb_epochs": draw(sizes(1, 4)),
        "max_nb_steps": draw(st.none() | sizes(1, 40)),
        "max_nb_tng_batches": draw(sizes(1, 8) if how["stream"] else st.none() | sizes(1, 12)),
        "train_percent_check": draw(st.sampled_from([1.0, 1.0, 0.6, 0.1])),
        "overfit_pct": draw(st.sampled_from([0.0, 0.0, 0.0, 0.5])),
        "accumulate_grad_batches": draw(st.sampled_from([1, 1, 2, 3, {1: 1, 2: 3}, {2: 2, 3: 4}])),
        "check_val_every_n_epoch": draw(st.sampled_from([1, 1, 2, 3])),
        "nb_sanity_val_steps": draw(sizes(0, 2)),
        "add_log_row_interval": draw(sizes(1, 6)),
        "log_save_interval": draw(sizes(1, 9)),
        "save_every_nb_batches": draw(st.none() | sizes(1, 9)),
        "save_every_minutes": 0,
        "virtual_ranks": draw(st.sampled_from([None, None, 2, 3])),
        "uneven_batches": draw(st.sampled_from(["wait", "drop"])),
        "reload_dataloaders_every_nb_epochs": draw(st.sampled_from([None, None, 1, 2])),
        "lr_scheduler_milestones": draw(st.sampled_from([None, None, [1], [1, 2]])),
        "fast_dev_run": draw(sizes(0, 15)) == 0,
    }
    interval = draw(st.sampled_from([1.0, 0.5, 0.3, 0.25, 2, 3, 5, "every", "every"]))
    options["val_every_nb_batches" if interval == "every" else "val_check_interval"] = (
        draw(sizes(1, 9)) if interval == "every" else interval
    )
    if interval == "every":
        options["check_val_every_n_epoch"] = 1
    if how["nb_loaders"] == 1 and not how["stream"] and draw(sizes(0, 4)) == 0:
        options |= {"accumulate_grad_batches": 1, "accumulate_nb_samples": draw(sizes(1, 30))}
    if how["nb_loaders"] > 1 or how["stream"]:
        options["overfit_pct"] = 0.0
    if how["stream"]:
        options["train_percent_check"] = 1.0
    checkpoint = {
        "save_top_k": draw(st.sampled_from([None, None, 0, 1, 2])),
        "save_weights_only": draw(st.booleans()),
        "save_last": draw(st.booleans()),
        "period": draw(sizes(1, 3)),
        "every_nb_batches": draw(st.none() | sizes(1, 9)),
    }
    if checkpoint["every_nb_batches"] is not None:
        checkpoint["period"] = 1
    if not how["validates"] and checkpoint["save_top_k"] is not None:
        checkpoint["save_top_k"] = None
    return how, options, checkpoint


def module_of(how: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    kinds = {(False, False): Traced, (False, True): Validated, (True, False): OneByOne, (True, True): OneByOneValidated}
    return kinds[how["three_arguments"], how["validates"]](how)


def same_as_trace(configuration: tuple[dict[str, Any], dict[str, Any], dict[str, Any]], folder: Path) -> None:
    how, options, checkpoint = configuration
    keeper, table = ModelCheckpoint(folder / "kept", **checkpoint), Table()
    early = Checks(how["early"]) if how["early"] and how["validates"] else None
    trainer = Trainer(
        table, early, keeper, **options, default_save_path=folder / "logs", progress_bar=False,
        print_weights_summary=False, seed=1,
    )  # fmt: skip
    module = module_of(how)
    try:
        explained = trainer.explain(module)
    except MisconfigurationException as error:
        with pytest.raises(MisconfigurationException, match=re.escape(str(error))):
            trainer.fit(module)
        return
    assert not any(folder.iterdir())
    assert not any(module.trace.values())
    trainer.fit(module)
    compare(explained, module, table, early, keeper, folder)


def places(rows: list[dict[str, Any]]) -> list[Place]:
    return [(row["epoch"], row["batch_nb"], row["global_step"]) for row in rows]


def compare(
    explained: Explanation, module: Traced, table: Table, early: Checks | None, keeper: ModelCheckpoint, folder: Path
) -> None:
    trace, trainer = module.trace, module.trainer
    assert explained.nb_batches == len(trace["batches"])
    by_epoch: dict[int, int] = {}
    for epoch, _, _ in trace["batches"]:
        by_epoch[epoch] = by_epoch.get(epoch, 0) + 1
    assert {row["epoch"]: row["nb_batches"] for row in explained.epochs if row["nb_batches"]} == by_epoch
    assert explained.nb_optimizer_steps == trainer._run.progress.nb_optimizer_steps  # type: ignore[union-attr]
    if explained.nb_samples is not None:
        assert explained.nb_samples == sum(trace["samples"])
    assert places(explained.events("validation")) == trace["validations"]
    assert places(explained.events("sanity check")) == trace["sanity"]
    if not explained.options["fast_dev_run"]:  # which has a logger of its own
        assert [row["step"] for row in explained.events("row")] == [row[2] for row in table.rows]
        assert set(flushes(explained)) <= set(table.flushed)  # every save flushes too
    if early is not None:
        assert [row["global_step"] for row in explained.events("check")] == early.steps
    assert rates_at(explained, len(trace["steps"])) == trace["steps"]
    saves = [(row["global_step"], row["weights_only"]) for row in explained.events("save")]
    sure = [key for key, row in zip(saves, explained.events("save"), strict=True) if "if_better" not in row]
    assert [step for step, _ in trace["saves"]] == sorted(step for step, _ in trace["saves"])
    for key in {*saves, *trace["saves"]}:
        assert sure.count(key) <= trace["saves"].count(key) <= saves.count(key), key
    assert trainer._run.progress.stop_reason == explained.stop_reason  # type: ignore[union-attr]
    files_are_those(explained, keeper, folder)


def flushes(explained: Explanation) -> list[int]:
    """The numbers of rows that there are at each flush of the log."""
    names = [row["event"] for row in explained.rows]
    return [names[:i].count("row") for i, name in enumerate(names) if name == "flush"]


def rates_at(explained: Explanation, nb: int) -> list[list[float]]:
    """The rates of each optimizer step."""
    found: list[list[float]] = []
    changes = {row["nb_optimizer_steps"]: row for row in explained.rates}
    now: list[float] = []
    for step in range(nb):
        row = changes.get(step)
        now = now if row is None else [row[name] for name in sorted(row) if name.startswith("lr_")]
        found.append(now)
    return found


def files_are_those(explained: Explanation, keeper: ModelCheckpoint, folder: Path) -> None:
    saves, gone = explained.events("save"), {row["path"] for row in explained.events("delete")}
    sure = {Path(row["path"]).name for row in saves if "if_better" not in row and row["path"] not in gone}
    perhaps = sure | {Path(row["path"]).name for row in saves}
    there = {path.name for path in folder.rglob("*.ckpt")}
    if keeper.save_top_k is None:
        assert there == (sure if not explained.options["fast_dev_run"] else set())
    else:
        assert there <= perhaps


HOW: dict[str, Any] = {  # without shrinking: a failure shows its configuration as it is, in seconds
    "deadline": None,
    "phases": [Phase.generate],
    "suppress_health_check": list(HealthCheck),
}


@settings(max_examples=20, derandomize=True, **HOW)
@given(configurations())
def test_what_is_explained_is_what_a_fit_does(configuration: Any) -> None:
    with TemporaryDirectory() as folder:
        same_as_trace(configuration, Path(folder))


@pytest.mark.slow
@settings(max_examples=200, **HOW)
@given(configurations())
def test_what_is_explained_is_what_a_fit_does_in_two_hundred_configurations(configuration: Any) -> None:
    event(f"virtual ranks {configuration[1]['virtual_ranks']}")
    with TemporaryDirectory() as folder:
        same_as_trace(configuration, Path(folder))
