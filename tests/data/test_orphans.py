"""Workers of loaders end with the process that started them, also where that dies while they begin."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pytorch_lightning

SCRIPT = """
import multiprocessing, os, sys, time
from pathlib import Path
import torch
from torch.utils.data import DataLoader, Dataset
from pytorch_lightning import LightningModule, Trainer

class Ones(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, i):
        return torch.ones(3)

def begin(worker_id):
    (Path(__file__).parent / f"worker_{os.getpid()}").touch()
    multiprocessing.parent_process().join()

class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)

    def training_step(self, data_batch, batch_nb):
        return self.layer(data_batch).pow(2).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    @property
    def tng_dataloader(self):
        return DataLoader(Ones(), 2, num_workers=1, multiprocessing_context=sys.argv[1], worker_init_fn=begin)

if __name__ == "__main__":
    Trainer(False, max_nb_epochs=1, progress_bar=False, silence=["no-validation"]).fit(Net())
"""


@pytest.mark.slow
@pytest.mark.parametrize("start_method", ["spawn", "forkserver"])
def test_a_worker_ends_where_its_parent_was_killed_while_it_began(tmp_path: Path, start_method: str) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(pytorch_lightning.__file__).parent.parent)}
    command = [sys.executable, "script.py", start_method]
    said = tmp_path / "said"
    with said.open("w") as file:
        fit = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=file)
    pids = list[int]()
    try:
        waited = time.monotonic() + 120
        while not pids and time.monotonic() < waited and fit.poll() is None:
            pids = [int(path.name.removeprefix("worker_")) for path in tmp_path.glob("worker_*")]
            time.sleep(0.1)
        assert pids, said.read_text()
        fit.kill()
        fit.wait()
        waited = time.monotonic() + 40
        while any(map(is_there, pids)) and time.monotonic() < waited:
            time.sleep(0.2)
        assert not any(map(is_there, pids)), "it waits for batches to make, for ever"
    finally:
        fit.kill()
        fit.wait()
        for pid in filter(is_there, pids):
            os.kill(pid, signal.SIGKILL)


def is_there(pid: int) -> bool:
    """Whether a process runs (one that has ended may still be listed)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
