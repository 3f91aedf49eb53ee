"""What else is imported as ``pytorch_lightning`` is named at the import, in one line."""

import base64
import hashlib
import importlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

import pytorch_lightning
from pytorch_lightning.namesakes import warn_of_namesakes

PACKAGE = Path(pytorch_lightning.__file__).parent
IMPORT = "import pytorch_lightning; print(pytorch_lightning.__version__)"


def run(*folders: Path, script: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """``script``, or an import, in a python of its own that finds packages in ``folders`` first."""
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders)), **environment}
    command = [sys.executable, str(script)] if script else [sys.executable, "-c", IMPORT]
    return subprocess.run(command, capture_output=True, text=True, env=variables, cwd=folders[0].parent)


def install(site: Path, name: str, version: str, files: dict[str, bytes]) -> None:
    """Unpack a wheel made of ``files`` into ``site``, as an installer does."""
    metadata = f"{name}-{version}.dist-info"
    files = {**files, f"{metadata}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()}
    rows = []
    for path, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        rows.append(f"{path},sha256={digest},{len(data)}\n")
    files[f"{metadata}/RECORD"] = "".join([*rows, f"{metadata}/RECORD,,\n"]).encode()
    for path, data in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_bytes(data)


def ours() -> dict[str, bytes]:
    return {path.relative_to(PACKAGE.parent).as_posix(): path.read_bytes() for path in PACKAGE.rglob("*.py")}


THEIRS = {
    "pytorch_lightning/__init__.py": b"__version__ = '2.6.6'\n",
    "pytorch_lightning/trainer/trainer.py": b"class Trainer: 'another one'\n",
    "pytorch_lightning/core/module.py": b"class LightningModule: 'another one'\n",
}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed packages with this one, and with what has a name much like another's."""
    folder = tmp_path / "lib" / "site-packages"
    install(folder, "pytorch_lightning_classic", "0.1.0", ours())
    install(folder, "lightning_utilities", "0.15.3", {"lightning_utilities/__init__.py": b""})
    install(folder, "pytorch_lightning_bolts", "0.7.0", {"pl_bolts/__init__.py": b""})
    return folder


def test_alone_it_says_nothing(site: Path) -> None:
    done = run(site)
    assert (done.stdout, done.stderr) == (f"{pytorch_lightning.__version__}\n", "")


def test_what_is_installed_together_is_named_in_one_line(site: Path, tmp_path: Path) -> None:
    install(site, "lightning", "2.6.6", {"lightning/__init__.py": b""})
    install(site, "pytorch_lightning", "2.6.5.post0", THEIRS)
    install(site, "pytorch_lightning_classic", "0.1.0", ours())
    script = tmp_path / "train.py"
    script.write_text("# a comment\nimport pytorch_lightning\nimport pytorch_lightning\nprint('trained')\n")
    done = run(site, script=script)
    assert (done.returncode, done.stdout) == (0, "trained\n")
    line, source = done.stderr.splitlines()
    assert line == (
        f"{script}:2: UserWarning: pytorch-lightning-classic is installed together with lightning 2.6.6 and"
        " pytorch-lightning 2.6.5.post0, of the same import name: each overwrites or removes files of the other. Keep"
        " one: `pip uninstall lightning pytorch-lightning`, then"
        " `pip install --force-reinstall --no-deps pytorch-lightning-classic`, or use an environment for each"
    )
    assert source == "  import pytorch_lightning"


def test_the_line_can_be_silenced(site: Path) -> None:
    install(site, "lightning", "2.6.6", {"lightning/__init__.py": b""})
    done = run(site, PYTHONWARNINGS="ignore:pytorch-lightning-classic is installed")
    assert (done.stdout, done.stderr) == (f"{pytorch_lightning.__version__}\n", "")


def test_another_in_a_further_folder_is_named_too(site: Path, tmp_path: Path) -> None:
    """An editable install has its files elsewhere."""
    clone = tmp_path / "clone"
    shutil.copytree(PACKAGE, clone / "pytorch_lightning", ignore=shutil.ignore_patterns("__pycache__"))
    old = site / "pytorch_lightning-0.1.dev1831-py3.7.egg-info"
    old.mkdir()
    done = run(clone, site)
    assert done.stdout == f"{pytorch_lightning.__version__}\n"
    assert "installed together with pytorch-lightning 0.1.dev1831, of" in done.stderr


def test_overwritten_files_are_an_error(site: Path) -> None:
    """Not those that the other one alone has, and not those that were changed."""
    install(site, "pytorch_lightning", "2.6.6", THEIRS)
    (site / "pytorch_lightning" / "__init__.py").write_bytes(ours()["pytorch_lightning/__init__.py"])
    done = run(site)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ImportError: pytorch-lightning-classic is broken: pytorch-lightning 2.6.6, of the same import name, has"
        f" overwritten 1 of its files in {site}, pytorch_lightning/trainer/trainer.py among them. To repair it:"
        " `pip uninstall pytorch-lightning`, then"
        " `pip install --force-reinstall --no-deps pytorch-lightning-classic`, or use an environment for each"
    )
    (site / "pytorch_lightning" / "trainer" / "trainer.py").write_text("# changed by hand\n")
    done = run(site)
    assert done.returncode == 0
    assert "installed together with pytorch-lightning 2.6.6" in done.stderr


