"""What is reported is what a step saw, not what became of it: counted by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from tests.equality.models import Classifier
from tests.recorder import quiet_trainer, rows_of

KEYS = ("parameter", "view", "buffer", "array", "tensor", "loss_now", "tng_loss")


class Reporting(Classifier):
    """Reports a parameter, a view of it, a buffer, an array and a list of its own, all of which change later."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("seen", torch.zeros(()))
        self.array, self.kept = np.zeros(1), torch.zeros(1)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        for counter in (self.seen, self.array, self.kept):
            counter += 1
        prog = {
            "parameter": self.temperature,
            "view": self.temperature.reshape(1)[0],
            "buffer": self.seen,
            "array": self.array,
            "tensor": self.kept,
            "loss_now": (loss := self.loss(data_batch) + self.temperature),
            "name": "a",
        }
        return {"loss": loss, "prog": prog}

    def on_batch_end(self) -> None:
        for counter in (self.seen, self.array, self.kept):
            counter += 100


@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2}, {"virtual_ranks": 2}], ids=str)
def test_values_of_the_step_that_reported_them(tmp_path: Path, options: Any) -> None:
    model = Reporting()
    quiet_trainer(tmp_path, add_log_row_interval=1, **options).fit(model)
    rows = [{k: float(v) for k, v in row.items() if v and k in KEYS} for row in rows_of(tmp_path, "Reporting")]
    temperature, size = 2.0, options.get("accumulate_grad_batches", 1)
    for n, row in enumerate(rows):
        assert row["parameter"] == row["view"] == pytest.approx(temperature, abs=1e-6)
        first = n * 101 + 1  # each hook adds 100
        if "virtual_ranks" in options:
            assert row["buffer"] == first  # of the first virtual rank alone
            assert row["array"] == row["tensor"] == first + n  # the second one counts too
        else:
            assert row["buffer"] == row["array"] == row["tensor"] == first
            assert row["loss_now"] == pytest.approx(
                row["tng_loss"] * (n + 1) - sum(r["loss_now"] for r in rows[:n]), 1e-4
            )
        if (n + 1) % size == 0 or n == len(rows) - 1:
            temperature -= 0.1
    assert len(rows) == (3 if "virtual_ranks" in options else 5)


def test_of_each_optimizers_turn_before_it_steps(tmp_path: Path) -> None:
    class Two(Classifier):
        def training_step(self, data_batch: Any, batch_nb: int, optimizer_i: int) -> Any:  # type: ignore[override]
            parameter = (self.layers[0], self.layers[4])[optimizer_i].bias
            self.sums = [*getattr(self, "sums", []), parameter[0].item()]
            return {"loss": self.loss(data_batch), "prog": {f"bias_{optimizer_i}": parameter[0]}}

        def configure_optimizers(self) -> Any:
            return [SGD(self.layers[0].parameters(), 0.1), SGD(self.layers[4].parameters(), 0.1)]

    model = Two()
    quiet_trainer(tmp_path, add_log_row_interval=1).fit(model)
    found = [float(row[f"bias_{i}"]) for row in rows_of(tmp_path, "Two") for i in (0, 1)]
    assert found == pytest.approx(model.sums, abs=1e-6)
