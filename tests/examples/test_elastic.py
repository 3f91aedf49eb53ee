"""The example of a run that loses its processes, with fewer of them."""

import os
import runpy
from pathlib import Path

import pytest

import pytorch_lightning

ROOT = Path(pytorch_lightning.__file__).parent.parent
pytestmark = pytest.mark.slow


def test_a_run_that_loses_a_process_ends_with_the_weights_of_one_that_keeps_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.fspath(ROOT))
    compare = runpy.run_path(os.fspath(ROOT / "examples/elastic.py"))["compare"]
    compare(tmp_path, rounded=False, starts=((2, 12), (1, None)))
    first, second, result = capsys.readouterr().out.splitlines()
    assert first == "2 processes, from the start: lost 1 in batch 12"
    assert second in [f"1 process, from batch {nb}: to the end" for nb in (0, 5, 10)]  # as quick as the disk is
    assert result == "0 of 2307 weights differ, by at most 0"
