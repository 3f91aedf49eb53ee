"""What README shows is what runs."""

import json
import re
import xml.etree.ElementTree
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_example_runs_and_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in example.splitlines() if line.strip()]) <= 25
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {"__name__": "__main__"})
    shown = capsys.readouterr().out
    assert float(re.findall(r"'acc': ([0-9.]+)", shown)[-1]) > 0.5
    assert (tmp_path / "lightning_logs/Classifier/version_0/metrics.csv").exists()


def test_its_files_exist() -> None:
    for path in re.findall(r"\]\((pytorch_lightning/[^)]+)\)|`(examples/[^`]+\.py)`", README):
        assert (Path(__file__).parent.parent / (path[0] or path[1])).exists(), path


def test_its_commands_are_those_that_are_checked() -> None:
    checked = (Path(__file__).parent.parent / ".ci" / "run").read_text()
    commands = re.findall(r"```bash\n(.*?)\n```", README, re.DOTALL)
    assert commands == [
        "pip install -e . && python examples/new_project_templates/single_cpu_template.py",
        "python -m pytorch_lightning new my_project && cd my_project && python train.py",  # tests/commands
        'pip install -e ".[test]" && pytest -n 2 --dist loadfile',
    ]
    assert 'pip install --quiet -e ".[test]"\n' in checked
    assert re.search(r"^tested -n 2 --dist loadfile$", checked, re.MULTILINE)
    assert "python single_cpu_template.py" in checked


def test_the_long_tests_are_run_too() -> None:
    checked = (Path(__file__).parent.parent / ".ci" / "run").read_text()
    assert re.search(r"^tested -n 2 --dist loadfile --all -m slow$", checked, re.MULTILINE)


def test_pre_commit_runs_the_quick_checks_of_ci() -> None:
    root = Path(__file__).parent.parent
    hooks = re.findall(r"entry: (.*)", (root / ".pre-commit-config.yaml").read_text())
    commands = [entry.removesuffix(" --force-exclude") for entry in hooks]
    assert commands == ["ruff check", "ruff format --check", "mypy"]
    checked = (root / "scripts" / "check").read_text()
    assert all(re.search(rf"^{re.escape(command)}( \.)?$", checked, re.MULTILINE) for command in commands)
    assert re.search("^scripts/check ", (root / ".ci" / "run").read_text(), re.MULTILINE)


def test_its_figures_are_those_that_were_measured() -> None:
    results = Path(__file__).parent.parent / "benchmarks" / "results" / "results.json"
    summary = json.loads(results.read_text())["summary"]
    for workload, kind, factor, unit in (
        ("W1list", "cpu", 1, "us"),
        ("W1", "cpu", 1, "us"),
        ("W3", "value", 1000, "ms"),
    ):
        medians = [summary[workload][name][kind]["median"] / factor for name in ("lean", "ours")]
        texts = [f"{median:.{0 if factor == 1 else 1}f} {unit}" for median in medians]
        assert f"| {' | '.join(texts)} |" in README, texts


def test_it_gives_the_figures_of_a_loop_that_indexes_its_tensors() -> None:
    results = Path(__file__).parent.parent / "benchmarks" / "results" / "results.json"
    summary = json.loads(results.read_text())["summary"]
    for workload in ("W1", "W4"):
        direct, ours = (summary[workload][name]["cpu"]["median"] for name in ("direct", "ours"))
        assert f"{direct:.0f} us against {ours:.0f} us" in README


def test_it_counts_the_planted_mistakes() -> None:
    from tests.mistakes.newcomers import MISTAKES
    from tests.mistakes.test_newcomers import RAW

    assert f"Of {len(MISTAKES)} planted mistakes" in README
    assert f"{len(MISTAKES) - len(RAW)} are named" in README
    programs = Path(__file__).parent / "frozen" / "programs"
    assert f"{len(list(programs.glob('*.py')))} programs of 2019" in README


def test_the_recording_is_small_and_shows_a_kill_and_a_resume() -> None:
    text = (Path(__file__).parent.parent / "docs" / "recording.svg").read_text()
    assert len(text.encode()) <= 200_000
    frames = xml.etree.ElementTree.fromstring(text).findall(".//{*}g")
    last = [line.text or "" for line in frames[-1]]
    place = last.index("Killed")
    assert any("--resume auto" in line for line in last[place:])
    assert any(line.startswith("epoch 3: ") for line in last[place:])
    assert not any(line.startswith("epoch 1: ") for line in last[place:])
