"""The benchmarks run, and say what they measured."""

import json
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as main
from benchmarks import instructions, report
from benchmarks.targets import TARGETS
from benchmarks.worker import function_of
from benchmarks.workloads import WORKLOADS

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_a_quick_run_writes_a_table_json_and_a_chart(tmp_path: Path) -> None:
    workloads = "W1,W4,PROG"
    done = run("--quick", "--rounds", "2", "--only", workloads, "--contestants", "lean,ours", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["about"]["rounds"] == 2
    for value in ("first_us", "further_us", "fifty_us"):
        assert value in results["summary"]["PROG"]["ours"]
    for workload in ("W1", "W4"):
        for name in ("lean", "ours"):
            entry = results["summary"][workload][name]
            assert entry["whole_cpu"]["median"] > 0, (workload, name, entry)
        assert results["summary"][workload]["lean"]["whole_cpu_ratio"]["median"] == 1.0
        assert len(results["rounds"][workload]["ours"]) == 2
    assert {v["workload"] for v in results["targets"]} >= {"W1", "W4", "PROG"}
    table = (tmp_path / "results.md").read_text()
    assert table in done.stdout
    assert "| ours |" in table
    xml.etree.ElementTree.parse(tmp_path / "results.svg")


def quick(folder: Path, workloads: str, contestants: str = "lean,ours") -> Any:
    """What one round gives, by workload and contestant."""
    chosen = ("--only", workloads, "--contestants", contestants, "--out", str(folder))
    done = run("--quick", "--rounds", "1", *chosen)
    assert done.returncode == 0, done.stderr
    results = json.loads((folder / "results.json").read_text())
    skipped = [e for entries in results["summary"].values() for e in entries.values() if "skipped" in e]
    assert not skipped
    xml.etree.ElementTree.parse(folder / "results.svg")
    return results


def test_two_processes_are_measured_with_all_that_they_start(tmp_path: Path) -> None:
    results = quick(tmp_path, "DDP2")
    for name in ("lean", "ours"):
        entry = results["summary"]["DDP2"][name]
        # starting them takes seconds, which this process alone wouldn't show; a step takes milliseconds
        assert entry["whole_cpu"]["median"] > 1, entry
        assert 1e3 < entry["value"]["median"] < 1e7, entry
    assert results["targets"][0]["what"] == "time of a step, ratio to torchrun"


def test_whole_fits_are_measured(tmp_path: Path) -> None:
    results = quick(tmp_path, "REAL,EPOCHS,W5,REPORT,COLL")
    for name in ("lean", "ours"):
        found = {workload: results["summary"][workload].get(name, {}) for workload in results["summary"]}
        assert 1 < found["REAL"]["value"]["median"] < 1e5
        assert 0 < found["W5"]["best"]["median"] < 1e3
        assert found["EPOCHS"]["wall"]["median"] > 1e3  # ten steps, validation and checkpoint
    assert results["summary"]["COLL"]["lean"]["value"]["median"] == 1.0
    assert {"value", "mb"} <= results["summary"]["REPORT"]["ours"].keys()
    assert {target["workload"] for target in results["targets"]} >= {"REAL", "EPOCHS", "W5", "REPORT", "COLL"}


@pytest.mark.nightly
@pytest.mark.parametrize("workload", ["BIG", "CK", "DDPS", "FSDP2R", "RESTORE", "START2", "REALpersistent"])
def test_programs_with_processes_of_their_own_are_measured(tmp_path: Path, workload: str) -> None:
    results = quick(tmp_path, workload, "lean,direct,ours" if workload == "DDPS" else "lean,ours")
    assert set(results["summary"][workload]) >= {"lean", "ours"}
    assert len(results["targets"]) == len([target for target in TARGETS if target.workload == workload])


def test_each_workload_has_a_lean_loop_beside_ours() -> None:
    alone = {"PROG", "GROWTH", "REPORT"}  # what no loop by hand has
    for workload in WORKLOADS.keys() - {"START"}:
        assert function_of("ours", workload) is not None, workload
        assert (function_of("lean", workload) is None) == (workload in alone), workload
    assert all(function_of("direct", workload) for workload in ("W1", "W4", "DDPS"))


def test_an_unknown_workload_is_named() -> None:
    done = run("--only", "W1,W9")
    assert done.returncode == 2
    assert "unknown: W9" in done.stderr


def test_ratios_are_medians_of_ratios_within_a_round() -> None:
    lean = [{"cpu": c, "wall": c} for c in (100.0, 200.0, 400.0)]
    ours = [{"cpu": c, "wall": 2 * c} for c in (110.0, 180.0, 800.0)]
    summary = report.summarize({"W1": {"lean": lean, "ours": ours}})
    assert summary["W1"]["ours"]["cpu_ratio"] == pytest.approx({"median": 1.1, "low": 0.9, "high": 2.0})
    assert [line.split(":")[0] for line in report.warnings_of(summary)] == ["W1, ours"]


def test_ratios_are_to_the_loop_that_indexes_its_tensors_too() -> None:
    measured: Any = {"DDPS": {"lean": [{"value": 4.0}], "direct": [{"value": 2.0}], "ours": [{"value": 3.0}]}}
    summary = report.summarize(measured)
    assert summary["DDPS"]["ours"]["value_ratio"]["median"] == 0.75
    assert summary["DDPS"]["ours"]["value_to_direct"]["median"] == 1.5
    assert "value_to_direct" not in report.markdown({"date": "today"}, summary)


def test_what_was_skipped_says_why() -> None:
    measured: Any = {"DDP2": {"lean": [{"skipped": ""}], "ours": [{"skipped": "no processes"}]}}
    summary = report.summarize(measured)
    assert list(summary["DDP2"]) == ["ours"]
    assert "no processes" in report.markdown({"date": "today"}, summary)


def test_each_figure_is_compared_with_its_target() -> None:
    lean = [{"cpu": 200.0}, {"cpu": 200.0}]
    measured: Any = {
        "W1list": {"lean": lean, "ours": [{"cpu": 215.0}, {"cpu": 217.0}]},
        "PROG": {"ours": [{"first_us": 10.0, "further_us": 1.0, "fifty_us": 60.0}] * 2},
        "START": {"lean": [{"import": 1.0, "value": 2.0}], "ours": [{"import": 0.01, "value": 2.5}]},
        "DDP2": {"lean": [{"value": 2.0}] * 3, "ours": [{"value": 1.9}, {"value": 2.1}, {"value": 2.2}]},
        "REAL": {"lean": [{"value": 2.0}] * 2, "ours": [{"value": 2.1}, {"value": 2.2}]},
    }
    summary = report.summarize(measured)
    found = {(v["workload"], v["what"]): (round(v["measured"], 3), v["verdict"]) for v in report.verdicts(summary)}
    assert found == {
        ("W1list", "over lean"): (16.0, "no"),
        ("PROG", "the first logged value"): (10.0, "no"),
        ("PROG", "each further one"): (1.0, "yes"),
        ("PROG", "50 values over one"): (60.0, "yes"),
        ("START", "import, over torch"): (0.01, "yes"),
        ("DDP2", "time of a step, ratio to torchrun"): (1.05, "within noise"),
        ("REAL", "whole fit, ratio to lean"): (1.075, "no"),
        ("START", "first step, over lean"): (0.5, "no"),
    }
    table = report.markdown({"date": "today"}, summary)
    assert "| W1list | over lean | 9 us a step | 16 us a step (15 to 17) | **no** |" in table
    assert "| PROG | the first logged value | 5 us | 10 us | **no** |" in table


def test_slow_workloads_run_in_fewer_rounds() -> None:
    planned = [workload for _, workload in main.schedule(["W1", "GROWTH"], 5)]
    assert planned == ["W1", "GROWTH"] * 3 + ["W1"] * 2


def test_instructions_are_left_out_with_a_word_where_valgrind_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert instructions.per_step("lean", "W1list", sys.executable) == {"skipped": "valgrind isn't installed"}
