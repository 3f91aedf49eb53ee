"""A plugin of pytest that writes what becomes of each test, as it happens, to the file ``GPU_CHECK_LINES``: a line of
JSON when a test begins, when something is known of it, and when it ends. So a report can be made whenever and however
the tests end."""

import inspect
import json
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.gpu.places import kind_of

SHARE = 30.0
"""Seconds that a test may take, where it doesn't say."""
CHARACTERS = 3000
"""So much of an error's end is kept."""


def write(**entry: Any) -> None:
    """Add a line, if a test reads them."""
    path = os.environ.get("GPU_CHECK_LINES")
    if path is not None:
        with Path(path).open("a") as file:
            file.write(json.dumps(entry) + "\n")


def share_of(item: pytest.Item) -> float:
    """The seconds that a test may take."""
    marker = item.get_closest_marker("share")
    return SHARE if marker is None else float(marker.args[0])


def shown_by(item: Any) -> str:
    """What a test would show: the first paragraph of its docstring."""
    return " ".join((inspect.getdoc(item.function) or "").split("\n\n")[0].split())


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        write(collected=[(report.nodeid, SHARE)])
        write(test=report.nodeid, outcome="failed", error=str(report.longrepr)[-CHARACTERS:])


def pytest_collection_finish(session: pytest.Session) -> None:
    write(collected=[(item.nodeid, share_of(item)) for item in session.items])


def pytest_runtest_logstart(nodeid: str, location: Any) -> None:
    write(test=nodeid, began=time.time())


def pytest_runtest_logfinish(nodeid: str, location: Any) -> None:
    write(test=nodeid, ended=time.time())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Generator[None, Any, Any]:
    report = yield
    if call.when == "call" or report.outcome != "passed":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr or "")
        write(
            test=item.nodeid,
            shows=shown_by(item),
            where=kind_of(item),
            outcome=report.outcome,
            seconds=round(report.duration, 2),
            error=reason[-CHARACTERS:],
            figures=dict(item.user_properties),
        )
    return report