def test_metadata_without_a_list_of_files_is_enough(site: Path) -> None:
    install(site, "pytorch_lightning", "2.6.6", {})
    for record in site.glob("*/RECORD"):
        record.unlink()
    done = run(site)
    assert (done.returncode, done.stdout) == (0, f"{pytorch_lightning.__version__}\n")
    assert "installed together with pytorch-lightning 2.6.6, of" in done.stderr


SPAWNS = """
import multiprocessing
import pytorch_lightning

if __name__ == "__main__":
    for method in ("spawn", "forkserver"):
        child = multiprocessing.get_context(method).Process(target=print, args=(pytorch_lightning.__version__,))
        child.start()
        child.join()
    print(pytorch_lightning.__version__)
"""


def test_only_the_first_process_says_it(site: Path, tmp_path: Path) -> None:
    install(site, "lightning", "2.6.6", {"lightning/__init__.py": b""})
    assert run(site, RANK="0").stderr != ""
    assert [run(site, **{name: "1"}).stderr for name in ("RANK", "SLURM_PROCID")] == ["", ""]
    script = tmp_path / "train.py"
    script.write_text(SPAWNS)
    done = run(site, script=script)
    assert done.stdout == f"{pytorch_lightning.__version__}\n" * 3
    assert done.stderr.count("UserWarning") == 1


def test_a_name_that_only_the_other_one_has_is_missing_as_usual() -> None:
    """Programs ask with ``hasattr``, ``getattr`` with a default, and ``try: from ... import``."""
    assert not hasattr(pytorch_lightning, "LightningDataModule")
    assert getattr(pytorch_lightning, "Callback", None) is None
    with pytest.raises(AttributeError, match="pytorch-lightning-classic has no attribute 'Callback'"):
        _ = pytorch_lightning.Callback
    with pytest.raises(ImportError, match="LightningDataModule"):
        from pytorch_lightning import LightningDataModule  # noqa: F401
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("pytorch_lightning.plugins")


def test_a_zip_of_the_package_can_be_imported(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "packages.zip", "w") as file:
        for name, data in ours().items():
            file.writestr(name, data)
    done = run(tmp_path / "packages.zip")
    assert (done.stdout, done.stderr) == (f"{pytorch_lightning.__version__}\n", "")


def test_the_look_takes_less_than_a_millisecond(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site-packages"
    for number in range(500):
        (site / f"some_package_{number}").mkdir(parents=True)
        (site / f"some_package_{number}-1.2.{number}.dist-info").mkdir()
    monkeypatch.setattr(sys, "path", [str(site)])
    fastest = 1.0
    for _ in range(50):
        started = time.perf_counter()
        warn_of_namesakes(str(site))
        fastest = min(fastest, time.perf_counter() - started)
    assert fastest < 0.001
