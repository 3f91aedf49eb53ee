"""A fit in a notebook cell."""

import re
from pathlib import Path

import nbclient
import nbformat
import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()


@pytest.mark.filterwarnings("ignore")  # of the notebook client's own
def test_the_readmes_example_runs_in_a_cell_and_again_with_no_argument(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    again = (
        "class Short(Classifier):\n"
        "    tng_dataloader = property(lambda self: [[torch.randn(8, 20), torch.zeros(8, dtype=torch.long)]])\n"
        "Trainer().fit(Short())"
    )
    cells = [nbformat.v4.new_code_cell(code) for code in (example, again)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert "tng_loss" in "".join(o.get("text", "") for o in notebook.cells[0].outputs)
    assert notebook.cells[1].outputs[-1]["data"]["text/plain"] == "1"
    assert (tmp_path / "lightning_logs/Short/version_0/metrics.csv").exists()
