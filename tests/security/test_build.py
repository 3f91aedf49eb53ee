"""The wheel and the sdist, bit for bit: the same files give the same bytes, wherever and whenever they are built."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import pytorch_lightning

ROOT = Path(__file__).parent.parent.parent
SOURCES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "CHANGELOG.md", "LICENSE", "pytorch_lightning")
SOURCES = (*SOURCES, "examples", "docs", "tests/test_architecture.py")

try:
    SETUPTOOLS = int(importlib.metadata.version("setuptools").split(".")[0])
except importlib.metadata.PackageNotFoundError:
    SETUPTOOLS = 0

pytestmark = [
    pytest.mark.packaging,
    pytest.mark.skipif(SETUPTOOLS < 77, reason='no setuptools of 77 or newer is installed: pip install -e ".[test]"'),
]

MADE = ("__pycache__", "lightning_logs", "_build", "test_tube_logs", "model_weights")
"""Folders that programs, and the docs' own, leave there."""

HOOKS = """
import sys
from setuptools import build_meta
print(getattr(build_meta, sys.argv[1])(sys.argv[2]))
"""
"""What ``pip`` and ``python -m build`` call."""


def build(kind: str, clone: Path, output: Path, **environment: str) -> bytes:
    """The bytes of the ``wheel`` or ``sdist`` that is built in ``clone``."""
    variables = {name: value for name, value in os.environ.items() if name not in ("SOURCE_DATE_EPOCH", "PYTHONPATH")}
    done = subprocess.run(
        [sys.executable, "-c", HOOKS, f"build_{kind}", str(output)],
        cwd=clone,
        env={**variables, **environment},
        capture_output=True,
        text=True,
        umask=int(environment.get("UMASK", "022"), 8),
    )
    assert done.returncode == 0, done.stderr
    return (output / done.stdout.splitlines()[-1]).read_bytes()


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """A copy of what a build reads."""
    clone = tmp_path / "clean"
    for name in SOURCES:
        source, target = ROOT / name, clone / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns(*MADE))
        else:
            shutil.copy(source, target)
    return clone


@pytest.fixture
def used(clean: Path, tmp_path: Path) -> Path:
    """The same on another machine: other times, other modes, and leftovers of work on it."""
    clone = tmp_path / "used by somebody else"
    shutil.copytree(clean, clone)
    for number, path in enumerate(sorted(clone.rglob("*"))):
        path.chmod(0o700 if path.is_dir() or number % 3 == 0 else 0o600)
        os.utime(path, (1_600_000_000 + number * 1000, 1_600_000_000 + number * 1000))
    old = ("build/lib/pytorch_lightning", "build/bdist.linux-x86_64/wheel/pytorch_lightning", "pytorch_lightning")
    for folder in old:
        (clone / folder).mkdir(parents=True, exist_ok=True)
        (clone / folder / "secret.txt").write_text("not for others")
    for folder in old[:2]:
        (clone / folder / "removed.py").write_text("gone = True")
    (clone / "secret.txt").write_text("not for others")
    (clone / "pytorch_lightning" / "__pycache__").mkdir()
    (clone / "pytorch_lightning" / "__pycache__" / "trainer.cpython-311.pyc").write_bytes(b"compiled")
    (clone / "pytorch_lightning_classic.egg-info").mkdir()
    listed = "\n".join(["secret.txt", "pytorch_lightning/secret.txt", "setup.py"])
    (clone / "pytorch_lightning_classic.egg-info" / "SOURCES.txt").write_text(listed)
    return clone


ELSEWHERE = {"TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONHASHSEED": "7", "UMASK": "077", "USER": "somebody"}


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_two_builds_give_the_same_bytes(kind: str, clean: Path, used: Path, tmp_path: Path) -> None:
    first = build(kind, clean, tmp_path / "first")
    assert build(kind, clean, tmp_path / "again") == first
    assert build(kind, used, tmp_path / "elsewhere", **ELSEWHERE) == first


def test_a_wheel_from_the_sdist_is_the_same(clean: Path, tmp_path: Path) -> None:
    build("sdist", clean, tmp_path / "sdist")
    (path,) = (tmp_path / "sdist").iterdir()
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path, filter="data")
    unpacked = tmp_path / path.name.removesuffix(".tar.gz")
    assert build("wheel", unpacked, tmp_path / "from sdist") == build("wheel", clean, tmp_path / "from clone")


def test_a_date_from_outside_wins(clean: Path, tmp_path: Path) -> None:
    build("wheel", clean, tmp_path, SOURCE_DATE_EPOCH="1700000000")
    build("sdist", clean, tmp_path, SOURCE_DATE_EPOCH="1700000000")
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        assert {member.date_time[:3] for member in wheel.infolist()} == {(2023, 11, 14)}
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        assert {member.mtime for member in archive} == {1_700_000_000}


def test_the_wheel_holds_the_package_and_nothing_else(clean: Path, tmp_path: Path) -> None:
    build("wheel", clean, tmp_path)
    (path,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        members = {member.filename: member for member in wheel.infolist()}
        held = {name: wheel.read(name) for name in members if ".dist-info/" not in name}
    files = [path for path in (clean / "pytorch_lightning").rglob("*") if path.is_file()]
    package = {path.relative_to(clean).as_posix(): path.read_bytes() for path in files}
    assert held == package
    modes = {member.external_attr >> 16 for name, member in members.items() if not name.endswith("/RECORD")}
    assert modes == {0o100644}


def test_the_sdist_holds_the_package_the_examples_and_the_docs(clean: Path, tmp_path: Path) -> None:
    build("sdist", clean, tmp_path)
    (path,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        held = {member.name.split("/", 1)[1] for member in archive if member.isfile()}
    kinds = {"pytorch_lightning": ["*"], "examples": ["*.py"], "docs": ["*.md", "*.py", "*.svg"]}
    found = [path for name, patterns in kinds.items() for kind in patterns for path in (clean / name).rglob(kind)]
    wanted = [path for path in found if path.is_file()]
    assert {p.relative_to(clean).as_posix() for p in wanted} | {"CHANGELOG.md", "LICENSE", "README.md"} <= held


def test_the_version_is_that_of_the_package(clean: Path, tmp_path: Path) -> None:
    build("wheel", clean, tmp_path)
    (path,) = tmp_path.glob("*.whl")
    assert path.name.split("-")[:2] == ["pytorch_lightning_classic", pytorch_lightning.__version__]


def test_the_documented_command_builds_both(clean: Path, tmp_path: Path) -> None:
    pytest.importorskip("build", reason='build isn\'t installed: pip install -e ".[test]"')
    for output in ("first", "second"):
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path / output)]
        done = subprocess.run(command, cwd=clean, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / o).iterdir()} for o in ("first", "second"))
    assert len(first) == 2
    assert first == second
