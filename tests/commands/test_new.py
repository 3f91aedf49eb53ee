"""``python -m pytorch_lightning new``: a project out of the package, and what is refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pytorch_lightning
from pytorch_lightning.commands import main
from pytorch_lightning.commands.new import ABOUT

ROOT = Path(pytorch_lightning.__file__).parent.parent


@pytest.mark.parametrize("template", ABOUT)
def test_a_project_has_its_files_and_nothing_else(
    template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "below/my project", "--template", template]) == 0
    assert "cd 'below/my project' && python train.py" in capsys.readouterr().out
    project = tmp_path / "below" / "my project"
    files = {path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file()}
    assert files - {"model.py"} == {"README.md", "pytest.ini", "tests/test_train.py", "train.py"}
    assert all(os.access(project / name, os.W_OK) for name in files)
    readme = (project / "README.md").read_text()
    for command in ("\npython train.py\n", "\npython -m pytest\n", "\npython train.py --resume auto\n"):
        assert command in readme


def test_mnist_is_what_one_gets_without_a_choice(tmp_path: Path) -> None:
    assert main(["new", str(tmp_path / "a")]) == main(["new", str(tmp_path / "b"), "--template", "mnist"]) == 0
    assert (tmp_path / "a" / "model.py").read_text() == (tmp_path / "b" / "model.py").read_text()


def test_an_empty_folder_is_filled_and_a_full_one_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", str(tmp_path)]) == 0
    (tmp_path / "train.py").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    assert main(["new", str(tmp_path), "--template", "gan"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "isn't empty" in err
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "train.py").read_text() == "mine"


@pytest.mark.parametrize(
    "name", ["", "  ", "a\nb", "a\0b", "\udcff", "x" * 300, "file", "file/below", "dangling", "/proc/no_place"]
)
def test_what_is_no_name_for_a_folder_is_refused_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert main(["new", name]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "Name " in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "file"]


def test_another_template_is_refused_with_those_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["new", str(tmp_path / "a"), "--template", "cifar"])
    err = capsys.readouterr().err
    assert all(name in err for name in ABOUT)
    assert not (tmp_path / "a").exists()


def test_a_package_without_its_templates_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.modules["pytorch_lightning.commands.new"], "TEMPLATES", tmp_path / "nowhere")
    assert main(["new", str(tmp_path / "a")]) == 1
    assert "install it again" in capsys.readouterr().err


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *words], cwd=folder, env=variables, capture_output=True, text=True)


def test_a_command_begins_without_torch(tmp_path: Path) -> None:
    done = run(tmp_path, "-X", "importtime", "-m", "pytorch_lightning", "new", "a")
    assert done.returncode == 0, done.stderr
    assert "argparse" in done.stderr
    assert "| torch" not in done.stderr


@pytest.mark.slow
def test_a_project_takes_the_trainers_options_and_refuses_those_that_nothing_reads(tmp_path: Path) -> None:
    assert main(["new", str(tmp_path / "a"), "--template", "minimal"]) == 0
    words = ("--max_nb_steps", "3", "--seed", "1", "--progress_bar", "false")
    first, second = (run(tmp_path / "a", "train.py", *words) for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert "batches 3, loss" in first.stdout
    assert first.stdout.splitlines()[-1] == second.stdout.splitlines()[-1], "the seed is that of the weights too"
    refused = run(tmp_path / "a", "train.py", "--tt_name", "digits")
    assert refused.returncode == 2
    assert "--tt_name" in refused.stderr
