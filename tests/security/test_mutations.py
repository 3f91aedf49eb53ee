"""Files as somebody might change them, by chance or on purpose: each is read right or refused, and nothing else.

``--mutations 2000`` tries more of them; a failure names what makes the same one again.
"""

import contextlib
import io
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pytorch_lightning.errors import LightningError
from tests.security import hostile, mutations, victims
from tests.security.victims import TARGETS, Outcome

ROOM = 64 * hostile.MB
"""What reading a file may take beside twice its size."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    with quiet():
        victims.write_all(folder)
        for target in TARGETS.values():  # what is imported once is nobody's
            for reader in target.readers:
                read_copy(folder, folder.with_name("warm"), target, reader)
    return folder


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    said = io.StringIO()
    with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        yield


def read_copy(files: Path, work: Path, target: victims.Target, reader: Any) -> Any:
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(files, work)
    try:
        reader(target.path(work))
    except Exception as error:
        return error
    return None


WAYS = [(name, reader) for name, target in TARGETS.items() for reader in target.readers]


@pytest.mark.parametrize(("name", "reader"), WAYS, ids=[f"{n}, {r.__name__}" for n, r in WAYS])
def test_what_nobody_changed_is_read(name: str, reader: Any, files: Path, tmp_path: Path) -> None:
    with quiet():
        error = read_copy(files, tmp_path / "work", TARGETS[name], reader)
    assert error is None if name != "bundle" else str(error) == "the fourth"


def test_mutated_files_are_read_right_or_refused_in_one_line(
    files: Path, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    first, number = (pytestconfig.getoption(name) for name in ("--first-seed", "--mutations"))
    names = list(TARGETS)
    refused, most_seconds, most_memory, wrong = 0, 0.0, 0, list[str]()
    for i in range(first, first + number):
        name = names[i % len(names)]
        with quiet():
            what, outcome = victims.attempt(TARGETS[name], f"{name} {i}", files, tmp_path / "work")
        try:
            check(f"{name}, the {i}th: {what}", outcome)
        except AssertionError as error:
            wrong.append(str(error).split("\nassert")[0])
        refused += outcome.error is not None
        most_seconds = max(most_seconds, outcome.seconds)
        most_memory = max(most_memory, outcome.peak - 2 * outcome.size)
    print(f"{number} files, {refused} refused; at most {most_seconds:.2f} s and {most_memory / hostile.MB:.0f} MB")
    assert not wrong, "\n".join([f"{len(wrong)} of {number}", *wrong[:20]])
    assert number / 4 < refused < number, "mutations that change nothing, or readers that refuse everything"


def check(what: str, outcome: Outcome) -> None:
    assert not outcome.ran, f"{what} ran code"
    assert outcome.seconds < hostile.MOST_SECONDS, f"{what} took {outcome.seconds} s"
    assert outcome.peak < 2 * outcome.size + ROOM, f"{what} took {outcome.peak:,} bytes"
    if outcome.error is None or outcome.is_the_users:
        return
    assert isinstance(outcome.error, LightningError), f"{what}: {outcome.error!r}"
    hostile.check_one_line(outcome.error)


def test_what_is_loaded_of_a_mutated_checkpoint_is_what_it_holds(files: Path, tmp_path: Path) -> None:
    """The same weights as torch itself reads, where the file isn't refused; with flipped bits those before the flip."""
    import random

    source, loaded = TARGETS["kept"].path(files), 0
    before = torch.load(source, weights_only=True)["state_dict"]
    for i in range(200):
        r, path = random.Random(i), tmp_path / "x.ckpt"
        shutil.copy(source, path)
        kind = r.choice(["bits", "lengths", "types", "names"])
        direct = kind in mutations.BYTES
        with quiet():
            if direct:
                path.write_bytes(mutations.BYTES[kind](r, path.read_bytes()))
            else:
                mutations.mutate_checkpoint(r, path, kind, tmp_path / "ran")
        with quiet(), contextlib.suppress(LightningError, TypeError, ValueError):
            found = victims.load(path)
            expected = before if direct else torch.load(path, weights_only=True)["state_dict"]
            assert set(found) == set(expected)
            for name, value in expected.items():
                assert torch.equal(found[name], value.to(found[name].dtype)), f"{kind}, the {i}th: {name}"
            loaded += 1
    assert loaded > 20
