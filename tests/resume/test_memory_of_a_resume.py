"""What a resume takes: its own state, once, and nothing of the file."""

import json
import os
import subprocess
import sys
from pathlib import Path

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

how, path, FOUND = sys.argv[1], Path("state.ckpt").absolute(), {}
torch.optim.Adam([torch.nn.Parameter(torch.ones(1))])  # its imports
options = {"resume": path, "max_nb_steps": 4} if how == "resumed" else {"max_nb_steps": 2}
before = megabytes("RssAnon")
watch = Watch()
trainer = Trainer(False, max_nb_epochs=1, progress_bar=False, silence=["no-validation"], **options)
trainer.fit(Wide())
if how == "new":
    trainer.save_checkpoint(path)
print(json.dumps({**FOUND, "steps": trainer.global_step}))
"""


@pytest.mark.slow
def test_a_resume_holds_its_state_once_and_nothing_of_the_file(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(pytorch_lightning.__file__).parent.parent)}
    (tmp_path / "script.py").write_text(SCRIPT)
    said = {}
    for how in ("new", "resumed"):
        command = [sys.executable, "script.py", how]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout.splitlines()[-1])
    assert said["steps"] == 4
    assert said["mapped"] == []
    assert said["state"] < 1.2, "something of it was there twice"
