"""What a step costs, counted in things that don't depend on the machine's mood: bytecodes, instructions, modules,
and bytes that are kept."""

import ast
import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.instructions import total
from pytorch_lightning import LightningModule, Trainer
from tests.recorder import quiet_trainer

MOST_BYTECODES = 1.13
"""Of a step in a fit, for each of the lean raw loop's. 1.09 was measured with Python 3.11 and torch 2.14."""
MOST_INSTRUCTIONS = 1.06
"""The same in processor instructions: 1.02 was measured. Seeding the random streams is more than what is over."""
MOST_MODULES = 42
"""Modules that the import of the public names loads on top of ``import torch``: 37 were measured."""
OF_A_FIT = {"checkpoints", "data", "resume", "steps", "strategies", "timings"}
"""Rooms of which nothing is loaded before a fit."""

PERIOD = 100
"""Batches after which everything that is due at times has been due: rows, saves, sampled phases."""


class Small(LightningModule):
    """W1's network on ready batches; ``at_batch`` gets each batch's number."""

    def __init__(self, nb_batches: int, at_batch: Callable[[int], None] = lambda n: None) -> None:
        super().__init__()
        self.net, self.criterion = network(), nn.MSELoss()
        self.nb_batches, self.at_batch = nb_batches, at_batch

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        self.at_batch(batch_nb)
        x, y = data_batch
        return {"loss": self.criterion(self.net(x), y)}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.01)

    @property
    def tng_dataloader(self) -> Any:
        return ready_batches() * self.nb_batches


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 1))


def ready_batches() -> list[Any]:
    return [(torch.ones(32, 32), torch.ones(32, 1))]


def lean_loop(nb_batches: int, at_batch: Callable[[int], None] = lambda n: None) -> None:
    """The shortest correct loop."""
    net, criterion = network(), nn.MSELoss()
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    for batch_nb, (x, y) in enumerate(ready_batches() * nb_batches):
        at_batch(batch_nb)
        optimizer.zero_grad()
        criterion(net(x), y).backward()
        optimizer.step()


def fit(folder: Path, nb_batches: int, at_batch: Callable[[int], None] = lambda n: None, **options: Any) -> None:
    """Everything on that is on by default; the bar is drawn by the clock, so what it does a step can't be counted."""
    Trainer(
        max_nb_epochs=1,
        default_save_path=folder,
        print_weights_summary=False,
        silence=("not-shuffled", "no-validation"),
        **{"progress_bar": False, **options},
    ).fit(Small(nb_batches, at_batch))


class Counter:
    """Counts bytecodes, or calls, between two batches."""

    def __init__(self, event: str, first: int, last: int) -> None:
        self.event, self.first, self.last, self.nb = event, first, last, 0

    def __call__(self, batch_nb: int) -> None:
        if batch_nb == self.first:
            self._frames(self._trace)
            sys.settrace(self._trace)
        elif batch_nb == self.last:
            sys.settrace(None)
            self._frames(None)

    def _frames(self, trace: Any) -> None:
        """A function that was called earlier is counted too, once it continues."""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            frame.f_trace, frame.f_trace_opcodes, frame.f_trace_lines = trace, trace is not None, trace is None
            frame = frame.f_back

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self.nb += event == self.event
        return self._trace


def test_a_step_costs_few_more_bytecodes_than_the_lean_loop(tmp_path: Path) -> None:
    ours, lean = (Counter("opcode", PERIOD, 2 * PERIOD) for _ in range(2))
    fit(tmp_path, 2 * PERIOD + 1, ours)
    lean_loop(2 * PERIOD + 1, lean)
    assert lean.nb > 1000 * PERIOD
    assert ours.nb / lean.nb <= MOST_BYTECODES


class Tiny(Small):
    """A step of next to nothing, so that many can be run."""

    def __init__(self, nb_batches: int, at_batch: Callable[[int], None]) -> None:
        super().__init__(nb_batches, at_batch)
        self.net = nn.ParameterList([nn.Parameter(torch.zeros(()))])

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        self.at_batch(batch_nb)
        loss = self.net[0] * 2
        return {"loss": loss, "prog": {"own": loss}}

    def configure_optimizers(self) -> Any:
        return Standing(self.parameters(), {})


class Standing(torch.optim.Optimizer):
    """Steps nowhere."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        pass


def test_a_step_costs_the_same_after_50_000_and_nothing_piles_up(tmp_path: Path) -> None:
    n = 50_000
    early, late = Counter("opcode", 10 * PERIOD, 11 * PERIOD), Counter("opcode", n - 2 * PERIOD, n - PERIOD)
    kept: list[int] = []

    def at_batch(batch_nb: int) -> None:
        if batch_nb in (5 * PERIOD, n - 5 * PERIOD):
            gc.collect()
            kept.append(sys.getallocatedblocks())
        early(batch_nb), late(batch_nb)

    quiet_trainer(tmp_path).fit(Tiny(n, at_batch))
    assert early.nb > 100 * PERIOD
    assert late.nb == pytest.approx(early.nb, rel=0.02)
    assert kept[1] - kept[0] < 1000


START = """
import sys, torch
before = set(sys.modules)
from pytorch_lightning import LightningModule, Trainer, add_default_args, data_loader, runs, seed_everything
named = set(sys.modules) - before
from tests.test_budgets import fit
from pathlib import Path
after = set(sys.modules)
fit(Path("runs"), 1)
print(sorted(named))
print(sorted(set(sys.modules) - after))
"""


def test_importing_the_public_names_loads_few_modules_and_a_fit_loads_the_rest(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", START], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    named, of_the_fit = (set(ast.literal_eval(line)) for line in done.stdout.splitlines()[-2:])
    assert len(named) <= MOST_MODULES, sorted(named)
    # nothing of another package: not what torch leaves out, and no table of names that nobody asked for
    assert not {name for name in named if not name.startswith("pytorch_lightning")}
    assert not {name for name in named if name.split(".")[1:2] and name.split(".")[1] in OF_A_FIT}
    engine = {f"pytorch_lightning.trainer.{name}" for name in ("stages", "plan", "loop", "optimization", "evaluation")}
    assert engine <= of_the_fit
    assert {name.split(".")[1] for name in of_the_fit if name.startswith("pytorch_lightning.")} >= OF_A_FIT


COUNT_INSTRUCTIONS = """
from pathlib import Path
import torch
from benchmarks.instructions import control
from tests.test_budgets import fit, lean_loop
torch.set_num_threads(1)

def at_batch(n):
    # 20 batches and 60: their difference leaves out what turning the count on and off costs
    if n in (10, 40):
        control("-z")
        control("-i", "on")
    if n in (30, 100):
        control("-i", "off")
        control("-d")

lean_loop(101, at_batch)
fit(Path("runs"), 101, at_batch)
"""


@pytest.mark.valgrind
def test_a_step_costs_few_more_instructions_than_the_lean_loop(tmp_path: Path) -> None:
    if shutil.which("valgrind") is None or shutil.which("callgrind_control") is None:
        pytest.skip("valgrind isn't installed")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "PYTHONHASHSEED": "0"}
    command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", sys.executable, "-c", COUNT_INSTRUCTIONS]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    counts = []
    for number in (1, 2, 3, 4):
        (dump,) = tmp_path.glob(f"callgrind.out.*.{number}")
        counts.append(total(dump))
    lean, ours = (counts[1] - counts[0]) / 40, (counts[3] - counts[2]) / 40
    assert lean > 100_000
    assert ours / lean <= MOST_INSTRUCTIONS, (ours, lean)
