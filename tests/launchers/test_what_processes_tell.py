"""What processes of a run send each other: outputs of any plain kind, and never code."""

import ast
import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import DataLoader

import pytorch_lightning
from pytorch_lightning.errors import FitError
from tests.launchers.listening import free_port
from tests.launchers.nets import Net, trainer
from tests.launchers.signalled import ROOT


class Box(NamedTuple):
    corner: torch.Tensor
    label: str


@dataclasses.dataclass
class Found:
    boxes: list[Box]
    mask: Any
    scores: dict[str, Any]
    packed: Any


class Secretive:
    """Something of a user's that only pickle could send."""


class Detector(Net):
    """Gives an output of many kinds for each of ``nb_val`` samples; notes all that ``validation_end`` gets."""

    def __init__(self, nb_val: int, kind: str = "plain", folder: Path | None = None) -> None:
        super().__init__()
        self.nb_val, self.kind, self.folder = nb_val, kind, folder

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        n = int(data_batch[0, 0])
        if self.kind == "secretive":
            return {"val_loss": float(n), "deep": [Secretive()]}
        if self.kind == "own type on rank 1" and self.trainer.proc_rank == 0:
            return {"n": n}
        box = Box(torch.full((2, n), float(n)), f"box {n}")
        sequence = pack_sequence([torch.arange(n + 2.0), torch.arange(n + 1.0)])
        return Found([box] * n, np.full((n, 2), n, dtype=np.int16), {"n": n, "x": torch.tensor(n)}, sequence)

    predict_step = validation_step

    def validation_end(self, outputs: Any) -> Any:
        shown = [show(output) for output in outputs]
        if self.folder is not None:
            (self.folder / f"got_{self.trainer.proc_rank}").write_text(json.dumps(shown))
        return {"nb": len(outputs), "val_loss": 0.5}

    @property
    def val_dataloader(self) -> Any:
        return DataLoader(torch.arange(float(self.nb_val)).unsqueeze(1))

    test_dataloader = val_dataloader


def show(output: Any) -> str:
    if not isinstance(output, Found):
        return repr(output)
    types = [type(output.mask).__name__, str(output.mask.dtype), *(type(box).__name__ for box in output.boxes)]
    return f"{types} {output!r}"


def outputs_of(folder: Path, nb_val: int, nb: int, kind: str = "plain", **options: Any) -> list[list[str]]:
    """What ``validation_end`` got in each of ``nb`` processes."""
    folder.mkdir()
    trainer(folder, nb_processes=nb, experiment=False, max_nb_epochs=1, **options).validate(
        Detector(nb_val, kind, folder)
    )
    return [json.loads((folder / f"got_{rank}").read_text()) for rank in range(nb)]


@pytest.mark.parametrize("nb_val", [1, 5], ids=["fewer batches than processes", "an uneven end"])
def test_each_process_gets_all_outputs_of_every_plain_kind(tmp_path: Path, nb_val: int) -> None:
    """A process without a batch of its own too: the model's file names the types."""
    (alone,) = outputs_of(tmp_path / "one", nb_val, 1)
    assert len(alone) == nb_val
    assert "tensor" in alone[0]
    for nb in (2, 3):
        assert outputs_of(tmp_path / str(nb), nb_val, nb) == [alone] * nb


def test_predictions_of_every_plain_kind_come_back(tmp_path: Path) -> None:
    model = Detector(4)
    there = trainer(tmp_path, nb_processes=2).predict(model)
    assert [show(output) for output in there] == [show(model.predict_step(x, 0)) for x in model.test_dataloader]


def test_an_output_that_is_not_plain_data_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    there = trainer(tmp_path / "here", nb_processes=2, experiment=False)
    named = (
        r"process 0 can't send outputs of validation_step to the others: outputs\[0\]\[0\]\['deep'\]\[0\] is a"
        r" tests\.launchers\.test_what_processes_tell\.Secretive\. .* Return plain data from validation_step, or pass"
        r" gather_validation=False\."
    )
    with pytest.raises(FitError, match=named):
        there.validate(Detector(4, "secretive"))
    with pytest.raises(FitError, match=r"Return plain data from predict_step, or pass write_to='a folder'\."):
        there.predict(Detector(4, "secretive"))
    each = outputs_of(tmp_path / "apart", 4, 2, "secretive", gather_validation=False)
    assert [len(own) for own in each] == [2, 2]
    assert trainer(tmp_path, experiment=False).validate(Detector(4, "secretive"))["nb"] == 4, (
        "one process sends nothing"
    )


HIDDEN = """
import dataclasses, sys
from tests.launchers.test_what_processes_tell import Detector
from tests.launchers.nets import trainer

class Own(Detector):
    def validation_step(self, data_batch, batch_nb):
        if self.trainer.proc_rank == 0:
            return {"n": 1}
        from somewhere import Else
        return Else(5)

print(trainer("logs", nb_processes=2, experiment=False).validate(Own(2)))
"""


