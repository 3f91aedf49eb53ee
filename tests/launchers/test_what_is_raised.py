"""What one process raises is raised where the processes were started, and ends all of them in seconds."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.launchers.listening import free_port
from tests.launchers.signalled import ROOT
from tests.launchers.test_spawned import run_program

SECONDS = 100
"""Of ten minutes that processes would wait for each other."""

RAISING = """
import json, multiprocessing, sys, time
import torch._dynamo  # once here, and not in each copy
from tests.launchers.nets import Net, trainer

class Pruned(Exception):
    pass  # as the searches for hyperparameters raise it, to be told to go on with the next trial

class Coded(Exception):
    def __init__(self, code, *, hint):
        super().__init__(f"code {code}: {hint}")
        self.code, self.hint = code, hint

class Holding(Exception):
    def __init__(self, text, trial):
        super().__init__(text)
        self.text, self.trial, self.callback = text, trial, lambda: trial

class Formatted(Exception):
    def __init__(self, left, right):
        self.left, self.right = left, right
    def __str__(self):
        return f"{self.left} isn't {self.right}"

class Outside(BaseException):
    pass

def local():
    class Local(Exception):
        pass
    return Local("of a class that only this function knows")

def group():
    return ExceptionGroup("several", [Pruned("one"), KeyError("two")])

MADE = {
    "Pruned": lambda: Pruned("trial 7"), "Coded": lambda: Coded(5, hint="less"), "Formatted": lambda: Formatted(1, 2),
    "Holding": lambda: Holding("held", {"number": 7}), "Outside": lambda: Outside("of BaseException"),
    "KeyError": lambda: KeyError("a", 1), "FileNotFoundError": lambda: FileNotFoundError(2, "No such file", "x.csv"),
    "UnicodeDecodeError": lambda: UnicodeDecodeError("utf-8", b"\\xff", 0, 1, "invalid"),
    "ExceptionGroup": group, "Local": local, "KeyboardInterrupt": KeyboardInterrupt,
    "exit_3": lambda: SystemExit(3), "exit_0": lambda: SystemExit(0), "exit_text": lambda: SystemExit("all is lost"),
}

class Raising(Net):
    def training_step(self, data_batch, batch_nb):
        if self.trainer.proc_rank == 1 and self.global_step == 1 and self.mishap != "in validation":
            raise MADE[self.mishap]()
        return super().training_step(data_batch, batch_nb)
    def validation_step(self, data_batch, batch_nb):
        if self.trainer.proc_rank == 1 and self.mishap == "in validation":
            sys.exit(4)
        return super().validation_step(data_batch, batch_nb)

told = {}
def note(name, function):
    began = time.monotonic()
    try:
        told[name] = [function()]
    except BaseException as error:
        cause = error.__cause__
        fields = {k: v for k, v in vars(error).items() if k != "__notes__" and not callable(v)}
        about = [type(cause).__name__, str(cause), fields, list(map(repr, error.args)), getattr(error, "code", None)]
        told[name] = [type(error) is type(MADE[name]()) if name in MADE else None, repr(error), *about]
    told[name].append(time.monotonic() - began)
    assert multiprocessing.active_children() == []

run = trainer("logs", nb_processes=2, experiment=False)
for name in MADE:
    note(name, lambda: run.fit(Raising(name)))
note("in validation", lambda: run.validate(Raising("in validation")))
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Any:
    done = run_program(["-"], tmp_path_factory.mktemp("raising"), RAISING)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "name",
    ["Pruned", "Coded", "Formatted", "Holding", "Outside", "KeyError", "FileNotFoundError", "UnicodeDecodeError"],
)
def test_what_a_process_raises_is_raised_here_as_itself_with_its_traceback_as_the_cause(told: Any, name: str) -> None:
    same, shown, cause, text, fields, *_ = told[name]
    assert same, shown
    assert cause == "ProcessError"
    assert text.startswith("process 1 of 2 raised an exception:\n\nTraceback (most recent call last):\n")
    assert "in training_step" in text
    assert name in text
    expected = {"Coded": {"code": 5, "hint": "less"}, "Formatted": {"left": 1, "right": 2}}
    expected["Holding"] = {"text": "held", "trial": {"number": 7}}
    assert fields == expected.get(name, {})


def test_a_group_of_exceptions_holds_what_it_held(told: Any) -> None:
    assert told["ExceptionGroup"][:2] == [True, "ExceptionGroup('several', [Pruned('one'), KeyError('two')])"]


def test_an_exception_that_cannot_be_made_again_is_shown(told: Any) -> None:
    assert told["Local"][1].startswith("ProcessError('process 1 of 2 raised an exception:")
    assert "Local: of a class that only this function knows" in told["Local"][1]


@pytest.mark.parametrize(("name", "code"), [("exit_3", 3), ("exit_0", 0), ("exit_text", "all is lost")])
def test_an_exit_of_one_process_is_an_exit_here(told: Any, name: str, code: Any) -> None:
    assert told[name][0]
    assert told[name][6] == code
    assert told["in validation"][6] == 4


def test_an_interrupt_that_a_users_code_raises_in_one_process_is_one_here(told: Any) -> None:
    assert told["KeyboardInterrupt"][0]


def test_all_of_it_ends_in_seconds(told: Any) -> None:
    assert len(told) == 15
    assert all(each[-1] < SECONDS for each in told.values()), told


SCRIPT = """
import sys
from tests.launchers.nets import Net, trainer

class Own(Exception):
    def __init__(self, code, text):
        super().__init__(text)
        self.code = code

class Raising(Net):
    def training_step(self, data_batch, batch_nb):
        if self.trainer.proc_rank == 1 and self.global_step == 1:
            raise Own(7, "a text")
        return super().training_step(data_batch, batch_nb)

if __name__ == "__main__":
    try:
        trainer("logs", nb_processes=2, experiment=False).fit(Raising())
    except Own as error:
        print("caught", error.code, error)
        sys.exit(error.code)
"""


def test_a_script_can_catch_an_exception_of_its_own(tmp_path: Path) -> None:
    """Although its processes import it under another name."""
    (tmp_path / "program.py").write_text(SCRIPT)
    done = run_program(["program.py"], tmp_path)
    assert (done.stdout, done.returncode) == ("caught 7 a text\n", 7), done.stderr


LEAVING = """
import os, sys
from pathlib import Path
from tests.launchers.nets import Net, trainer

class Leaving(Net):
    def training_step(self, data_batch, batch_nb):
        if self.trainer.proc_rank == 1 and self.global_step == 1:
            Path("left").touch()
            sys.exit(int(sys.argv[1]))
        return super().training_step(data_batch, batch_nb)

trainer("logs", experiment=False).fit(Net())  # one that all end together leaves nothing behind
trainer("logs", experiment=False).fit(Leaving())
"""


@pytest.mark.parametrize("code", [0, 5])
def test_an_exit_of_one_process_ends_those_that_were_started_from_outside(tmp_path: Path, code: int) -> None:
    """Without anybody who would end them, as under srun."""
    (tmp_path / "program.py").write_text(LEAVING)
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen(
            [sys.executable, "program.py", str(code)],
            env={**os.environ, **place, "RANK": rank},
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    errors = [process.communicate(timeout=200)[1] for process in started]
    assert [process.returncode for process in started] == [1, code], errors
    assert time.time() - (tmp_path / "left").stat().st_mtime < SECONDS
    assert "another process of this run has ended or hangs" in errors[0]
