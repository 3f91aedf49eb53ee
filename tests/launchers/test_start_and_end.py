"""What the processes that the Trainer starts do before the first step and after the last one: no more than needed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pytorch_lightning

ROOT = Path(pytorch_lightning.__file__).parent.parent

SCRIPT = """
import atexit, os, sys
from pathlib import Path
import torch
from pytorch_lightning import LightningModule, Trainer

FOLDER = Path(__file__).parent

def say(what):
    (FOLDER / f"{what}_{os.environ.get('RANK', 'none')}").touch()

class Taken:
    def __del__(self, say=say):
        say("taken_apart")

TAKEN = Taken()
TAKEN.itself = TAKEN  # let go of by the interpreter's end alone

class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)

    def training_step(self, data_batch, batch_nb):
        return self.layer(data_batch).pow(2).mean()

    def configure_optimizers(self):
        if "torch._dynamo" in sys.modules:
            say("had_imported")
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def on_fit_end(self):
        atexit.register(say, "asked_for")
        print("the last words of", os.environ["RANK"], end="")
        atexit.register(lambda: 1 / 0)

    @property
    def tng_dataloader(self):
        return [torch.ones(2, 3)] * 4

if __name__ == "__main__":
    Trainer(False, nb_processes=2, max_nb_epochs=1, progress_bar=False, silence=["no-validation"]).fit(Net())
    print("fit returned")
"""


@pytest.mark.slow
def test_a_process_does_at_its_start_and_end_what_is_needed_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    environment, command = {**os.environ, "PYTHONPATH": str(ROOT)}, [sys.executable, "script.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    left = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert "had_imported_1" in left, "it waited until the first process had its optimizer, and then began to import"
    assert {"asked_for_0", "asked_for_1"} <= left
    assert "taken_apart_none" in left, "this says nothing: the interpreter's end doesn't let go of it"
    assert not {"taken_apart_0", "taken_apart_1"} & left
    assert "fit returned" in done.stdout
    assert all(f"the last words of {rank}" in done.stdout for rank in (0, 1))
