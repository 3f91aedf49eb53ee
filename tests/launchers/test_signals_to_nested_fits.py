"""A signal while a fit runs inside another one, or after another one."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.launchers import fits
from tests.launchers.signalled import run_script


def run(folder: Path, how: str, **options: Any) -> Any:
    return run_script(folder, program=fits.__file__, how=how, **options)


@pytest.fixture(scope="module", params=["inside", "after"])
def calm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp(request.param)
    code, said = run(folder, request.param)
    assert code == 0, said
    return request.param, end_of(folder)


def end_of(folder: Path) -> Any:
    return json.loads((folder / "end.json").read_text())


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_both_fits_end_and_the_same_command_resumes_to_the_same_result(tmp_path: Path, calm: Any, name: str) -> None:
    how, end = calm
    code, said = run(tmp_path, how, send=name)
    assert code == (75 if name == "SIGTERM" else 3), said
    assert said.count("stopped by SIGTERM") == (name == "SIGTERM"), said
    assert "Traceback" not in said
    assert not (tmp_path / "end.json").exists()
    code, said = run(tmp_path, how)
    assert code == 0, said
    assert end_of(tmp_path) == end
