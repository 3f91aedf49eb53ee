"""Several processes from a notebook: copies of the kernel, since nothing else knows what its cells define."""

from pathlib import Path

import nbclient
import nbformat
import pytest
import torch

import pytorch_lightning

ROOT = Path(pytorch_lightning.__file__).parent.parent

DEFINE = """
import torch
from tests.launchers.nets import Net, trainer
torch.set_num_threads(2)
class Here(Net):
    def on_fit_start(self):
        open(f"rank_{self.trainer.proc_rank}", "w").close()
big = torch.randn(600, 600) @ torch.randn(600, 600)  # threads that the copies don't have
model = Here()
print(trainer("logs", max_nb_epochs=1).fit(model))
"""
FIT = """
before = model.layer.weight.clone()
several = trainer("logs", nb_processes=2)
print(several.fit(model), several.global_step, torch.equal(before, model.layer.weight), several.test()["nb"])
"""


@pytest.mark.filterwarnings("ignore")  # of the notebook client's own
def test_a_notebooks_own_classes_train_in_two_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in (DEFINE, FIT)])
    client = nbclient.NotebookClient(
        notebook, timeout=150, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}},
        allow_errors=torch.accelerator.is_available(),
    )  # fmt: skip
    client.execute()
    text = "".join(output.get("text", "") for output in notebook.cells[1].outputs)
    if torch.accelerator.is_available():
        assert "Put the model in a file" in notebook.cells[1].outputs[-1]["evalue"]
    else:
        assert "1 6 False 5" in text
        assert sorted(path.name for path in tmp_path.glob("rank_*")) == ["rank_0", "rank_1"]
