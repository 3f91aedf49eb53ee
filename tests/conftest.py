"""Where is what tested?

Folders mirror those of the package, and test one part each. Beside them:
equality/     the same model, trained by a hand-written loop or cut and resumed, has the same weights
faults/       programs that are killed or fail, at random times and named points, and lose nothing
conformance/  every strategy can do the same
mistakes/     planted mistakes and their errors; honest programs without a false alarm
frozen/       programs of 2019 run unchanged
slurm/ hosts/ a real Slurm, and hosts in network namespaces (need root)

Tests run with one thread, so that they don't wait for each other, and fetch nothing. Where ``CI_NO_SKIPS`` names a
marker (``root``, ``ray``), a test that has it and is skipped is a failure. What would begin after ``CI_DEADLINE``, in
seconds since 1970, is left out, and named in the file ``CI_LEFT_OUT``: a machine that is several times slower than
others then finds what is wrong with the rest, instead of ending in the middle without a word.
"""

import contextlib
import gc
import os
import signal
import time
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

# ignored in what a shell starts with &, and so in all that tests start
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # also for the programs that tests start

import torch

from pytorch_lightning.errors import SHOWN
from tests.data.forced.sitecustomize import force
from tests.saves import every_save_written

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def forget_notices() -> None:
    """Each test is a program of its own."""
    SHOWN.clear()


@pytest.fixture(autouse=True)
def saves_are_written(request: pytest.FixtureRequest) -> Iterator[None]:
    """How fast a disk is decides nothing, but where that is what is tested (``skips_saves``)."""
    with contextlib.nullcontext() if request.node.get_closest_marker("skips_saves") else every_save_written():
        yield


STANDS_STILL = 900
"""Seconds after which a test fails, instead of keeping all that come after it from being run."""
NO_TIME = "no time is left"
LONG_TEST = 20.0
"""Seconds after which CI names a test and its time, so that one that stands still is seen."""


@pytest.hookimpl(tryfirst=True)  # before fixtures are made
def pytest_runtest_setup(item: pytest.Item) -> None:
    if time.time() > float(os.environ.get("CI_DEADLINE", "inf")):
        with open(os.environ["CI_LEFT_OUT"], "a") as file:
            file.write(f"{item.nodeid}\n")
        pytest.skip(NO_TIME)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--auto-workers"):
        force()
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if "CI_NO_SKIPS" in os.environ and reporter is not None:
        config.pluginmanager.register(NamesLongTests(reporter))


class NamesLongTests:
    def __init__(self, reporter: Any) -> None:
        self._reporter = reporter

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.duration > LONG_TEST:
            self._reporter.write_line(f"\n{report.duration:.0f} s: {report.nodeid} ({report.when})")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Generator[None, Any, Any]:
    report = yield
    needed = any(item.get_closest_marker(name) for name in os.environ.get("CI_NO_SKIPS", "").split())
    if report.skipped and needed and NO_TIME not in str(report.longrepr):
        report.outcome, report.longrepr = "failed", f"may not be skipped here: {report.longrepr}"
    return report


LONG = frozenset(
    [
        "slurm/test_slurm.py",
        "hosts/test_two_hosts.py",
        "callbacks/test_averages_of_several.py",
        "callbacks/test_optuna_pruning.py",
        "callbacks/test_schedule_free.py",
        "callbacks/test_timed_checkpoints.py",
        "callbacks/test_tuning_of_several.py",
        "callbacks/test_unfreeze.py",
        "callbacks/test_weight_averaging.py",
        "conformance/test_conformance.py",
        "test_budgets.py",
        "test_verify_of_several.py",
        "launchers/test_signals.py",
        "options/test_run_options.py",
        "launchers/test_signals_to_several.py",
        "launchers/test_signals_to_nested_fits.py",
        "launchers/test_spawned.py",
        "launchers/test_torchrun.py",
        "launchers/test_restarts.py",
        "launchers/test_where_processes_listen.py",
        "launchers/test_own_experiment.py",
        "launchers/test_sixteen.py",
        "launchers/test_what_is_raised.py",
        "launchers/test_what_processes_tell.py",
        "strategies/test_collectives.py",
        "strategies/test_reading.py",
        "strategies/test_replicas.py",
        "steps/test_manual_kills.py",
        "strategies/test_programs_of_several.py",
        "equality/test_ablation.py",
        "equality/test_own_state.py",
        "equality/test_resume.py",
        "equality/test_resume_cases.py",
        "equality/test_worker_changes.py",
        "examples/test_search.py",
        "forks/test_fork_cases.py",
        "forks/test_more_forks.py",
        "faults/test_bad_events.py",
        "faults/test_changes.py",
        "faults/test_changes_of_several.py",
        "faults/test_kills.py",
        "faults/test_kills_of_several.py",
        "faults/test_memory.py",
        "faults/test_steering.py",
        "faults/test_surroundings.py",
        "faults/test_logger_cuts.py",
        "faults/test_tracker_kills.py",
        "loggers/test_trackers.py",
        "loggers/test_resumed_logs.py",
        "benchmarks/test_benchmarks.py",
        "command_line/test_template_commands.py",
        "commands/test_report_in_browser.py",
        "security/test_build.py",
        "security/test_import.py",
        "security/test_names_from_files.py",
        "security/test_secrets.py",
        "security/test_values.py",
        "security/test_mutations.py",
        "security/test_files.py",
        "resume/test_given_back.py",
        "resume/test_jobs.py",
        "resume/test_objects_with_state.py",
        "resume/test_optimizers.py",
        "resume/test_other_streams.py",
        "resume/test_own_version.py",
        "resume/test_resume_auto.py",
        "trainer/test_epoch_metrics.py",
        "trainer/test_epoch_metrics_of_several.py",
        "trainer/test_rank0.py",
        "trainer/test_reloading.py",
    ]
)
"""Files that start many programs, or try many cases: ``slow``, all of them."""

