"""Runs the tests for a GPU one after the other, whatever becomes of each."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

PAUSE = 0.1
"""Seconds between two looks at what the tests have written."""
CHARACTERS = 3000
"""So much of what a process printed is kept, where it ended in the middle of a test."""

Entry = dict[str, Any]
"""What became of a test: ``test``, ``shows``, ``where``, ``outcome`` ('passed', 'failed', 'skipped' or 'not run'),
``seconds``, ``error`` and ``figures``."""


class Lines:
    """A file that other processes add lines of JSON to."""

    def __init__(self, path: Path) -> None:
        self._path, self._place = path, 0

    def new(self) -> list[dict[str, Any]]:
        """Those that are complete and weren't given before."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._place)
            text = file.read()
        complete = text[: text.rfind(b"\n") + 1]
        self._place += len(complete)
        return [json.loads(line) for line in complete.splitlines()]


class Check:
    """The tests under ``paths``. ``entries`` has what is known of each, in their order, at any time.

    A test that takes longer than its share of the time (times ``patience``), or whose process ends, has failed, and
    the others run in another process. At ``deadline`` (of ``time.time``) it ends, and those that are left have not
    run.
    """

    def __init__(
        self,
        paths: Sequence[str],
        deadline: float,
        folder: Path,
        *,
        variables: Mapping[str, str],
        patience: float = 1.0,
        on_change: Callable[[], object] = bool,
        root: Path = ROOT,
    ) -> None:
        self._paths, self._deadline, self._folder, self._patience = list(paths), deadline, folder, patience
        self._on_change, self._root = on_change, root
        self._variables = {**variables, "GPU_CHECK_LINES": str(folder / "lines")}
        self._lines = Lines(folder / "lines")
        self._shares: dict[str, float] = {}
        self._found: dict[str, Entry] = {}
        self._began: tuple[str, float] | None = None
        self._said = ""
        """What a process said before it ended."""
        self.problem = ""
        """Why no tests could be run, if none could."""

    @property
    def entries(self) -> list[Entry]:
        """What became of every test."""
        return [self._found.get(test, {"test": test, "outcome": "not run"}) for test in self._shares]

    @property
    def _left(self) -> list[str]:
        return [test for test in self._shares if test not in self._found]

    def run(self) -> None:
        """Run all of them."""
        chosen = self._paths
        while chosen and time.time() < self._deadline:
            nb_before = len(self._found)
            self._run_some(chosen)
            if len(self._found) == nb_before and time.time() < self._deadline:
                self.problem = self.problem or "no test ended"
                return
            chosen = self._left

    def _run_some(self, chosen: Sequence[str]) -> None:
        """Run tests in a process of their own, until one of them ends it."""
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "tests.gpu.noting"]
        command += ["-p", "no:cacheprovider", "--strict-markers", "--continue-on-collection-errors"]
        command += ["-c", str(self._root / "pyproject.toml"), "--rootdir", str(self._root)]
        # the project's own would start further processes, and take each warning of another torch for an error
        command += ["-o", "addopts=", "-o", "filterwarnings=default", *chosen]
        output, why = self._folder / "output", ""
        with output.open("wb") as file:
            process = subprocess.Popen(
                command,
                cwd=self._root,
                env={**os.environ, "PYTHONPATH": str(ROOT), **self._variables},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                why = self._watch(process) or why
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # with all that a test has started
                process.wait()
        self._take_lines()
        tail = output.read_text(errors="replace")[-CHARACTERS:]
        if self._began is not None:
            test, began = self._began
            self._began = None
            if time.time() < self._deadline:
                why = why or self._said or f"the process of this test ended with code {process.returncode}"
                seconds = round(time.time() - began, 2)
                self._note({"test": test, "outcome": "failed", "seconds": seconds, "error": f"{why}\n{tail}"})
        is_over = time.time() >= self._deadline
        if (
            not is_over
            and process.returncode not in (0, 1)
            and not any(entry.get("seconds") for entry in self._found.values())
        ):
            self.problem = f"pytest ended with code {process.returncode}\n{tail}"

    def _watch(self, process: "subprocess.Popen[bytes]") -> str:
        """Wait until the process ends, or must be ended; returns why it must."""
        while process.poll() is None:
            time.sleep(PAUSE)
            self._take_lines()
            if time.time() >= self._deadline:
                return "the time was over"
            if self._began is not None:
                share = self._shares.get(self._began[0], 0.0) * self._patience
                if time.time() - self._began[1] > share:
                    return f"took longer than {share:.0f} s"
        return ""

    def _take_lines(self) -> None:
        for line in self._lines.new():
            if "collected" in line:
                for test, share in line["collected"]:
                    self._shares.setdefault(test, share)
            elif "began" in line:
                self._began, self._said = (line["test"], line["began"]), ""
            elif "outcome" in line:
                self._note(line)
            elif "broken" in line:
                self._said = line["broken"]
            elif "ended" in line:
                self._began = None

    def _note(self, entry: Entry) -> None:
        before = self._found.get(entry["test"])
        # what fails after a test that passed makes it fail
        if before is None or before["outcome"] == "passed":
            self._found[entry["test"]] = {**(before or {}), **entry}
        self._on_change()
