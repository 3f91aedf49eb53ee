"""What type checkers say of honest programs, and of wrongly declared hooks."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pytorch_lightning

ROOT = Path(pytorch_lightning.__file__).parent.parent
EXAMPLES, TEMPLATES = ROOT / "examples", ROOT / "pytorch_lightning" / "templates"
pytestmark = [pytest.mark.slow, pytest.mark.typing]

HONEST = """
from argparse import Namespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger


class TwoArguments(LightningModule):
    def __init__(self, hparams: Namespace) -> None:
        super().__init__(hparams)
        self.layer = nn.Linear(4, 2)

    def training_step(self, data_batch: tuple[Tensor, Tensor], batch_nb: int) -> dict[str, Any]:
        x, y = data_batch
        return {"loss": nn.functional.cross_entropy(self(x), y), "prog": {"size": len(x)}}

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> dict[str, Tensor]:
        return {"val_loss": batch[0].mean()}

    def validation_end(self, steps: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {"val_loss": torch.stack([step["val_loss"] for step in steps]).mean()}

    def configure_optimizers(self) -> Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)

    @property
    def tng_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(TensorDataset(torch.randn(8, 4), torch.zeros(8).long()), 4)

    @property
    def val_dataloader(self) -> list[DataLoader[tuple[Tensor, ...]]]:
        return [self.tng_dataloader]

    def get_save_dict(self) -> dict[str, Any]:
        return {"state_dict": self.state_dict()}

    def on_epoch_start(self) -> None:
        print(self.trainer.current_epoch, self.global_step)


class ThreeArguments(LightningModule):
    def training_step(self, data_batch: tuple[Tensor, Tensor], batch_nb: int, optimizer_i: int) -> Tensor | None:
        return None if optimizer_i else data_batch[0].mean()

    def validation_step(self, data_batch: tuple[Tensor, Tensor], batch_nb: int, dataloader_i: int) -> Tensor:
        return data_batch[dataloader_i].mean()

    def configure_optimizers(self) -> list[Optimizer]:
        return []


class Mine(Callback):
    def on_epoch_end(self, run: Any) -> None:
        print(run.progress.epoch)


trainer = Trainer(CSVLogger("logs"), max_nb_epochs=1, callbacks=[Mine()], early_stop_callback=EarlyStopping("val_loss"))
code: int = trainer.fit(TwoArguments(Namespace(lr=0.1)))
"""

WRONG = {
    "validation_end": "def validation_end(self) -> None: ...",
    "configure_optimizers": "def configure_optimizers(self, nb: int) -> None: ...",
    "on_epoch_start": "def on_epoch_start(self, epoch: int) -> None: ...",
    "get_save_dict": "def get_save_dict(self) -> int: ...",
    "load_model_specific": "def load_model_specific(self) -> None: ...",
    "on_batch_end": "def on_batch_end(self, outputs: int) -> None: ...",
}
"""A declaration that the trainer couldn't call, or whose result it couldn't use, by the name of its hook."""
OF_MYPY_ALONE = {"training_step": "def training_step(self, data_batch: int) -> None: ..."}
"""Pyright lets a step leave arguments out, since what follows its first two is a subclass's choice."""


CONFIG = """
[mypy]
strict = true
# test-tube and torchvision say nothing of their types, and what only some examples need may not be installed
ignore_missing_imports = true
disallow_subclassing_any = false

# how-tos are short, and leave types out; those that follow must fit
[mypy-howto.*]
allow_untyped_defs = true
allow_untyped_calls = true
allow_any_generics = true
"""
OF_OTHERS = ('Call to untyped function "backward"', "could not be resolved")
"""What is said of torch's own method, and of packages that aren't installed."""


def said_by(checker: str, folder: Path, cache: Path) -> list[str]:
    """The errors that ``checker`` finds in the programs in ``folder``. ``cache``: what mypy has read of torch."""
    pytest.importorskip(checker, reason=f'{checker} isn\'t installed: pip install -e ".[dev]"')
    (folder / "mypy.ini").write_text(CONFIG)
    words = {"mypy": ["--no-error-summary", "--cache-dir", str(cache)], "pyright": ["--pythonpath", sys.executable]}[
        checker
    ]
    programs = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.py"))
    done = subprocess.run(
        [sys.executable, "-m", checker, *words, *programs],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stderr
    errors = [line for line in done.stdout.splitlines() if "error:" in line or "- error" in line]
    return [error for error in errors if not any(text in error for text in OF_OTHERS)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def copy_programs(folder: Path) -> None:
    """All programs that users are given, so that a checker reads the library once. Those of the templates of ``new``
    have the same names, and get the template's name before theirs."""
    for path in [*EXAMPLES.glob("*.py"), *(EXAMPLES / "new_project_templates").glob("*.py")]:
        shutil.copy(path, folder)
    shutil.copytree(EXAMPLES / "howto", folder / "howto", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "howto" / "__init__.py").touch()
    for path in TEMPLATES.rglob("*.py"):
        template = path.relative_to(TEMPLATES).parts[0]
        names = rf"from {template}_\1 import"
        text = re.sub(r"^from (model|train) import", names, path.read_text(), flags=re.MULTILINE)
        (folder / f"{template}_{path.name}").write_text(text)


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_honest_programs_the_examples_and_the_templates_pass(tmp_path: Path, cache: Path, checker: str) -> None:
    (tmp_path / "honest.py").write_text(HONEST)
    copy_programs(tmp_path)
    assert len(list(tmp_path.rglob("*.py"))) > 50
    assert said_by(checker, tmp_path, cache) == []


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_each_wrongly_declared_hook_fails(tmp_path: Path, cache: Path, checker: str) -> None:
    wrong = {**WRONG, **(OF_MYPY_ALONE if checker == "mypy" else {})}
    lines = ["from pytorch_lightning import LightningModule", "class Wrong(LightningModule):"]
    (tmp_path / "wrong.py").write_text("\n".join([*lines, *(f"    {text}" for text in wrong.values())]))
    found = "\n".join(said_by(checker, tmp_path, cache))
    numbers = [number for number, name in enumerate(wrong, len(lines) + 1) if f"wrong.py:{number}:" not in found]
    assert numbers == [], found
