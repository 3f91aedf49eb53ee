"""What a run ends with that nothing disturbs."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.faults import killing
from tests.faults.killing import Reference


@pytest.fixture(scope="session")
def references(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Reference]:
    """``references(name)``: what a configuration ends with, run once."""
    known: dict[str, Reference] = {}

    def get(name: str) -> Reference:
        if name not in known:
            known[name] = killing.reference(tmp_path_factory.mktemp(name), name)
        return known[name]

    return get


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say the figures of a run with many kills."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, text in getattr(report, "user_properties", ()):
                if name == "figures" and report.when == "call":
                    terminalreporter.write_line(f"killed {text}")
