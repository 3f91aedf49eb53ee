"""Memory that is at its end: the kernel kills the program or a worker of its loader, with a control group's limit.

Where no such group can be made (a container without that right) they kill themselves with the signal that it sends.
"""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults import surroundings, warm
from tests.faults.killing import Reference, result_of, run_to_the_end
from tests.faults.limited import Limited

pytestmark = pytest.mark.root

References = Callable[[str], Reference]
MEGABYTES = 250
"""More than a program of these needs beside what it shares with the one that it was forked from."""


@pytest.fixture
def group() -> Iterator[Limited | None]:
    made = Limited.make()
    if made is not None:
        made.limit_to(MEGABYTES)
    yield made
    if made is not None:
        made.close()
        assert not made.folder.exists(), "a process is left"


def starve(folder: Path, who: str, group: Limited | None) -> warm.Ended:
    members = None if group is None else group.members
    return warm.run(surroundings.train_hungry, str(folder), who, members, output=folder / "said")


def undisturbed(folder: Path, who: str) -> None:
    folder.mkdir(exist_ok=True)
    ended = warm.run(surroundings.train_hungry, str(folder), who, "", output=folder / "said")
    assert ended.code == 0, ended.said


def test_a_program_that_is_killed_for_memory_resumes(
    tmp_path: Path, references: References, group: Limited | None
) -> None:
    ended = starve(tmp_path, "program", group)
    assert ended.code == -signal.SIGKILL, ended.said
    assert group is None or group.nb_killed == 1
    assert run_to_the_end(tmp_path, "plain") == references("plain").result


def test_a_worker_that_is_killed_for_memory_is_replaced(tmp_path: Path, group: Limited | None) -> None:
    ended = starve(tmp_path, "worker", group)
    assert ended.code == 0, ended.said
    assert group is None or group.nb_killed == 1
    assert "Was it killed for memory?" in ended.said
    assert "Training continues bit-for-bit, with 2 workers" in ended.said
    undisturbed(tmp_path / "whole", "worker")
    assert result_of(tmp_path) == result_of(tmp_path / "whole")


@pytest.mark.parametrize("who", ["workers", "stream"])
def test_workers_that_cannot_be_replaced_lose_nothing(tmp_path: Path, group: Limited | None, who: str) -> None:
    """Those of an IterableDataset; and those that need too much every time, as then the program itself does."""
    ended = starve(tmp_path, who, group)
    assert ended.code == {"workers": -signal.SIGKILL, "stream": 1}[who], ended.said
    assert ended.said.count("Was it killed for memory?") >= 1
    if who == "stream":
        assert "resume='auto' resumes from there" in ended.said
    assert group is None or group.nb_killed == {"workers": 6, "stream": 1}[who]
    undisturbed(tmp_path, who)
    undisturbed(tmp_path / "whole", who)
    assert result_of(tmp_path) == result_of(tmp_path / "whole")
