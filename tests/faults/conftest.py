"""What a run ends with that nothing disturbs."""

from collections.abc import Callable

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
