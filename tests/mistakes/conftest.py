"""The fixture that holds every refusal to the same rules."""

from pathlib import Path

import pytest

from tests.mistakes.honest import Refusals


@pytest.fixture
def refusal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refusals:
    return Refusals(tmp_path, capsys)