NIGHTLY = frozenset(
    [
        "benchmarks/test_gpu_check.py",
        "equality/test_counted.py",
        "examples/test_killed_examples.py",
        "launchers/test_shares.py",
        "trainer/test_growth.py",
        "trainer/test_speed.py",
    ]
)
"""Files that try once more, in other programs or by more cases, what others test: ``nightly``, all of them."""


EVERY = {
    "callbacks/test_averages_of_several.py": 2,
    "callbacks/test_tuning_of_several.py": 3,
    "command_line/test_template_commands.py": 2,
    "commands/test_wheel.py": 3,
    "data/test_large_order.py": 2,
    "equality/test_loader_grid.py": 2,
    "examples/test_own_steps.py": 2,
    "faults/test_kills_of_several.py": 2,
    "hosts/test_two_hosts.py": 2,
    "launchers/test_signals_to_several.py": 3,
    "launchers/test_where_processes_listen.py": 2,
    "options/test_run_options.py": 2,
    "steps/test_manual_kills.py": 2,
    "strategies/test_reading.py": 3,
    "testing/test_same_training.py": 3,
    "trainer/test_rank0.py": 2,
}
"""Of the slow tests of these files that have many cases, one in so many is run by day: the others are ``nightly``."""


@pytest.hookimpl(tryfirst=True)  # before those are chosen that -m names
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave long tests out, unless they or their file are selected."""
    cases = Counter[tuple[str, str]]()
    for item in items:
        if config.pluginmanager.hasplugin("timeout"):  # scripts/gpu_check does without
            item.add_marker(pytest.mark.timeout(STANDS_STILL))
        name = item.path.as_posix().removeprefix(f"{Path(__file__).parent.as_posix()}/")
        if name in NIGHTLY:
            item.add_marker("nightly")
        elif name in LONG:
            item.add_marker("slow")
        if name in EVERY and item.get_closest_marker("slow") is not None:
            test = name, getattr(item, "originalname", item.name)
            if cases[test] % EVERY[name]:
                item.add_marker("nightly")
            cases[test] += 1
    named = {Path(argument.split("::")[0]).name for argument in config.args if argument.split("::")[0].endswith(".py")}
    too_long = {"nightly", "slow"}
    if config.getoption("--all") or "slow" in (config.getoption("-m") or ""):
        too_long = {"nightly"}
    if config.getoption("--nightly"):
        too_long = set()
    left_out = {item for item in items if too_long & {mark.name for mark in item.iter_markers()}}
    left_out = {item for item in left_out if item.path.name not in named}
    if left_out:
        config.hook.pytest_deselected(items=[*left_out])
        items[:] = [item for item in items if item not in left_out]


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is imported stays: a search through all objects, of the collector's or of the library's, leaves it out."""
    gc.collect()
    gc.freeze()


def pytest_addoption(parser: Any) -> None:
    parser.addoption("--all", action="store_true", help="run the tests that take long, too")
    parser.addoption("--nightly", action="store_true", help="and those that take so long that they are run at night")
    parser.addoption(
        "--kills",
        type=int,
        help="how many runs of small models tests/faults kills at random, and how often it kills the template of the"
        " examples at random times (default: 10 and 2)",
    )
    parser.addoption(
        "--kills-at-points",
        type=int,
        default=3,
        help="how often tests/faults kills the template of the examples at named points (default: 3)",
    )
    parser.addoption(
        "--draws",
        type=int,
        default=40,
        help="how many models tests/equality draws and trains, by a Trainer and by hand (default: 40)",
    )
    parser.addoption(
        "--changes",
        type=int,
        default=12,
        help="how many programs that change things while they are trained tests/faults cuts (default: 12)",
    )
    parser.addoption(
        "--changes-of-several",
        type=int,
        default=6,
        help="how many such programs tests/faults runs in 2 and 3 processes and cuts (default: 6)",
    )
    parser.addoption(
        "--steered",
        type=int,
        default=6,
        help="how many programs that steer their training tests/faults cuts, in one and two processes (default: 6)",
    )
    parser.addoption(
        "--logger-cuts",
        type=int,
        default=6,
        help="how many programs with several loggers tests/faults cuts (default: 6)",
    )
    parser.addoption(
        "--tracker-kills",
        type=int,
        default=4,
        help="how often tests/faults kills a run that logs to W&B, MLflow, TensorBoard and CSV (default: 4)",
    )
    parser.addoption(
        "--certified",
        type=int,
        default=2,
        help="how many honest runs tests/test_verify.py verifies, and changed ones, of which there are 3 at least"
        " (default: 2)",
    )
    parser.addoption(
        "--forks", type=int, default=6, help="how many runs tests/forks draws, trains and forks (default: 6)"
    )
    parser.addoption(
        "--auto-workers",
        action="store_true",
        help="give every Trainer auto_nb_workers=True, and change the number of workers every two batches",
    )
    parser.addoption("--first-seed", type=int, default=0, help="the first of their seeds (default: 0)")
    parser.addoption(
        "--mutations",
        type=int,
        default=110,
        help="how many mutated files tests/security has the library read (default: 110)",
    )
