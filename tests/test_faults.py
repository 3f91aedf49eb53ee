"""Named points do nothing, unless FAULT says so."""

import doctest
import os
import signal
import subprocess
import sys
import timeit
from pathlib import Path

import pytest

from pytorch_lightning import faults
from pytorch_lightning.faults import InjectedFault, fault, parse, visitor

PROGRAM = "from pytorch_lightning.faults import fault; fault('a'); print('one'); fault('b'); fault('a'); print('two')"


def run(text: str, program: str = PROGRAM) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, "FAULT": text}, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_a_point_costs_next_to_nothing() -> None:
    assert min(timeit.repeat(lambda: fault("some.point"), number=10_000, repeat=5)) / 10_000 < 1e-6
    assert fault is len


def test_a_process_is_killed_at_the_visit_that_was_named() -> None:
    assert run("") == (0, "one\ntwo\n")
    assert run("a:3") == (0, "one\ntwo\n")
    code, said = run("a:2")
    assert (code, "two" in said) == (-signal.SIGKILL, False)


def test_several_points_and_other_actions() -> None:
    visit = visitor("a:2:raise, b:1:sleep=0,a:3:raise")
    visit("a")
    visit("b")
    for _ in range(2):
        with pytest.raises(InjectedFault, match="injected at a"):
            visit("a")
    visit("a")


def test_files_may_not_grow_until_they_may_again(tmp_path: Path) -> None:
    program = f"""
from pytorch_lightning.faults import fault
def write():
    try:
        open({str(tmp_path / "file")!r}, "wb").write(bytes(20_000))
    except OSError as error:
        print(error.strerror)
for _ in range(3):
    fault("a")
    write()
"""
    assert run("a:2:full=10000,a:3:free", program) == (0, "File too large\n")
    assert run("a:2:cut=10000", program)[0] == -signal.SIGXFSZ
    assert (tmp_path / "file").stat().st_size == 10_000


@pytest.mark.parametrize("text", ["a", "a:b", "a:", "a:1:burn", "a:1:raise:2"])
def test_a_misspelt_fault_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="FAULT must be"):
        parse(text)


def test_the_examples_are_right() -> None:
    assert doctest.testmod(faults).failed == 0
