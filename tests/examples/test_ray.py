"""The example in which a Ray job starts the processes. CI installs Ray for it."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "ray_train.py"


@pytest.mark.ray
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray: pip install -e '.[ray]'")
def test_a_ray_job_trains_in_two_processes_and_a_second_one_finds_it_done(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLE), "--nb_workers", "2", "--max_nb_epochs", "1", "--hidden_dim", "16"]
    said = []
    for _ in range(2):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        said.append(done.stdout + done.stderr)
    assert "training in 2 CPU processes (ddp)" in said[0]
    assert "validated {" in said[0]
    found = [re.findall(r"validated (\{.*?\})", text) for text in said]
    assert found[0] == found[1] != [], "and the same weights"
    (save,) = tmp_path.glob("ray_logs/LightningTemplateModel/version_0/checkpoints/step-*.ckpt")
    assert save.is_file()
