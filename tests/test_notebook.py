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
    outputs = notebook.cells[1].outputs
    assert outputs[-1]["data"]["text/plain"].startswith("1: training is complete (1000 epochs, 1000 batches; max_")
    (table,) = (o["data"] for o in outputs if o["output_type"] == "display_data")
    assert table["text/plain"].splitlines()[0].split() == ["epoch", "mean_loss", "acc", "time"]
    assert table["text/plain"].splitlines()[100].split()[0] == "1000", "the last 100 epochs stay in a saved notebook"
    assert "900 earlier epochs aren't shown" in table["text/plain"]
    assert table["text/html"].count("<tr>") == 101
    (table,) = (o["data"] for o in notebook.cells[0].outputs if o["output_type"] == "display_data")
    rows = [line.split() for line in table["text/plain"].splitlines()]
    assert rows[0][:2] == ["epoch", "mean_loss"]
    assert [row[0] for row in rows[1:4]] == ["1", "2", "3"], "the numbers of each epoch, also once it is saved"
    assert all(float(value) for row in rows[1:4] for value in row[1:-1])
    assert (tmp_path / "lightning_logs/Short/version_0/metrics.csv").exists()
