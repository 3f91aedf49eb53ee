"""What ``gather_validation='rank0'`` is tried with, in each of several processes. ``main`` writes down what each of
them saw."""

import json
import os
import resource
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.strategies import FullySharded

ENDS: list[int] = []
"""An entry for each call of ``validation_end`` in this process."""
SIZES = (1, 5, 8)
"""Batches of a set: fewer than processes, an uneven end, and as many for each of two."""


def numbers(nb: int) -> Tensor:
    return torch.randn(nb, 3, generator=torch.Generator().manual_seed(nb))


class Net(LightningModule):
    """A metric of all outputs that depends on their order, and on how many there are."""

    def __init__(self, nb: int = 5, several: bool = False, mishap: str = "") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.block = nn.Linear(3, 3)
        self.head = nn.Linear(3, 1)
        self.nb, self.several, self.mishap = nb, several, mishap

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.block(x)))

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return {"loss": self(data_batch).pow(2).mean()}

    def validation_step(self, data_batch: Any, batch_nb: int, dataloader_i: int = 0) -> Any:
        if self.mishap == "secretive" and batch_nb == 3:
            return {"deep": [Secretive()]}
        return {"nb": batch_nb, "y": self(data_batch).detach(), "loader": dataloader_i}

    def validation_end(self, outputs: Any) -> Any:
        if self.mishap in MISHAPS:
            MISHAPS[self.mishap](self)
        ENDS.append(len(outputs))
        each = [o for loader in outputs for o in loader] if self.several else outputs
        return summary(each)

    def test_end(self, outputs: Any) -> Any:
        return {"tested": self.validation_end(outputs)["val_loss"]}

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), 0.1)
        return [optimizer], [torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)]

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(numbers(8), batch_size=2)  # type: ignore[arg-type]

    @property
    def val_dataloader(self) -> Any:
        sets = [numbers(self.nb), numbers(self.nb + 2)] if self.several else [numbers(self.nb)]
        loaders = [DataLoader(rows) for rows in sets]  # type: ignore[arg-type]
        return loaders if self.several else loaders[0]

    test_dataloader = val_dataloader


class Secretive:
    pass


def summary(outputs: list[Any]) -> dict[str, float]:
    values = torch.cat([o["y"].reshape(-1) for o in outputs])
    order = sum(i * o["nb"] + 100 * o["loader"] for i, o in enumerate(outputs))
    return {"val_loss": float(values.median() + values.pow(2).mean()), "order": float(order), "nb": float(len(outputs))}


def boom(net: Any) -> None:
    raise ZeroDivisionError("of the user's own")


def change(net: Any) -> None:
    net.best = 3


def train(net: Any) -> None:
    with torch.no_grad():
        net.head.bias.add_(1.0)


MISHAPS = {
    "boom": boom,
    "collective": lambda net: dist.all_reduce(torch.ones(1)),
    "block": lambda net: net.block(torch.ones(1, 3)),
    "whole": lambda net: net(torch.ones(1, 3)),
    "best": change,
    "train": train,
}


class Noting(Callback):
    def __init__(self) -> None:
        self.metrics: list[Any] = []

    def on_validation_end(self, run: Any, metrics: Any) -> None:
        self.metrics.append(dict(metrics))


def trainer(folder: str, backend: Any = "ddp", **options: Any) -> Trainer:
    rank = os.environ["RANK"]
    default = {"max_nb_epochs": 4, "progress_bar": False, "print_weights_summary": False, "seed": 1}
    quiet = {"gather_validation": "rank0", "default_save_path": f"{folder}/{rank}", "experiment": False}
    return Trainer(**{**default, **quiet, "distributed_backend": backend, **options})


def sharded() -> Any:
    return FullySharded(shard=[nn.Linear])


def evaluations(folder: str) -> dict[str, Any]:
    """What each way to evaluate gives in this process, and how often the end was run in it."""
    found: dict[str, Any] = {}
    for nb in SIZES:
        for several in (False, True):
            for uneven in ("wait", "repeat"):
                net = Net(nb, several)
                there = trainer(folder, uneven_batches=uneven, nb_sanity_val_steps=0)
                key = f"{nb} {several} {uneven}"
                found[f"validate {key}"] = there.validate(net)
                found[f"test {key}"] = there.test(net)
    found["predict"] = [y.tolist() for y in trainer(folder).predict(Net(5))]
    return found


def fit(folder: str, backend: Any) -> dict[str, Any]:
    ENDS.clear()
    net, noting = Net(5), Noting()
    early = EarlyStopping("val_loss", min_delta=1e-3, patience=2)
    keeper = ModelCheckpoint(f"{folder}/{type(backend).__name__}", monitor="val_loss")
    options = {"early_stop_callback": early, "checkpoint_callback": keeper, "callbacks": [noting]}
    there = trainer(folder, backend, max_nb_epochs=30, **options)
    there.fit(net)
    return {
        "metrics": noting.metrics,
        "nb_ends": len(ENDS),
        "lr": there.optimizers[0].param_groups[0]["lr"],
        "epochs": there.current_epoch,
        "best": Path(keeper.best_path).name,
        "weights": [p.tolist() for p in net.parameters()],
    }


def mishaps(folder: str) -> dict[str, str]:
    """What each process's error says."""
    found = {}
    for mishap in ("boom", "collective", "secretive"):
        found[mishap] = outcome(lambda mishap=mishap: trainer(folder).validate(Net(5, mishap=mishap)))
        found[f"{mishap} in fit"] = outcome(lambda mishap=mishap: trainer(folder).fit(Net(5, mishap=mishap)))
    for mishap in ("block", "whole"):
        found[mishap] = outcome(lambda mishap=mishap: trainer(folder, sharded()).validate(Net(5, mishap=mishap)))
    found["best"] = outcome(lambda: trainer(folder).validate(Net(5, mishap="best")))
    found["train"] = outcome(lambda: trainer(folder, max_nb_epochs=1).fit(Net(5, mishap="train")))
    return found


def outcome(function: Any) -> str:
    try:
        function()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


class Large(Net):
    """Outputs of 256 kB."""

    def validation_step(self, data_batch: Any, batch_nb: int, dataloader_i: int = 0) -> Any:
        return {"y": torch.zeros(2**16) + self(data_batch).detach().mean(), "nb": batch_nb, "loader": 0}

    def validation_end(self, outputs: Any) -> Any:
        return {"val_loss": sum(float(o["y"][0]) for o in outputs)}


def peak(folder: str, nb: int, how: Any) -> int:
    """The most memory of this process, in kB, after a validation of ``nb`` batches."""
    trainer(folder, gather_validation=how).validate(Large(nb))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(folder: str, what: str) -> None:
    made = {
        "good": lambda: {
            **evaluations(folder),
            "fit ddp": fit(folder, "ddp"),
            "fit fsdp": fit(folder, sharded()),
        },
        "bad": lambda: mishaps(folder),
        "memory rank0": lambda: [peak(folder, nb, "rank0") for nb in (150, 900)],
        "memory everybody": lambda: [peak(folder, nb, True) for nb in (150, 900)],
    }[what]()
    Path(folder, f"{what}_{os.environ['RANK']}.json").write_text(json.dumps(made))
