"""What a resume takes: its own state, once, and nothing of the file."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pytorch_lightning

SCRIPT = """
import json, os, sys
from pathlib import Path
import torch
from benchmarks.programs.memory import Watch, megabytes
from pytorch_lightning import LightningModule, Trainer

SIZE, LAYERS = 1024, 24
STATE = 3 * LAYERS * (SIZE + 1) * SIZE * 4 / 2**20

class Wide(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(*(torch.nn.Linear(SIZE, SIZE) for _ in range(LAYERS)))

    def training_step(self, data_batch, batch_nb):
        if not FOUND and how == "resumed":
            FOUND["state"] = (watch.peak() - before) / STATE
            FOUND["mapped"] = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(path) in line]
            with open(path, "r+b") as file:  # nobody else's business any more
                file.truncate(0)
        return {"loss": self.net(data_batch).pow(2).mean()}

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())

    @property
    def tng_dataloader(self):
        return [torch.ones(1, SIZE)] * 4

class Keeping(Wide):  # takes over the very tensors of the file
    def get_save_dict(self):
        return {"state_dict": self.state_dict()}

    def load_model_specific(self, checkpoint):
        self.load_state_dict(checkpoint["state_dict"], assign=True)

how, path, FOUND = sys.argv[1], Path("state.ckpt").absolute(), {}
kind = Keeping if sys.argv[2:] == ["keeps"] else Wide
torch.optim.Adam([torch.nn.Parameter(torch.ones(1))])  # its imports
options = {"resume": path, "max_nb_steps": 4} if how == "resumed" else {"max_nb_steps": 2}
before = megabytes("RssAnon")
watch = Watch()
trainer = Trainer(False, max_nb_epochs=1, progress_bar=False, silence=["no-validation"], **options)
trainer.fit(kind())
if how == "new":
    trainer.save_checkpoint(path)
print(json.dumps({**FOUND, "steps": trainer.global_step}))
"""


def resumed(folder: Path, *arguments: str) -> dict[str, Any]:
    """What a program says of its resume."""
    environment = {**os.environ, "PYTHONPATH": str(Path(pytorch_lightning.__file__).parent.parent)}
    (folder / "script.py").write_text(SCRIPT)
    said: dict[str, Any] = {}
    for how in ("new", "resumed"):
        command = [sys.executable, "script.py", how, *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, (done.returncode, done.stderr)
        said = json.loads(done.stdout.splitlines()[-1])
    assert said["steps"] == 4
    return said


@pytest.mark.slow
def test_a_resume_holds_its_state_once_and_nothing_of_the_file(tmp_path: Path) -> None:
    said = resumed(tmp_path)
    assert said["mapped"] == []
    assert said["state"] < 1.2, "something of it was there twice"


@pytest.mark.slow
def test_a_module_that_keeps_the_tensors_of_the_file_does_not_need_the_file_any_more(tmp_path: Path) -> None:
    assert resumed(tmp_path, "keeps")["mapped"] == []
