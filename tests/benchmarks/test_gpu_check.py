"""``scripts/gpu_check``: whatever becomes of a test or of the time, there is a report that one can act on."""

import ast
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import report, timing
from benchmarks.gpu.checking import ROOT, Check

TESTS = '''
import os, signal, subprocess, sys, time
import pytest

pytestmark = pytest.mark.gpu

def test_passes(record_property):
    """A test that passes shows a figure.

    This is not shown."""
    record_property("figure", 0.25)

def test_fails():
    """One that fails is followed by the others."""
    assert 1 + 1 == 3, "sums are wrong"

@pytest.mark.share(2)
def test_hangs():
    """One that hangs is ended after its share, with what it has started."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    open("CHILD", "w").write(str(child.pid))
    print("this is what it said", flush=True)
    time.sleep(1000)

def test_dies():
    """One that ends its process has failed."""
    os.kill(os.getpid(), signal.SIGSEGV)

def test_skips():
    pytest.skip("no such GPU")

def test_leaves_a_mess(mess):
    """One whose end fails has failed."""

@pytest.fixture
def mess():
    yield
    raise RuntimeError("a mess")

def test_is_last():
    pass

def test_is_for_no_gpu():
    pass
'''


def checked(folder: Path, text: str, seconds: float = 120.0, **options: Any) -> Check:
    path = folder / "test_some.py"
    path.write_text(text.replace("CHILD", str(folder / "child")))
    check = Check([path.name], time.time() + seconds, folder, variables={"GPU_CHECK": ""}, root=home(folder), **options)
    check.run()
    return check


def home(folder: Path) -> Path:
    """``folder``, as the top of a project of its own."""
    (folder / "pyproject.toml").write_text("[tool.pytest.ini_options]\nmarkers = ['gpu', 'share']\n")
    return folder


def by_name(check: Check) -> dict[str, dict[str, Any]]:
    return {entry["test"].split("::")[-1]: entry for entry in check.entries}


def test_every_test_is_run_whatever_becomes_of_the_others(tmp_path: Path) -> None:
    changes: list[int] = []
    check = checked(tmp_path, TESTS, on_change=lambda: changes.append(1))
    assert not check.problem
    found = by_name(check)
    assert {name: entry["outcome"] for name, entry in found.items()} == {
        "test_passes": "passed",
        "test_fails": "failed",
        "test_hangs": "failed",
        "test_dies": "failed",
        "test_skips": "skipped",
        "test_leaves_a_mess": "failed",
        "test_is_last": "passed",
        "test_is_for_no_gpu": "passed",
    }
    assert found["test_passes"]["shows"] == "A test that passes shows a figure."
    assert found["test_passes"]["figures"] == {"figure": 0.25}
    assert found["test_passes"]["where"] == "GPU"
    assert "sums are wrong" in found["test_fails"]["error"]
    assert found["test_hangs"]["error"].startswith("took longer than 2 s")
    assert "ended with code -11" in found["test_dies"]["error"]
    assert "no such GPU" in found["test_skips"]["error"]
    assert "a mess" in found["test_leaves_a_mess"]["error"]
    assert len(changes) >= len(found)
    child = int((tmp_path / "child").read_text())
    assert not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2]


def test_when_the_time_is_over_the_rest_has_not_run(tmp_path: Path) -> None:
    slow = "import pytest, time\npytestmark = pytest.mark.gpu\n"
    slow += "def test_a(): pass\ndef test_b(): time.sleep(1000)\ndef test_c(): pass\n"
    began = time.time()
    check = checked(tmp_path, slow, seconds=15)
    assert time.time() - began < 25
    outcomes = {name: entry["outcome"] for name, entry in by_name(check).items()}
    assert outcomes == {"test_a": "passed", "test_b": "not run", "test_c": "not run"}
    assert report.counts(check.entries) == {"passed": 1, "failed": 0, "skipped": 0, "not run": 2}


