"""What each of several processes gets: a trial's batches, those before training, and the data without a copy of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from pytorch_lightning import LightningModule
from tests.recorder import quiet_trainer


class Rows(Dataset[Any]):
    """A tensor and an array, each large enough to be worth sharing."""

    def __init__(self) -> None:
        self.numbers = torch.arange(40000.0).reshape(40, 1000) / 40000
        self.places = np.arange(40 * 1000).reshape(40, 1000)

    def __len__(self) -> int:
        return 40

    def __getitem__(self, i: int) -> Any:
        return self.numbers[i], float(self.places[i, 0])


class Counts(LightningModule):
    """Counts the batches of its process, and looks where the data lies; process 0 writes to it first."""

    def __init__(self, folder: Path, rows: Rows) -> None:
        super().__init__()
        self.layer, self.folder, self.rows = nn.Linear(1000, 1), folder, rows
        self.counts = {"training": 0, "validation": 0, "before": 0}
        self.begun = False

    def on_fit_start(self) -> None:
        if self.trainer.proc_rank == 0:
            self.rows.numbers[39] = 5.0
            self.rows.places[39] = -1

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        self.begun = True
        self.counts["training"] += 1
        return self.layer(data_batch[0]).pow(2).mean()

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        self.counts["validation" if self.begun else "before"] += 1
        return {"val_loss": self.layer(data_batch[0]).mean()}

    def on_fit_end(self) -> None:
        told = {
            **self.counts,
            "mapped": [mapped_file(self.rows.numbers.data_ptr()), mapped_file(self.rows.places.ctypes.data)],
            "last": [float(self.rows.numbers[39, 0]), int(self.rows.places[39, 0])],
        }
        (self.folder / f"{self.trainer.proc_rank}.json").write_text(json.dumps(told))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 1e-5)

    def loader(self) -> Any:
        return DataLoader(self.rows, batch_size=4)

    tng_dataloader = val_dataloader = property(loader)  # type: ignore[assignment]


def mapped_file(address: int) -> str:
    """The file that this address is a mapping of; nothing where it is memory of the process alone."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        bounds, *fields = line.split(maxsplit=5)
        begin, end = (int(number, 16) for number in bounds.split("-"))
        if begin <= address < end:
            return fields[4] if len(fields) > 4 else ""
    return ""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found = {}
    for name, options in {"trial": {"fast_dev_run": True, "nb_sanity_val_steps": 5}, "fit": {}}.items():
        folder = tmp_path_factory.mktemp(name)
        options = {"nb_sanity_val_steps": 2, "silence": ("not-shuffled",), "experiment": False, **options}
        assert quiet_trainer(folder, nb_processes=2, **options).fit(Counts(folder, Rows())) == 1
        found[name] = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
    return found


def test_each_process_tries_one_batch_of_each_kind(told: Any) -> None:
    for counts in told["trial"]:
        assert (counts["training"], counts["validation"], counts["before"]) == (1, 1, 1)


def test_each_process_validates_as_many_batches_first(told: Any) -> None:
    for counts in told["fit"]:
        assert (counts["training"], counts["validation"], counts["before"]) == (5, 5, 2)


def test_processes_share_the_data_that_none_writes_to(told: Any) -> None:
    first, second = told["fit"]
    for numbers, places in (first["mapped"], second["mapped"]):
        assert numbers.startswith("/")
        assert places == numbers
    assert first["mapped"] == second["mapped"]
    assert first["last"] == [5.0, -1]  # and what one writes is its own
    assert second["last"] == [pytest.approx(0.975), 39000]
