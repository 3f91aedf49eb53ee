"""The wheel in a venv of its own, without the repository: each template starts a project that trains and tests."""

import os
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

from pytorch_lightning.commands.new import ABOUT
from tests.security import test_build
from tests.security.test_build import MADE, ROOT, SOURCES, build

pytestmark = [*test_build.pytestmark, pytest.mark.slow]

Python = tuple[Path, dict[str, str]]
"""The python of the venv, and its environment."""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Python:
    """A python that has the wheel, and of what is installed here only what the wheel depends on."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source, target = ROOT / name, folder / "clone" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns(*MADE))
        else:
            shutil.copy(source, target)
    build("wheel", folder / "clone", folder)
    shutil.rmtree(folder / "clone")
    venv.create(folder / "venv", with_pip=True)
    program = folder / "venv" / "bin" / "python"
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
    variables["http_proxy"] = variables["https_proxy"] = "http://127.0.0.1:9/"  # nobody is there
    (wheel,) = folder.glob("*.whl")
    command = [program, "-m", "pip", "install", "--no-index", "--no-deps", "--quiet", str(wheel)]
    subprocess.run(command, env=variables, check=True)
    # torch and the others are large, so they aren't installed again; .pth files there, of clones, have no effect here
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n" + sysconfig.get_path("platlib") + "\n")
    return program, variables


def run(python: Python, folder: Path, *words: str) -> str:
    program, variables = python
    done = subprocess.run([program, *words], cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_package_is_that_of_the_wheel(python: Python, tmp_path: Path) -> None:
    program, _ = python
    where = run(python, tmp_path, "-c", "import pytorch_lightning; print(pytorch_lightning.__file__)")
    assert Path(where.strip()).is_relative_to(program.parent.parent)
    (tmp_path / "metrics.csv").write_text("global_step,val_loss\n0,1.0\n1,0.5\n")
    assert "report.html: " in run(python, tmp_path, "-m", "pytorch_lightning", "report", ".")  # its template is there


@pytest.mark.parametrize("template", ABOUT)
def test_a_project_trains_and_its_tests_pass(template: str, python: Python, tmp_path: Path) -> None:
    run(python, tmp_path, "-m", "pytorch_lightning", "new", "my_project", "--template", template)
    project = tmp_path / "my_project"
    assert "passed" in run(python, project, "-m", "pytest", "-p", "no:cacheprovider")
    assert not list(project.glob("lightning_logs")), "a test leaves nothing"
    out = run(python, project, "train.py", "--max_nb_epochs", "1", "--train_percent_check", "0.3")
    assert "epoch 1" in out
    assert "WARNING" not in out
    assert len(list(project.glob("lightning_logs/*/version_0/metrics.csv"))) == 1
    left = {"mnist": "weights", "text": "weights", "tabular": "weights", "gan": "images", "minimal": "lightning_logs"}
    assert any((project / left[template]).iterdir())