def test_a_file_that_cannot_be_read_is_a_failure_and_the_others_run(tmp_path: Path) -> None:
    (tmp_path / "test_broken.py").write_text("import nothing_of_that_name\n")
    (tmp_path / "test_good.py").write_text("import pytest\n@pytest.mark.gpu\ndef test_a(): pass\n")
    check = Check(["test_broken.py", "test_good.py"], time.time() + 60, tmp_path, variables={}, root=home(tmp_path))
    check.run()
    (broken, good) = sorted(check.entries, key=lambda entry: entry["outcome"])
    assert (broken["outcome"], good["outcome"]) == ("failed", "passed")
    assert "nothing_of_that_name" in broken["error"]


# ------------------------------------------------------------------ the report
def test_a_report_can_be_committed_as_it_is(tmp_path: Path) -> None:
    about = {"title": "Run on a GPU", "date": "2030-01-01", "GPU": "an H100"}
    error = f"Traceback\n  File {ROOT}/tests/gpu/test_a.py\n  in {sys.prefix}/bin\nE  {tmp_path}/x is wrong | ```"
    tests = [
        {"test": "tests/gpu/test_a.py::test_b[1|2]", "shows": "That b.", "outcome": "passed", "where": "GPU"},
        {
            "test": "tests/gpu/test_a.py::test_c",
            "shows": "That c.",
            "outcome": "failed",
            "error": error,
            "seconds": 2.5,
        },
        {"test": "tests/gpu/test_a.py::test_d", "shows": "That d.", "outcome": "skipped", "error": "Skipped: no d"},
        {"test": "tests/gpu/test_a.py::test_e", "outcome": "not run"},
    ]
    lean = [{"wall": wall, "cpu": 1.0} for wall in (100.0, 200.0, 300.0)]
    ours = [{"wall": wall, "cpu": 1.0} for wall in (150.0, 100.0, 330.0)]
    other = [{"skipped": "AttributeError: no such thing"}]
    measured: Any = {"W1": {"lean": lean, "ours": ours, "lightning": other}, "W2": {}, "W3": {"lean": [{"value": 5.0}]}}
    summary = timing.summary_of(measured)
    assert summary["W1"]["ours"] == {"median": 150.0, "low": 100.0, "high": 330.0, "ratio": 1.1, "rounds": 3}
    report.write(tmp_path, about, tests, {"what": "medians.", "summary": summary, "rounds": measured})
    page, data = (tmp_path / "report.md").read_text(), json.loads((tmp_path / "report.json").read_text())
    for text in (page, json.dumps(data)):
        assert str(ROOT) not in text
        assert str(tmp_path) not in text
        assert sys.prefix not in text
    assert "- tests: 1 passed, 1 failed, 1 skipped, 1 not run" in page
    assert "| W1 | 200 (100 to 300) | 1.00 | 150 (100 to 330) | 1.10 | skipped: AttributeError: no such thing" in page
    assert "| test_a.py::test_d | That d. |  | skipped: Skipped: no d |" in page
    assert "### tests/gpu/test_a.py::test_c\n\nThat c.\n\n```text\nTraceback\n" in page
    assert data["counts"]["failed"] == 1
    assert data["benchmarks"]["rounds"]["W1"]["ours"] == ours
    assert data["tests"][1]["seconds"] == 2.5


