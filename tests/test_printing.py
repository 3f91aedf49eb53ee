"""All that is printed goes through one logger."""

import io
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from pytorch_lightning import Trainer
from pytorch_lightning.printing import LOGGER
from tests.recorder import Recorder


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append((record.levelname, record.getMessage()))


def fit(tmp_path: Path, **options: Any) -> None:
    Trainer(max_nb_epochs=1, default_save_path=tmp_path, progress_bar=False, **options).fit(Recorder())


def test_a_program_can_handle_messages_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = Kept()
    monkeypatch.setattr(LOGGER, "handlers", [kept])
    fit(tmp_path)
    assert capsys.readouterr() == ("", "")
    assert any(level == "INFO" and text.startswith("fit took") for level, text in kept.records)
    assert any(level == "WARNING" and text.endswith("[not-shuffled]") for level, text in kept.records)


def test_by_default_information_goes_to_stdout_and_notices_to_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(tmp_path)
    said = capsys.readouterr()
    assert "fit took" in said.out
    assert "[not-shuffled]" in said.err
    assert all(line.startswith("pytorch_lightning: ") for line in said.err.splitlines())


def test_a_level_silences_information_and_keeps_notices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(LOGGER, "level", logging.WARNING)
    LOGGER.manager._clear_cache()  # type: ignore[attr-defined]
    fit(tmp_path)
    LOGGER.manager._clear_cache()  # type: ignore[attr-defined]
    said = capsys.readouterr()
    assert said.out == ""
    assert "[not-shuffled]" in said.err


@pytest.mark.parametrize("stream", ["closed", "full"])
def test_a_stream_that_is_closed_or_full_does_not_end_a_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: str
) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    other = Full() if stream == "full" else io.StringIO()
    if stream == "closed":
        other.close()
    monkeypatch.setattr(sys, "stderr", other)
    monkeypatch.setattr(sys, "stdout", other)
    fit(tmp_path)
