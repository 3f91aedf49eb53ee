"""The programs of earlier years run unchanged; see README.md beside this file."""

import random
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

PROGRAMS = sorted((Path(__file__).parent / "programs").glob("*.py"))


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_it_runs_and_finds_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path)])
    # as in a process of its own
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.rstrip().splitlines()[-1] == "ok"


def test_there_are_programs_and_each_checks_something() -> None:
    assert len(PROGRAMS) >= 12
    for path in PROGRAMS:
        text = path.read_text()
        assert re.search(r"^ *assert ", text, re.MULTILINE), path
        assert text.startswith('"""'), path