def run(*arguments: str, **variables: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "benchmarks.gpu", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def test_a_run_that_is_ended_leaves_a_report_of_what_it_had(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(
        "import pytest, time\npytestmark = pytest.mark.gpu\ndef test_a(): pass\ndef test_b(): time.sleep(1000)\n"
    )
    process = run("--dry-run", "--only", "tests", "--out", str(tmp_path / "out"), str(tmp_path / "test_some.py"))
    seen, deadline = tmp_path / "out" / "report.json", time.time() + 100
    while not (seen.exists() and json.loads(seen.read_text())["counts"]["passed"]) and time.time() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    data = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [entry["outcome"] for entry in data["tests"]] == ["passed", "not run"]
    assert "incomplete" in data["about"]
    assert data["about"]["title"] == "A trial without a GPU: nothing here was run on one"


@pytest.mark.parametrize(("body", "code"), [("assert False", 1), ("time.sleep(1000)", 3)])
def test_the_exit_code_says_what_became_of_it(tmp_path: Path, body: str, code: int) -> None:
    text = f"import pytest, time\npytestmark = pytest.mark.gpu\ndef test_a(): {body}\n"
    (tmp_path / "test_some.py").write_text(text)
    minutes = "0.5" if code == 3 else "3"
    arguments = ["--dry-run", "--only", "tests", "--minutes", minutes, "--out", str(tmp_path / "out")]
    process = run(*arguments, str(tmp_path / "test_some.py"))
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert out.splitlines()[-1] == str(tmp_path / "out" / "report.md")


def test_benchmarks_stop_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        def __init__(self, name: str, python: str, device: str) -> None:
            self.nb = 0

        def measure(self, workload: str, small: int, full: int, seconds: float) -> dict[str, float]:
            assert seconds <= timing.LONGEST
            time.sleep(0.01)
            self.nb += 1
            return {"wall": 1.0, "cpu": 1.0} if workload != "W4" else {"skipped": "its process ended"}

        def end(self) -> None:
            ended.append(self.nb)

    ended: list[int] = []
    monkeypatch.setattr(timing, "Worker", Slow)
    whole = timing.Measuring(time.time() + 60, "cpu", trial=False)
    whole.run()
    assert whole.nb_rounds == timing.ROUNDS
    assert {len(whole.measured[w][n]) for w in timing.WORKLOADS for n in ("lean", "ours")} == {timing.ROUNDS}
    assert timing.summary_of(whole.measured)["W4"]["ours"] == {"skipped": "its process ended"}
    cut = timing.Measuring(time.time() + 0.05, "cpu", trial=False)
    cut.run()
    assert cut.nb_rounds < timing.ROUNDS
    assert cut.measured["W1"]["lean"]
    assert len(ended) >= 4


# ------------------------------------------------------------------ without a GPU
no_gpu = pytest.mark.skipif(torch.cuda.is_available() or Path("/dev/nvidia0").exists(), reason="there is a GPU")


@no_gpu
def test_without_a_gpu_one_line_says_so(tmp_path: Path) -> None:
    process = run("--out", str(tmp_path))
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert out.startswith("there is no GPU here (torch ")
    assert out.rstrip().endswith("nothing was run. For a trial on the CPU: scripts/gpu_check --dry-run")
    assert not list(tmp_path.iterdir())


def script(folder: Path, **pythons: str) -> subprocess.CompletedProcess[str]:
    """Run the script where these are the only pythons of the machine."""
    for tool in ("bash", "dirname", "date", "ls", "env"):
        found = subprocess.run(["which", tool], capture_output=True, text=True, check=True).stdout.strip()
        (folder / tool).symlink_to(found)
    for name, text in pythons.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    environment = {"PATH": str(folder), "VIRTUAL_ENV": ""}
    return subprocess.run([ROOT / "scripts" / "gpu_check"], env=environment, capture_output=True, text=True)


def test_the_script_wants_a_python_of_today(tmp_path: Path) -> None:
    done = script(tmp_path, python3="#!/bin/sh\nexit 1\n")
    assert done.returncode == 2
    assert "there is no python of version 3.11 or later here" in done.stderr


@no_gpu
def test_the_script_fetches_nothing_where_there_is_no_gpu(tmp_path: Path) -> None:
    done = script(tmp_path, python3="#!/bin/sh\necho torch\n")
    assert done.returncode == 2, done.stderr
    assert done.stdout.startswith("there is no GPU here (no device of one in /dev): nothing was run.")


# ------------------------------------------------------------------ the tests themselves
def marked(path: Path) -> list[ast.FunctionDef]:
    """The tests of a file that are for a GPU."""
    tree = ast.parse(path.read_text())
    all_are = any(
        isinstance(node, ast.Assign) and ast.unparse(node) == "pytestmark = pytest.mark.gpu" for node in tree.body
    )
    tests = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    return [t for t in tests if all_are or any("mark.gpu" in ast.unparse(d) for d in t.decorator_list)]


def test_each_test_for_a_gpu_says_what_it_shows() -> None:
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    found = {path: marked(path) for path in files}
    assert sum(map(len, found.values())) > 40
    assert not [f"{path}:{test.lineno}" for path in files for test in found[path] if not ast.get_docstring(test)]
    for path in (ROOT / "tests" / "gpu").glob("test_*.py"):
        assert len(found[path]) == path.read_text().count("\ndef test_"), path