def test_a_type_that_only_another_process_has_is_not_looked_for(tmp_path: Path) -> None:
    """Although it could be imported."""
    (tmp_path / "somewhere.py").write_text(
        "import dataclasses\nprint('it is imported', flush=True)\n@dataclasses.dataclass\nclass Else:\n    x: int\n"
    )
    variables = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    done = subprocess.run(
        [sys.executable, "-"], input=HIDDEN, env=variables, cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert "process 0 can't take outputs of validation_step from process 1: it is, or contains, a somewhere.Else" in (
        done.stderr
    )
    assert done.stdout.count("it is imported") == 1, "by the process that returns one"


# ------------------------------------------------------------------ copies
MANY_THREADS = """
import torch
from tests.launchers.nets import Net, trainer

class Asks(Net):
    def on_fit_start(self):
        torch.set_num_threads(3)

    def training_step(self, data_batch, batch_nb):
        torch.ones(2**22).mean()
        print("threads:", torch.get_num_threads(), flush=True)
        return super().training_step(data_batch, batch_nb)

torch.set_num_threads(2)
torch.ones(2**22).mean()  # now this process has threads, which its copies don't have
assert trainer("logs", nb_processes=2).fit(Asks()) == 1
"""


def test_a_copy_of_a_process_with_threads_keeps_one_and_says_so(tmp_path: Path) -> None:
    """With two it would wait for ever for one that wasn't copied."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-"], input=MANY_THREADS, env=variables, cwd=tmp_path, capture_output=True, text=True,
        timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert set(re.findall(r"threads: (\d+)", done.stdout)) == {"1"}
    assert done.stderr.count("torch.set_num_threads(3) has no effect") == 1, done.stderr


# ------------------------------------------------------------------ what carries it
NEVER_PICKLED = """
import sys
import torch.distributed.distributed_c10d as c10d
from tests.launchers.nets import Net, trainer
from pytorch_lightning.strategies import FullySharded

def forbidden(*arguments, **options):
    raise AssertionError("something is pickled on its way to another process")

c10d._object_to_tensor = c10d._tensor_to_object = forbidden
for backend, in_order in (("ddp", True), (FullySharded(min_parameters=1), False)):
    run = trainer("logs", distributed_backend=backend, nb_processes=3, save_every_nb_batches=2, exact_elastic=in_order)
    assert run.fit(Net()) == 1
    run.test()
    run.predict()
print("done")
"""


def test_no_collective_of_torch_that_pickles_is_called(tmp_path: Path) -> None:
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-"],
        input=NEVER_PICKLED,
        env=variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.endswith("done\n"), done.stderr


def test_no_collective_that_pickles_is_named_in_the_package() -> None:
    for path in Path(pytorch_lightning.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            pickles = name.endswith(("_object", "_object_list")) and name.split("_")[0] in (
                "all", "broadcast", "gather", "recv", "scatter", "send",
            )  # fmt: skip
            assert not pickles, f"{path}:{node.lineno} {name}"  # type: ignore[attr-defined]


IMPOSTOR = """
import datetime, os, sys, torch
import torch.distributed as dist
from pytorch_lightning.launchers import rendezvous
from pytorch_lightning.messages import transport
from tests.launchers.nets import Net, trainer

if os.environ["RANK"] == "1" and sys.argv[1] == "impostor":
    # it reaches what carries messages, and does all that a process of the run does, without the secret
    prove = transport.prove
    transport.prove = lambda group, secret: prove(group, b"a guess")
    try:
        trainer("logs", experiment=False).fit(Net())
    except Exception as error:
        print("impostor:", type(error).__name__, flush=True)
    os._exit(0)
print("fit:", trainer("logs", experiment=False, max_nb_epochs=1).fit(Net()), flush=True)
"""


@pytest.mark.parametrize("second", ["impostor", "process of the run"])
def test_who_does_not_know_the_secret_is_sent_nothing(tmp_path: Path, second: str) -> None:
    (tmp_path / "program.py").write_text(IMPOSTOR)
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen(
            [sys.executable, "program.py", second],
            env={**os.environ, **place, "RANK": rank},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    ended = [(*process.communicate(timeout=100), process.returncode) for process in started]
    if second == "impostor":
        assert ended[0][2] == 1
        assert "ProcessError: process 1 of 2 doesn't know the secret of this run" in ended[0][1]
        assert "fit" not in ended[0][0]
    else:
        assert [out.removeprefix("[rank 1] ") for out, _, _ in ended] == ["fit: 1\n"] * 2, ended
