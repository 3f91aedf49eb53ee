"""What a fit on several processes exchanges: what torch alone exchanges for it, and one small table for each batch."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.launchers.ranks import in_ranks
from tests.strategies.collectives import CASES, FROM, TO

COLUMNS = 5
"""Numbers that the table has of each virtual rank."""


def counted(folder: Path, nb: int, compares: bool = True) -> list[dict[str, Any]]:
    """How often each process made which collective, by its name and the numbers in it."""
    program = f"from tests.strategies.collectives import main\nmain({str(folder)!r}, {compares})\n"
    ran = in_ranks(folder, program, nb)
    assert ran.returncode == 0, ran.stderr
    told = [json.loads((folder / f"counted_{rank}.json").read_text()) for rank in range(nb)]
    return [{k: {tuple(kind): n for kind, n in v} if isinstance(v, list) else v for k, v in t.items()} for t in told]


def more(fit: dict[Any, int], raw: dict[Any, int]) -> dict[Any, int]:
    """What a fit exchanges beside what the script does, or instead of it."""
    agreed = {("gloo:all_gather", 1024), ("gloo:broadcast", 1024)}  # on stops and saves, about once a second
    assert all(fit.get(kind, 0) < 5 for kind in agreed)
    raw = {kind: n for kind, n in raw.items() if kind[0] != "gloo:broadcast" or n > 1}  # where torch begins
    return {kind: n for kind in {*fit, *raw} - agreed if (n := fit.get(kind, 0) - raw.get(kind, 0))}


def test_a_step_has_the_collectives_of_torch_and_one_table(tmp_path: Path) -> None:
    nb_batches = TO - FROM
    for told in counted(tmp_path, 2):
        for case, (_, options) in CASES.items():
            expected = {("gloo:all_reduce", 2 * COLUMNS): nb_batches}
            if case.startswith("fsdp"):
                # whether all use the same layers, in each batch, and have the same gradients, before each step
                expected["gloo:all_reduce", 2] = nb_batches + nb_batches // options.get("accumulate", 1)
            raw = told[f"raw {case}"]
            assert sum(raw.values()) > 3
            assert more(told[f"fit {case}"], raw) == expected, case
        # between epochs, in validations and about once a second: small things, however many steps there are
        short, long = (
            sum(n for (name, size), n in told[f"{which} epoch"].items() if size < 5000 and size != 2 * COLUMNS)
            for which in ("short", "long")
        )
        assert 0 < short < 35
        assert 0 < long < short + 20


@pytest.mark.nightly
def test_more_processes_exchange_as_often_and_need_as_much_memory(tmp_path: Path) -> None:
    memory = {}
    for nb in (2, 4, 8, 16):
        folder = tmp_path / str(nb)
        folder.mkdir()
        each = counted(folder, nb, compares=False)
        for told in each:
            assert more(told["fit ddp"], told["raw ddp"]) == {("gloo:all_reduce", nb * COLUMNS): TO - FROM}
        memory[nb] = max(told["memory"] for told in each)
    assert memory[16] < memory[2] + 40_000, memory


BESIDE = """
import json, os, time
import torch
from pytorch_lightning import LightningModule, Trainer

RANK, SLOW, SECONDS = int(os.environ["RANK"]), 2, 2.0

class Net(LightningModule):
    def __init__(self, counts):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.counts, self.waited = torch.nn.Linear(3, 1), counts, 0.0

    def training_step(self, data_batch, batch_nb):
        if RANK == 1 and batch_nb == SLOW:
            time.sleep(SECONDS)
        loss, end = self.layer(data_batch).pow(2).mean(), time.perf_counter()

        def note(gradient):
            if batch_nb == SLOW:
                self.waited = time.perf_counter() - end

        loss.register_hook(note)  # called when the backward pass begins
        return {"loss": loss, "loss_count": 2} if self.counts else {"loss": loss}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    @property
    def tng_dataloader(self):
        return [torch.full((2, 3), float(i)) for i in range(8)]

waited = {}
for counts in (False, True):
    model = Net(counts)
    Trainer(False, distributed_backend="ddp", max_nb_epochs=1, progress_bar=False, silence=["no-validation"]).fit(model)
    waited[str(counts)] = model.waited
if RANK == 0:
    with open("waited.json", "w") as file:
        json.dump(waited, file)
"""


def test_a_backward_pass_waits_for_the_table_only_where_it_needs_it(tmp_path: Path) -> None:
    ran = in_ranks(tmp_path, BESIDE)
    assert ran.returncode == 0, ran.stderr
    waited = json.loads((tmp_path / "waited.json").read_text())
    assert waited["False"] < 1.0, "nothing that the slow process tells is needed to begin"
    assert waited["True"] > 1.5, "what the batches of all weigh is needed first"
